//! The private copies of what is loaded: a file a content, named by its hash, where nobody else
//! can write.
//!
//! Nobody changes a copy under the process that has it open, and an upgrade lies beside the old
//! one. A content that has its copy already need not be held in memory: the copy is inspected.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
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

    /// Finds the copy of what a file holds, which is then in use: one of the same bytes, that
    /// nobody else could have changed.
    ///
    /// Comparing costs a fraction of hashing, and a damaged copy is not taken for a whole one.
    pub(super) fn of(&self, file: &mut File) -> Option<PrivateCopy> {
        let length = file.metadata().ok()?.len();
        let entries = fs::read_dir(&self.directory).ok()?;
        let as_long = entries.filter_map(Result::ok).filter(|entry| {
            let metadata = entry.metadata();
            metadata.is_ok_and(|metadata| metadata.is_file() && metadata.len() == length)
        });
        let mut trusted = false;
        for entry in as_long {
            trusted = trusted || self.is_private();
            if !trusted {
                return None;
            }
            if let Some(copy) = compare(file, &entry.path()) {
                return Some(copy);
            }
        }
        None
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
        file.write_all(bytes)?;
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

/// Opens the copy at `path` if it holds what `file` does.
fn compare(file: &mut File, path: &Path) -> Option<PrivateCopy> {
    let sha256 = path.file_name()?.to_str()?.strip_suffix(".so")?.to_owned();
    let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hash {
        return None;
    }
    let copy = File::open(path).ok()?;
    file.rewind().ok()?;
    if !is_same(file, &copy).ok()? {
        return None;
    }
    // Another host that removes old copies now leaves this one alone.
    copy.set_modified(SystemTime::now()).ok()?;
    let path = path.into();
    Some(PrivateCopy {
        path,
        file: copy,
        sha256,
    })
}

/// Compares two files piece by piece: fresh pages for all of them would cost more.
fn is_same(one: &File, other: &File) -> io::Result<bool> {
    const PIECE: usize = 128 * 1024;
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
