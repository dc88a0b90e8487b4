//! The directories that sandboxes own, and whose they are by their names.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use boxyard_agent::remove_tree;
use boxyard_plugin_api::prelude::*;
use rustix::fs::CWD;

/// Where the sandboxes' directories are.
#[derive(Clone, Debug)]
pub(crate) struct Directories {
    root: PathBuf,
}

/// The directory that a sandbox owns, be it there or not.
///
/// It is the sandbox's working directory unless the configuration names one, and in any case
/// what a later sweep finds the sandbox by.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

/// A directory that is there, and whose it is.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) lease: String,
    pub(crate) sandbox: String,
    pub(crate) directory: Directory,
    /// How long ago something was made or removed right in it.
    pub(crate) age: Duration,
}

impl Directories {
    /// Takes the plugin's own directory.
    pub(crate) fn new(data_dir: &Path) -> Result<Self> {
        let data_dir = std::path::absolute(data_dir)
            .map_err(|error| Error::from(error).context("the plugin's data directory"))?;
        Ok(Self {
            root: data_dir.join("sandboxes"),
        })
    }

    /// Returns the directory of a sandbox.
    pub(crate) fn of(&self, lease: &str, sandbox: &str) -> Directory {
        let name = format!("{}.{}", escaped(lease), escaped(sandbox));
        Directory {
            path: self.root.join(name),
        }
    }

    /// Returns every sandbox's directory that is there.
    pub(crate) fn list(&self) -> Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failure(error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.failure(error))?;
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.split_once('.'));
            let Some((lease, sandbox)) =
                owner.and_then(|(lease, id)| Some((unescaped(lease)?, unescaped(id)?)))
            else {
                tracing::warn!(?name, "not the directory of a sandbox; left alone");
                continue;
            };
            // One that is gone meanwhile needs no sweep.
            let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            let age = SystemTime::now()
                .duration_since(modified)
                .unwrap_or_default();
            all.push(Found {
                lease,
                sandbox,
                directory: Directory { path: entry.path() },
                age,
            });
        }
        Ok(all)
    }

    fn failure(&self, error: io::Error) -> Error {
        Error::from(error).context(self.root.display())
    }
}

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it, for our user alone.
    pub(crate) fn create(&self) -> Result<()> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        if let Some(root) = self.path.parent() {
            let made = builder.recursive(true).create(root);
            made.map_err(|error| Error::from(error).context(root.display()))?;
        }
        let made = builder.recursive(false).create(&self.path);
        made.map_err(|error| Error::from(error).context(self.path.display()))
    }

    /// Removes it with everything in it; that it is gone is no error.
    pub(crate) async fn remove(&self) -> Result<()> {
        let path = self.path.clone();
        let removed = tokio::task::spawn_blocking(move || remove_tree(CWD, &path)).await;
        removed.map_err(Error::internal)?.map_err(|error| {
            Error::from(error).context(format_args!("removing {}", self.path.display()))
        })
    }
}

/// Names as hosts give them stay as they are; whatever else comes keeps to one path component
/// and has no dot, which parts the lease from the id.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            escaped.push(byte.into());
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn unescaped(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    let back = String::from_utf8(bytes).ok()?;
    // Only what `escaped` wrote is a name of ours.
    (escaped(&back) == text).then_some(back)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn any_name_is_one_path_component_and_reads_back() {
        for name in ["a-B_9", "a.b", "../../etc", "%", "\u{e9}\0", ""] {
            let text = escaped(name);
            assert!(!text.contains(['.', '/', '\0']), "{text}");
            assert_eq!(unescaped(&text).unwrap(), name);
        }
        for foreign in ["a b", "%2", "%61", "%zz", "a/b"] {
            assert_eq!(unescaped(foreign), None, "{foreign}");
        }
    }

    #[tokio::test]
    async fn a_directory_is_private_listed_with_its_owner_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let directories = Directories::new(place.path()).unwrap();
        assert!(directories.list().unwrap().is_empty());
        let directory = directories.of("lease", "a.b");
        directory.create().unwrap();
        assert_eq!(
            directory.create().unwrap_err().code(),
            ErrorCode::ALREADY_EXISTS
        );
        let mode = directory.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::create_dir(place.path().join("sandboxes/foreign")).unwrap();
        let all = directories.list().unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all[0].lease.as_str(), all[0].sandbox.as_str()),
            ("lease", "a.b")
        );
        all[0].directory.remove().await.unwrap();
        assert!(!directory.path().exists());
        directory.remove().await.unwrap();
    }
}
