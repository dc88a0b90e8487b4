//! Step 1: which files look like plugins. Opens no file.

use std::{
    env::consts::DLL_SUFFIX,
    fs, io,
    path::{Path, PathBuf},
};

/// Why a directory was not searched.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// A directory that someone named is not there.
    #[error("plugin directory {} does not exist: create it, or correct the path", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A directory cannot be listed.
    #[error("cannot list plugin directory {}: {source}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Lists the files in a directory whose names end like a shared library's, by name.
///
/// # Errors
///
/// [`DiscoverError`]; `named` says whether a missing directory is one.
pub(super) fn discover(directory: &Path, named: bool) -> Result<Vec<PathBuf>, DiscoverError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if named {
                Err(DiscoverError::Missing {
                    path: directory.into(),
                })
            } else {
                tracing::debug!(directory = %directory.display(), "no such plugin directory");
                Ok(Vec::new())
            };
        }
        Err(source) => {
            return Err(DiscoverError::List {
                path: directory.into(),
                source,
            });
        }
    };
    let mut candidates = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|source| DiscoverError::List {
                path: directory.into(),
                source,
            })?
            .path();
        if path.to_string_lossy().ends_with(DLL_SUFFIX) {
            candidates.push(path);
        } else {
            tracing::debug!(path = %path.display(), "not a shared library's name");
        }
    }
    candidates.sort();
    tracing::debug!(directory = %directory.display(), candidates = candidates.len(), "searched");
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_libraries_are_listed_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.so", "a.so", "notes.txt", "so"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let found = discover(directory.path(), true).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a.so", "b.so"]);
    }

    #[test]
    fn a_missing_directory_is_an_error_only_when_someone_named_it() {
        let missing = Path::new("/nonexistent/boxyard");
        assert!(discover(missing, false).unwrap().is_empty());
        assert!(matches!(
            discover(missing, true),
            Err(DiscoverError::Missing { .. })
        ));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(
            discover(file.path(), true),
            Err(DiscoverError::List { .. })
        ));
    }
}
