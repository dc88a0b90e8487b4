//! The private copies of what is loaded: a file a content, named by its hash, where nobody else
//! can write.
//!
//! Nobody changes a copy under the process that has it open, and an upgrade lies beside the old
//! one. A content that has its copy already need not be held in memory: the copy is inspected.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::verify::mistrust;

/// Copies that nobody used for so long are removed.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// The directory of the private copies.
#[derive(Debug)]
pub(super) struct Copies {
    directory: PathBuf,
}

impl Copies {
    /// Names the directory; it is made with the first copy.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns where the copy of a content is or would be.
    pub(super) fn path(&self, sha256: &str) -> PathBuf {
        self.directory.join(format!("{sha256}.so"))
    }

    /// Returns whether a content of this length can have a copy.
    pub(super) fn any_as_long(&self, length: u64) -> bool {
        fs::read_dir(&self.directory).is_ok_and(|entries| {
            entries
                .filter_map(Result::ok)
                .any(|entry| entry.metadata().is_ok_and(|found| found.len() == length))
        })
    }

    /// Opens the copy of a content, which is then in use.
    ///
    /// A copy that others could have changed, or that is of another length, is none.
    pub(super) fn find(&self, sha256: &str, length: u64) -> Option<File> {
        mistrust()
            .and_then(|mistrust| {
                mistrust
                    .verifier()
                    .permit_readable()
                    .require_directory()
                    .check(&self.directory)
            })
            .ok()?;
        let copy = File::open(self.path(sha256)).ok()?;
        if copy.metadata().ok()?.len() != length {
            return None;
        }
        // Another host that removes old copies now leaves this one alone.
        copy.set_modified(SystemTime::now()).ok()?;
        Some(copy)
    }

    /// Makes the copy of a content, in place of a damaged one.
    pub(super) fn make(&self, sha256: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        mistrust()
            .and_then(|mistrust| {
                mistrust
                    .verifier()
                    .permit_readable()
                    .make_directory(&self.directory)
            })
            .map_err(io::Error::other)?;
        remove_old(&self.directory);
        let path = self.path(sha256);
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(bytes)?;
        // A crash must not leave a short file under the name of a hash.
        file.as_file().sync_data()?;
        file.persist(&path)?;
        Ok(path)
    }
}

/// Removes copies that no host used lately. One that is open somewhere lives on there.
fn remove_old(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LIFETIME)) {
            // It only takes space; the next host tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}
