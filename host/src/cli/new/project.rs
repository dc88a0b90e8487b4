//! The files of a plugin's project.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    name::PluginName,
    sdk::{Sdk, SdkCrate},
};

/// Where each file goes, and its template. In those, cargo and git would take files of these
/// names for their own.
const FILES: [(&str, &str); 5] = [
    (
        "Cargo.toml",
        include_str!("../../../templates/plugin/manifest.toml"),
    ),
    (
        "README.md",
        include_str!("../../../templates/plugin/README.md"),
    ),
    (
        ".gitignore",
        include_str!("../../../templates/plugin/gitignore"),
    ),
    (
        "src/lib.rs",
        include_str!("../../../templates/plugin/lib.rs"),
    ),
    (
        "tests/conformance.rs",
        include_str!("../../../templates/plugin/conformance.rs"),
    ),
];

/// Why there is no project.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProjectError {
    /// Something is there.
    #[error(
        "{} is there already: expected a new or an empty directory, found {found} in it; choose \
         another with --path",
        path.display()
    )]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// An entry of it.
        found: String,
    },
    /// What the system says.
    #[error("cannot make {}", path.display())]
    Io {
        /// The file or the directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Makes a project in a directory that is new or empty; all of it or nothing.
///
/// # Errors
///
/// [`ProjectError`].
pub(super) fn make(directory: &Path, name: &PluginName, sdk: &Sdk) -> Result<(), ProjectError> {
    let is_new = occupy(directory)?;
    let written = FILES.into_iter().try_for_each(|(path, template)| {
        let path = directory.join(path);
        write(&path, &filled(template, name, sdk))
            .map_err(|source| ProjectError::Io { path, source })
    });
    written.inspect_err(|_| clear(directory, is_new))
}

/// Makes the directory where it is not there; returns whether it made it.
fn occupy(directory: &Path) -> Result<bool, ProjectError> {
    let failed = |source| ProjectError::Io {
        path: directory.into(),
        source,
    };
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match fs::create_dir(directory) {
        Ok(()) => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    match fs::read_dir(directory).map_err(failed)?.next() {
        None => Ok(false),
        Some(entry) => {
            let entry = entry.map_err(failed)?;
            Err(ProjectError::Occupied {
                path: directory.into(),
                found: entry.file_name().to_string_lossy().into_owned(),
            })
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)
}

/// Removes what was made of a project; why it came to that is the error worth telling.
fn clear(directory: &Path, is_new: bool) {
    if is_new {
        let _ = fs::remove_dir_all(directory);
        return;
    }
    for (path, _) in FILES {
        let path = Path::new(path);
        let _ = fs::remove_file(directory.join(path));
        if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
            let _ = fs::remove_dir(directory.join(parent));
        }
    }
}

/// Fills in what differs from one project to another.
fn filled(template: &str, name: &PluginName, sdk: &Sdk) -> String {
    let mut text = template
        .replace("{{name}}", name.package())
        .replace("{{crate}}", &name.library())
        .replace("{{type}}", name.sandbox_type())
        .replace("{{rust}}", env!("CARGO_PKG_RUST_VERSION"));
    for part in SdkCrate::ALL {
        let place = format!("{{{{{}}}}}", part.name());
        text = text.replace(&place, &sdk.dependency(part));
    }
    text.replace("{{source}}", &sdk.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> PluginName {
        "demo-box".parse().unwrap()
    }

    fn entries(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        for (path, template) in FILES {
            let text = filled(template, &name(), &Sdk::Registry);
            assert!(!text.contains("{{"), "{path}: {text}");
        }
        let (_, manifest) = FILES[0];
        let manifest = filled(manifest, &name(), &Sdk::Registry);
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("demo-box"));
        let api = &manifest["dependencies"]["boxyard-plugin-api"];
        assert!(api.as_str().is_some());
    }

    #[test]
    fn a_project_is_made_in_a_directory_that_is_new_or_empty() {
        let place = tempfile::tempdir().unwrap();
        let new = place.path().join("deep/er/new");
        let empty = place.path().join("empty");
        fs::create_dir(&empty).unwrap();
        for directory in [new, empty] {
            make(&directory, &name(), &Sdk::Registry).unwrap();
            for (path, _) in FILES {
                assert!(directory.join(path).is_file(), "{path}");
            }
            let again = make(&directory, &name(), &Sdk::Registry).unwrap_err();
            assert!(matches!(again, ProjectError::Occupied { .. }), "{again}");
        }
    }

    #[test]
    fn what_cannot_be_made_is_not_half_made() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("file"), "").unwrap();
        for directory in ["file", "file/below"] {
            let directory = place.path().join(directory);
            let error = make(&directory, &name(), &Sdk::Registry).unwrap_err();
            assert!(matches!(error, ProjectError::Io { .. }), "{error}");
        }
        assert_eq!(entries(place.path()), ["file"]);

        let empty = place.path().join("empty");
        fs::create_dir(&empty).unwrap();
        for (path, template) in FILES {
            write(&empty.join(path), template).unwrap();
        }
        clear(&empty, false);
        assert!(entries(&empty).is_empty(), "{:?}", entries(&empty));
        clear(&empty, true);
        assert!(!empty.exists());
    }
}
