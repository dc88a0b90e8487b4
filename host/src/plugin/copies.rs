//! The private copies of what is loaded: a file a content, named by its hash, where nobody else
//! can write.
//!
//! Nobody changes a copy under the process that has it open, and an upgrade lies beside the old
//! one. A content that has its copy already need not be held in memory: the copy is inspected.

mod note;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use self::note::Note;
use super::verify::mistrust;
use crate::hex;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Copies that nobody used for so long are removed.
const LIFETIME: Duration = DAY.saturating_mul(7);
/// How much of a file is read or written at once.
const PIECE: usize = 64 * 1024;

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

    /// Finds the copy of what a file holds, which is then in use: one of the same bytes, that
    /// nobody else could have changed.
    ///
    /// Comparing costs a fraction of hashing, and a damaged copy is not taken for a whole one. It
    /// is done once, until one of the two is written.
    pub(super) fn of(&self, file: &mut File) -> Option<PrivateCopy> {
        let metadata = file.metadata().ok()?;
        if let Some(note) = Note::find(&self.directory, &metadata).filter(|_| self.is_private())
            && let Some(copy) = self
                .open(&note.sha256)
                .filter(|copy| note.is_of(&copy.file))
        {
            return Some(copy);
        }
        let entries = fs::read_dir(&self.directory).ok()?;
        let as_long = entries.filter_map(Result::ok).filter(|entry| {
            let found = entry.metadata();
            found.is_ok_and(|found| found.is_file() && found.len() == metadata.len())
        });
        let mut trusted = false;
        for entry in as_long {
            trusted = trusted || self.is_private();
            if !trusted {
                return None;
            }
            let Some(copy) = hash_of(&entry.path()).and_then(|sha256| self.open(&sha256)) else {
                continue;
            };
            let note = Note::new(&metadata, &copy.file.metadata().ok()?, &copy.sha256);
            file.rewind().ok()?;
            if is_same(file, &copy.file).ok()? {
                // Where it cannot be kept, the next host compares again.
                let _ = note.map(|note| note.keep(&self.directory));
                return Some(copy);
            }
        }
        None
    }

    /// Opens a copy, which is then in use.
    fn open(&self, sha256: &str) -> Option<PrivateCopy> {
        let path = self.path(sha256);
        let file = File::open(&path).ok()?;
        let modified = file
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()?;
        // Another host that removes old copies now leaves this one alone.
        if modified.elapsed().is_ok_and(|age| age > DAY) {
            file.set_modified(SystemTime::now()).ok()?;
        }
        let sha256 = sha256.to_owned();
        Some(PrivateCopy { path, file, sha256 })
    }

    fn is_private(&self) -> bool {
        let checked = mistrust().and_then(|mistrust| {
            let verifier = mistrust.verifier().permit_readable().require_directory();
            verifier.check(&self.directory)
        });
        checked.is_ok()
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
        // What is written at once is mapped at once later, megabytes of it, and counts as memory that
        // the host uses.
        for piece in bytes.chunks(PIECE) {
            file.write_all(piece)?;
        }
        // A crash must not leave a short file under the name of a hash.
        file.as_file().sync_data()?;
        file.persist(&path)?;
        Ok(path)
    }
}

/// A copy that is byte for byte what a file holds, or held when they were compared.
#[derive(Debug)]
pub(super) struct PrivateCopy {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// The hash of its content, by which it was named when it was made.
    pub(super) sha256: String,
}

/// The hash that a copy is named by.
fn hash_of(path: &Path) -> Option<String> {
    let sha256 = path.file_name()?.to_str()?.strip_suffix(".so")?;
    hex::is_sha256(sha256).then(|| sha256.to_owned())
}

/// Compares two files piece by piece: fresh pages for all of them would cost more.
fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (mut ours, mut theirs) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let (ours, theirs) = (fill(one, &mut ours)?, fill(other, &mut theirs)?);
        if ours != theirs {
            return Ok(false);
        }
        if ours.is_empty() {
            return Ok(true);
        }
    }
}

/// Reads until the piece is full or the file is at its end; returns what was read.
fn fill<'a>(mut file: &File, piece: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let mut filled = 0;
    while let Some(rest) = piece.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(piece.get(..filled).unwrap_or_default())
}

/// Removes what no host used lately. A copy that is open somewhere lives on there.
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
