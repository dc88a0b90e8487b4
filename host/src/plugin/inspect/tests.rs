//! Whose bytes are believed: those of one read, or those of the private copy.

use std::fs;

use boxyard_plugin_api::{API_VERSION, MANIFEST_SECTION, MANIFEST_SYMBOL};
use tempfile::TempDir;

use super::*;

/// Returns a shared library for this machine with nothing in it but a manifest of this version.
fn library(version: &str) -> Vec<u8> {
    /// Where the manifest would be mapped.
    const ADDRESS: u64 = 0x1000;
    const HEADER: usize = 64;
    let manifest = format!(
        r#"{{"format":1,"name":"tiny","version":"{version}","api_version":"{API_VERSION}","min_host_api":"{API_VERSION}","tools":["tiny"]}}"#
    );
    let size = manifest.len() as u64;
    let names = format!("\0{MANIFEST_SYMBOL}\0{MANIFEST_SECTION}\0");
    let section_name = 1 + u32::try_from(MANIFEST_SYMBOL.len() + 1).unwrap();
    let mut symbols = vec![0; 24];
    symbols.extend(1_u32.to_ne_bytes());
    // A global object in the third section.
    symbols.extend([0x11, 0, 3, 0]);
    symbols.extend([ADDRESS, size].map(u64::to_ne_bytes).concat());

    // The program that tests has the class, the order of bytes and the machine.
    let mut bytes = vec![0; HEADER];
    let mut program = File::open(std::env::current_exe().unwrap()).unwrap();
    program.read_exact(&mut bytes).unwrap();
    let mut sections = vec![0; 64];
    let mut section = |name: u32, kind: u32, address: u64, link: u32, entry: u64, data: &[u8]| {
        let (offset, size) = (bytes.len() as u64, data.len() as u64);
        sections.extend([name, kind].map(u32::to_ne_bytes).concat());
        sections.extend([0, address, offset, size].map(u64::to_ne_bytes).concat());
        sections.extend([link, 1].map(u32::to_ne_bytes).concat());
        sections.extend([1, entry].map(u64::to_ne_bytes).concat());
        bytes.extend(data);
    };
    section(0, 3, 0, 0, 0, names.as_bytes());
    section(0, 11, 0, 1, 24, &symbols);
    section(section_name, 1, ADDRESS, 0, 0, manifest.as_bytes());
    let table = bytes.len() as u64;
    bytes.extend(&sections);
    bytes[16..18].copy_from_slice(&3_u16.to_ne_bytes());
    // No entry and no program headers; the sections' table, its length, and whose names it has.
    bytes[24..40].fill(0);
    bytes[40..48].copy_from_slice(&table.to_ne_bytes());
    bytes[54..58].fill(0);
    bytes[58..HEADER].copy_from_slice(&[64_u16, 4, 1].map(u16::to_ne_bytes).concat());
    bytes
}

/// A plugin's file, and a directory of copies beside it.
struct Place {
    root: TempDir,
    copies: Copies,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let copies = Copies::new(root.path().join("copies"));
        Self { root, copies }
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("tiny.so")
    }

    fn put(&self, bytes: &[u8]) {
        fs::write(self.file(), bytes).unwrap();
    }

    /// Makes the copy of a content, or what is taken for it.
    fn copy(&self, of: &[u8], bytes: &[u8]) -> PathBuf {
        self.copies
            .make(&hex::text(&Sha256::digest(of)), bytes)
            .unwrap()
    }

    fn inspect(&self) -> Inspected {
        inspect_with(&self.file(), &self.copies).unwrap()
    }
}

/// Checks that a plugin is of this version, and was believed for these bytes in memory.
fn assert_read(plugin: &Inspected, version: &str) {
    let expected = library(version);
    assert_eq!(plugin.manifest.version, version);
    assert_eq!(plugin.sha256, hex::text(&Sha256::digest(&expected)));
    let Content::Read(bytes) = &plugin.content else {
        panic!("{:?}", plugin.content);
    };
    assert!(*bytes == expected);
}

#[test]
fn what_has_a_copy_is_not_held() {
    let place = Place::new();
    let bytes = library("1.0.0");
    place.put(&bytes);
    assert_read(&place.inspect(), "1.0.0");
    let copy = place.copy(&bytes, &bytes);
    let plugin = place.inspect();
    assert!(matches!(&plugin.content, Content::Copied(path) if *path == copy));
    assert_eq!(plugin.manifest.version, "1.0.0");
    assert_eq!(plugin.sha256, hex::text(&Sha256::digest(&bytes)));
    let mut written = Vec::new();
    plugin.write_to(&mut written).unwrap();
    assert!(written == bytes);
}

#[test]
fn a_file_that_is_overwritten_after_it_was_compared_is_what_it_was_then() {
    let place = Place::new();
    let (old, new) = (library("1.0.0"), library("2.0.0"));
    assert_eq!(old.len(), new.len());
    place.put(&old);
    let copy = place.copy(&old, &old);
    let (mut file, metadata) = open(&place.file()).unwrap();
    let same = place.copies.of(&mut file).unwrap();
    place.put(&new);
    let plugin = copied(&place.file(), same, &metadata).unwrap();
    assert_eq!(plugin.manifest.version, "1.0.0");
    assert_eq!(plugin.sha256, hex::text(&Sha256::digest(&old)));
    assert!(matches!(&plugin.content, Content::Copied(path) if *path == copy));
}

#[test]
fn a_damaged_copy_is_none() {
    let bytes = library("1.0.0");
    let longer = [bytes.as_slice(), b"more"].concat();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [&bytes[..bytes.len() - 1], &longer, &flipped, b""] {
        let place = Place::new();
        place.put(&bytes);
        place.copy(&bytes, damaged);
        assert_read(&place.inspect(), "1.0.0");
    }
}

#[test]
fn a_copy_that_others_could_have_changed_is_none() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let bytes = library("1.0.0");
    place.put(&bytes);
    let copy = place.copy(&bytes, &library("2.0.0"));
    let directory = copy.parent().unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    assert_read(&place.inspect(), "1.0.0");
    // Nor is one made there.
    assert!(place.copies.make("hash", &bytes).is_err());
}

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
