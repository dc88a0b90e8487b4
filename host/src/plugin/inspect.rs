//! Step 2: what a file says of itself, from its bytes alone. Runs no code of it.

use std::{
    env::consts::ARCH,
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use boxyard_plugin_api::{FORMAT, MANIFEST_SECTION, MANIFEST_SYMBOL, Manifest};
use object::{
    Architecture, Endianness, Object, ObjectKind, ObjectSection, ObjectSegment, ObjectSymbol,
    elf::FileHeader64, read::elf::FileHeader,
};
use semver::Version;
use sha2::{Digest, Sha256};

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
    /// The bytes that were read, once; what is loaded is a copy of these.
    pub bytes: Vec<u8>,
    /// Owner and mode of what was read.
    pub(super) metadata: Metadata,
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
    let (bytes, sha256, metadata) = read(path)?;
    let manifest_text = manifest_text(&bytes)?;
    let manifest = parse(&manifest_text)?;
    let version = |what: &str, text: &str| {
        Version::parse(text).map_err(|error| InspectError::Manifest {
            message: format!("{what} `{text}` is no version: {error}"),
        })
    };
    Ok(Inspected {
        path: path.into(),
        version: version("version", &manifest.version)?,
        api_version: version("api_version", &manifest.api_version)?,
        min_host_api: version("min_host_api", &manifest.min_host_api)?,
        manifest,
        manifest_text,
        sha256,
        bytes,
        metadata,
    })
}

/// Returns what a file holds, its SHA-256, its owner and its mode.
fn read(path: &Path) -> Result<(Vec<u8>, String, Metadata), InspectError> {
    let read_error = |source| InspectError::Read { source };
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
    let (bytes, sha256) = read_all(file, metadata.len()).map_err(read_error)?;
    Ok((bytes, sha256, metadata))
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
            None | Some([]) => return Ok((bytes, hex(&hash.finalize()))),
            Some(piece) => hash.update(piece),
        }
    }
}

fn manifest_text(bytes: &[u8]) -> Result<String, InspectError> {
    let file = object::File::parse(bytes).map_err(|error| {
        cut_short(bytes).unwrap_or_else(|| InspectError::NotALibrary {
            message: error.to_string(),
        })
    })?;
    check_machine(&file)?;
    check_length(&file, bytes.len())?;
    let manifest = manifest_bytes(&file).ok_or(InspectError::NoManifest)?;
    let text = std::str::from_utf8(manifest).map_err(|error| InspectError::Manifest {
        message: error.to_string(),
    })?;
    Ok(text.trim_end_matches('\0').to_owned())
}

fn check_machine(file: &object::File<'_>) -> Result<(), InspectError> {
    let expected = match ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        "riscv64" => Architecture::Riscv64,
        "powerpc64" => Architecture::PowerPc64,
        "s390x" => Architecture::S390x,
        "loongarch64" => Architecture::LoongArch64,
        _ => Architecture::Unknown,
    };
    let little = cfg!(target_endian = "little");
    let fits = file.architecture() == expected
        && file.is_64()
        && (file.endianness() == Endianness::Little) == little;
    if !fits {
        return Err(InspectError::WrongKind {
            found: format!(
                "a {}-bit {:?} file",
                if file.is_64() { 64 } else { 32 },
                file.architecture()
            ),
        });
    }
    match file.kind() {
        ObjectKind::Dynamic => Ok(()),
        kind => Err(InspectError::WrongKind {
            found: format!("an object file of kind {kind:?}"),
        }),
    }
}

/// Tells a file that ends before its section table from one that is no library at all.
fn cut_short(bytes: &[u8]) -> Option<InspectError> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let table = u64::from(header.e_shnum(endian)) * u64::from(header.e_shentsize(endian));
    let expected = header.e_shoff(endian).saturating_add(table);
    let found = bytes.len() as u64;
    (expected > found).then_some(InspectError::Truncated { expected, found })
}

/// A mapped file that is too short is a SIGBUS in whoever touches the missing part.
fn check_length(file: &object::File<'_>, found: usize) -> Result<(), InspectError> {
    let found = found as u64;
    let ends = file.segments().map(|segment| {
        let (offset, size) = segment.file_range();
        offset.saturating_add(size)
    });
    match ends.max() {
        Some(expected) if expected > found => Err(InspectError::Truncated { expected, found }),
        _ => Ok(()),
    }
}

/// Finds the manifest by its symbol, which knows its length, else by its section.
fn manifest_bytes<'data>(file: &object::File<'data>) -> Option<&'data [u8]> {
    let symbol = file.dynamic_symbols().find(|symbol| {
        symbol.is_definition()
            && symbol
                .name()
                .is_ok_and(|name| name.trim_start_matches('_') == MANIFEST_SYMBOL)
    })?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    if section.name().ok()? != MANIFEST_SECTION {
        return None;
    }
    let data = section.data().ok()?;
    let start = usize::try_from(symbol.address().checked_sub(section.address())?).ok()?;
    let rest = data.get(start..)?;
    match usize::try_from(symbol.size()) {
        Ok(0) | Err(_) => Some(rest),
        Ok(size) => rest.get(..size),
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

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspect_bytes(bytes: &[u8]) -> InspectError {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        inspect(file.path()).unwrap_err()
    }

    #[test]
    fn what_is_no_library_is_told_by_its_bytes() {
        assert!(matches!(
            inspect_bytes(b""),
            InspectError::NotALibrary { .. }
        ));
        assert!(matches!(
            inspect_bytes(b"just text\n"),
            InspectError::NotALibrary { .. }
        ));
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = inspect_bytes(&program);
        // A position-independent program is of the same kind as a library, without a manifest.
        assert!(
            matches!(
                error,
                InspectError::NoManifest | InspectError::WrongKind { .. }
            ),
            "{error}"
        );
        for tenths in 1..10 {
            let error = inspect_bytes(&program[..program.len() / 10 * tenths]);
            assert!(
                matches!(error, InspectError::Truncated { .. }),
                "{tenths} tenths: {error}"
            );
        }
    }

    #[test]
    fn links_and_directories_are_refused_unread() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link.so");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(matches!(inspect(&link), Err(InspectError::Symlink)));
        assert!(matches!(
            inspect(directory.path()),
            Err(InspectError::NotAFile)
        ));
        assert!(matches!(
            inspect(Path::new("/nonexistent")),
            Err(InspectError::Read { .. })
        ));
    }

    #[test]
    fn a_later_format_is_told_apart_from_a_malformed_manifest() {
        assert!(matches!(
            parse(r#"{"format": 2, "what": "ever"}"#),
            Err(InspectError::Format { found: 2 })
        ));
        assert!(matches!(
            parse("not json"),
            Err(InspectError::Manifest { .. })
        ));
        assert!(matches!(
            parse(r#"{"format": 1}"#),
            Err(InspectError::Manifest { .. })
        ));
    }
}
