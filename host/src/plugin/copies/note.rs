//! What remembers that a file and a copy were compared, so that neither is read again until one
//! of them is written.
//!
//! A note that is wrong loads what was loaded before, and nothing that was never checked.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// A file that was written so lately can be written again within the same tick of its clock, and
/// some filesystems count in seconds.
const TICK: Duration = Duration::from_secs(2);

/// What a file is known by: every write changes the last two, which no program can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether whatever is written from now on changes it.
    fn is_settled(&self) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = u64::try_from(seconds)
            .ok()
            .zip(u64::try_from(nanoseconds).ok());
        changed.is_some_and(|(seconds, nanoseconds)| {
            let changed = Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds);
            (SystemTime::now() - TICK)
                .duration_since(UNIX_EPOCH)
                .is_ok_and(|now| changed < now)
        })
    }
}

/// A file and the copy that holds the same, as they were when they were compared.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    file: Stamp,
    copy: Stamp,
    pub(super) sha256: String,
}

impl Note {
    /// Describes two files that are about to be compared; `None` while they could be written
    /// without a trace.
    pub(super) fn new(file: &Metadata, copy: &Metadata, sha256: &str) -> Option<Self> {
        let note = Self {
            file: Stamp::of(file),
            copy: Stamp::of(copy),
            sha256: sha256.to_owned(),
        };
        (note.file.is_settled() && note.copy.is_settled()).then_some(note)
    }

    /// Finds what was noted of a file that was not written since.
    pub(super) fn find(directory: &Path, file: &Metadata) -> Option<Self> {
        let text = fs::read(place(directory, file.dev(), file.ino())).ok()?;
        let note: Self = serde_json::from_slice(&text).ok()?;
        (note.file == Stamp::of(file)).then_some(note)
    }

    /// Whether the copy was not written since.
    pub(super) fn is_of(&self, copy: &File) -> bool {
        let metadata = copy.metadata();
        metadata.is_ok_and(|metadata| self.copy == Stamp::of(&metadata))
    }

    pub(super) fn keep(&self, directory: &Path) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&mut file, self)?;
        file.persist(place(directory, self.file.device, self.file.inode))?;
        Ok(())
    }
}

/// Where the note of a file is: one for each, so that an old one is written over.
fn place(directory: &Path, device: u64, inode: u64) -> PathBuf {
    directory.join(format!("{device:x}-{inode:x}.json"))
}
