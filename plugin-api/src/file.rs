//! What is asked of a sandbox's files, and what is answered.
//!
//! Paths are the sandbox's own. A relative one starts at its working directory.

use serde::{Deserialize, Serialize};

/// Reads a file into a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Writes a file from a source; a reader sees the old file or the new, never a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Removes a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovePath {
    /// What to remove; a symbolic link itself, never what it points to.
    pub path: String,
    /// Whether a directory goes with everything in it.
    #[serde(default)]
    pub recursive: bool,
}

/// Makes a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// Unpacks a tar stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutArchive {
    /// Where to unpack it; made when it is missing.
    pub directory: String,
}

/// Packs a file or a directory into a tar stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetArchive {
    /// What to pack.
    pub path: String,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
