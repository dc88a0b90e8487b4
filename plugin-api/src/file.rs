//! What is asked of a sandbox's files, and what is answered.
//!
//! Paths are the sandbox's own. A relative one starts at its working directory.

use serde::{Deserialize, Serialize};

/// Reads a file into a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReadFile {
    /// The file.
    pub path: String,
    /// Where to start, in bytes.
    #[serde(default)]
    pub offset: u64,
    /// How many bytes at the most; to the end where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
}

impl ReadFile {
    /// Reads a file from its start to its end.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            offset: 0,
            length: None,
        }
    }

    /// Sets where to start, in bytes.
    #[must_use]
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Sets how many bytes to read at the most.
    #[must_use]
    pub fn length(mut self, length: impl Into<Option<u64>>) -> Self {
        self.length = length.into();
        self
    }
}

/// Writes a file from a source; a reader sees the old file or the new, never a part.
///
/// Links that the path ends with are followed. A file of several names, or one that something is
/// mounted on, may be written in place: then a reader may see a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WriteFile {
    /// The file.
    pub path: String,
    /// Its permission bits when it is new; 0644 where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Whether to make the directories above it that are missing.
    #[serde(default)]
    pub make_parents: bool,
}

impl WriteFile {
    /// Writes a file in a directory that is there.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            mode: None,
            make_parents: false,
        }
    }

    /// Sets the permission bits of a new file.
    #[must_use]
    pub fn mode(mut self, mode: impl Into<Option<u32>>) -> Self {
        self.mode = mode.into();
        self
    }

    /// Sets whether to make the directories above it that are missing.
    #[must_use]
    pub fn make_parents(mut self, make_parents: bool) -> Self {
        self.make_parents = make_parents;
        self
    }
}

/// Removes a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RemovePath {
    /// What to remove; a symbolic link itself, never what it points to.
    pub path: String,
    /// Whether a directory goes with everything in it.
    #[serde(default)]
    pub recursive: bool,
}

impl RemovePath {
    /// Removes a file or an empty directory.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            recursive: false,
        }
    }

    /// Sets whether a directory goes with everything in it.
    #[must_use]
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }
}

/// Makes a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MakeDirectory {
    /// The directory.
    pub path: String,
    /// Its permission bits; 0755 where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Whether to make those above it too, and to accept one that is there.
    #[serde(default)]
    pub parents: bool,
}

impl MakeDirectory {
    /// Makes a directory that is not there, in one that is.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            mode: None,
            parents: false,
        }
    }

    /// Sets its permission bits.
    #[must_use]
    pub fn mode(mut self, mode: impl Into<Option<u32>>) -> Self {
        self.mode = mode.into();
        self
    }

    /// Sets whether to make those above it too, and to accept one that is there.
    #[must_use]
    pub fn parents(mut self, parents: bool) -> Self {
        self.parents = parents;
        self
    }
}

/// Unpacks a tar stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PutArchive {
    /// Where to unpack it; made when it is missing.
    pub directory: String,
}

impl PutArchive {
    /// Unpacks in a directory.
    pub fn new(directory: impl Into<String>) -> Self {
        Self {
            directory: directory.into(),
        }
    }
}

/// Packs a file or a directory into a tar stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GetArchive {
    /// What to pack.
    pub path: String,
}

impl GetArchive {
    /// Packs what is at a path.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a socket, a pipe, or what this version has no word for.
    #[serde(other)]
    Other,
}

/// A file as `stat` and `list` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FileInfo {
    /// The name in a listing, the path as asked otherwise.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// When its content changed, in milliseconds since 1970.
    pub modified_ms: u64,
    /// Where a symbolic link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl FileInfo {
    /// Describes an empty file of 1970 that nobody may read; its fields say more.
    pub fn new(name: impl Into<String>, kind: FileKind) -> Self {
        Self {
            name: name.into(),
            kind,
            size: 0,
            mode: 0,
            modified_ms: 0,
            target: None,
        }
    }
}
