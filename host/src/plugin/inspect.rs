//! Step 2: what a file says of itself, from its bytes alone. Runs no code of it.
//!
//! The manifest that is believed, the hash that is verified and the code that is opened later are
//! of the same bytes, whatever happens to the file meanwhile. Either one read fills the memory and
//! makes the hash; or a private copy that was found to hold the same takes the place of the file.

mod library;

use std::{
    env::consts::ARCH,
    fs::{File, Metadata, OpenOptions},
    io::{self, Read, Seek},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use boxyard_plugin_api::{FORMAT, MANIFEST_SECTION, MANIFEST_SYMBOL, Manifest};
use object::ReadCache;
use semver::Version;
use sha2::{Digest, Sha256};

use super::copies::{Copies, PrivateCopy};
use crate::hex;

/// Larger files are refused unread.
const MAX_SIZE: u64 = 1 << 30;

/// A plugin as its bytes describe it.
#[derive(Debug)]
pub struct Inspected {
    /// The file.
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    /// The manifest, byte for byte.
    pub manifest_text: String,
    /// Its version.
    pub version: Version,
    /// The plugin API that it was built with.
    pub api_version: Version,
    /// The oldest plugin API of a host that it runs on.
    pub min_host_api: Version,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Where its bytes are.
    pub(super) content: Content,
    /// Owner and mode of what was read.
    pub(super) metadata: Metadata,
}

/// Where the bytes that were inspected are.
#[derive(Debug)]
pub(super) enum Content {
    /// In memory.
    Read(Vec<u8>),
    /// In this private copy, which their hash names.
    Copied(PathBuf),
}

/// Why a file is no plugin for this machine.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The file cannot be read.
    #[error("cannot be read: {source}")]
    Read {
        /// What the system says.
        source: io::Error,
    },
    /// The file is a symbolic link.
    #[error("is a symbolic link: expected the library itself; copy it there")]
    Symlink,
    /// The file is a directory, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// The file is larger than anything that is read.
    #[error("is {size} bytes long: expected at most {MAX_SIZE}")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The file is no object file.
    #[error("is not a shared library ({message}): expected {}", this_machine())]
    NotALibrary {
        /// What the parser says.
        message: String,
    },
    /// The file is an object file of another kind.
    #[error("is {found}: expected {}", this_machine())]
    WrongKind {
        /// What it is.
        found: String,
    },
    /// The file ends before its own headers say it does.
    #[error("is truncated: its headers describe {expected} bytes, it has {found}; copy it again")]
    Truncated {
        /// How long it must be, in bytes.
        expected: u64,
        /// How long it is, in bytes.
        found: u64,
    },
    /// The library has no manifest.
    #[error(
        "has no Boxyard manifest (no `{MANIFEST_SYMBOL}` in `{MANIFEST_SECTION}`): expected a library built with `register_plugin!`"
    )]
    NoManifest,
    /// The manifest cannot be understood.
    #[error("has a malformed manifest ({message}): rebuild it with a current plugin API")]
    Manifest {
        /// Why.
        message: String,
    },
    /// The manifest is of a later form.
    #[error("has a manifest of format {found}, expected {FORMAT}: use a newer Boxyard")]
    Format {
        /// Its format.
        found: u64,
    },
}

fn this_machine() -> String {
    format!("a 64-bit {ARCH} shared library")
}

/// Reads a file once, through a descriptor that follows no link, and takes its manifest out.
///
/// # Errors
///
/// [`InspectError`].
pub fn inspect(path: &Path) -> Result<Inspected, InspectError> {
    let (file, metadata) = open(path)?;
    read(path, file, metadata)
}

/// Does [`inspect`], without holding bytes that have a private copy already.
///
/// # Errors
///
/// [`InspectError`].
pub(super) fn inspect_with(path: &Path, copies: &Copies) -> Result<Inspected, InspectError> {
    let (mut file, metadata) = open(path)?;
    if let Some(plugin) = copies
        .of(&mut file)
        .and_then(|copy| copied(path, copy, &metadata))
    {
        return Ok(plugin);
    }
    file.rewind().map_err(read_error)?;
    read(path, file, metadata)
}

impl Inspected {
    fn new(
        path: &Path,
        manifest_text: String,
        sha256: String,
        content: Content,
        metadata: Metadata,
    ) -> Result<Self, InspectError> {
        let manifest = parse(&manifest_text)?;
        let version = |what: &str, text: &str| {
            Version::parse(text).map_err(|error| InspectError::Manifest {
                message: format!("{what} `{text}` is no version: {error}"),
            })
        };
        Ok(Self {
            path: path.into(),
            version: version("version", &manifest.version)?,
            api_version: version("api_version", &manifest.api_version)?,
            min_host_api: version("min_host_api", &manifest.min_host_api)?,
            manifest,
            manifest_text,
            sha256,
            content,
            metadata,
        })
    }

    /// Writes the bytes that were inspected.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn write_to(&self, writer: &mut impl io::Write) -> io::Result<()> {
        match &self.content {
            Content::Read(bytes) => writer.write_all(bytes),
            Content::Copied(copy) => io::copy(&mut File::open(copy)?, writer).map(drop),
        }
    }
}

fn read_error(source: io::Error) -> InspectError {
    InspectError::Read { source }
}

/// Opens a regular file, and returns its owner, mode and length with it.
fn open(path: &Path) -> Result<(File, Metadata), InspectError> {
    // Nonblocking, so that a pipe does not wait for a writer.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(|error| read_error(io::Error::other(error)))?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| {
            if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
                InspectError::Symlink
            } else {
                read_error(source)
            }
        })?;
    let metadata = file.metadata().map_err(read_error)?;
    if !metadata.is_file() {
        return Err(InspectError::NotAFile);
    }
    if metadata.len() > MAX_SIZE {
        return Err(InspectError::TooLarge {
            size: metadata.len(),
        });
    }
    Ok((file, metadata))
}

/// Inspects what one read of the file gives.
fn read(path: &Path, file: File, metadata: Metadata) -> Result<Inspected, InspectError> {
    let (bytes, sha256) = read_all(file, metadata.len()).map_err(read_error)?;
    let text = library::manifest_text(bytes.as_slice())?;
    Inspected::new(path, text, sha256, Content::Read(bytes), metadata)
}

/// Inspects a private copy; `None` where that is not in order.
fn copied(path: &Path, copy: PrivateCopy, metadata: &Metadata) -> Option<Inspected> {
    let text = library::manifest_text(&ReadCache::new(copy.file)).ok()?;
    let content = Content::Copied(copy.path);
    Inspected::new(path, text, copy.sha256, content, metadata.clone()).ok()
}

/// Reads a file to its end, and hashes it piece by piece while the pieces are in the cache.
fn read_all(mut file: File, size: u64) -> io::Result<(Vec<u8>, String)> {
    const PIECE: u64 = 256 * 1024;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    let mut hash = Sha256::new();
    loop {
        let start = bytes.len();
        let left = MAX_SIZE.saturating_sub(start as u64);
        file.by_ref()
            .take(PIECE.min(left))
            .read_to_end(&mut bytes)?;
        match bytes.get(start..) {
            None | Some([]) => return Ok((bytes, hex::text(&hash.finalize()))),
            Some(piece) => hash.update(piece),
        }
    }
}

fn parse(text: &str) -> Result<Manifest, InspectError> {
    /// Read first: nothing else of another format may be trusted.
    #[derive(serde::Deserialize)]
    struct Format {
        format: u64,
    }
    let malformed = |error: serde_json::Error| InspectError::Manifest {
        message: error.to_string(),
    };
    let Format { format } = serde_json::from_str(text).map_err(malformed)?;
    if format != u64::from(FORMAT) {
        return Err(InspectError::Format { found: format });
    }
    serde_json::from_str(text).map_err(malformed)
}

#[cfg(test)]
mod tests;
