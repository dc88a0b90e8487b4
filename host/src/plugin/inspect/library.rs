//! The manifest that is embedded in a shared library.

use std::env::consts::ARCH;

use boxyard_plugin_api::{MANIFEST_SECTION, MANIFEST_SYMBOL};
use object::{
    Architecture, Endianness, Object, ObjectKind, ObjectSection, ObjectSegment, ObjectSymbol,
    ReadRef, elf::FileHeader64, read::elf::FileHeader,
};

use super::InspectError;

/// Returns the manifest of a shared library for this machine, byte for byte.
///
/// # Errors
///
/// [`InspectError`], all but what reading a file and understanding a manifest can fail with.
pub(super) fn manifest_text<'data>(data: impl ReadRef<'data>) -> Result<String, InspectError> {
    let file = object::File::parse(data).map_err(|error| {
        cut_short(data).unwrap_or_else(|| InspectError::NotALibrary {
            message: error.to_string(),
        })
    })?;
    check_machine(&file)?;
    check_length(&file, length(data))?;
    let manifest = manifest_bytes(&file).ok_or(InspectError::NoManifest)?;
    let text = std::str::from_utf8(manifest).map_err(|error| InspectError::Manifest {
        message: error.to_string(),
    })?;
    Ok(text.trim_end_matches('\0').to_owned())
}

/// Returns how much data there is; data of unknown length is as good as none.
fn length<'data>(data: impl ReadRef<'data>) -> u64 {
    data.len().unwrap_or(0)
}

fn check_machine<'data>(
    file: &object::File<'data, impl ReadRef<'data>>,
) -> Result<(), InspectError> {
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
fn cut_short<'data>(data: impl ReadRef<'data>) -> Option<InspectError> {
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let table = u64::from(header.e_shnum(endian)) * u64::from(header.e_shentsize(endian));
    let expected = header.e_shoff(endian).saturating_add(table);
    let found = length(data);
    (expected > found).then_some(InspectError::Truncated { expected, found })
}

/// A mapped file that is too short is a SIGBUS in whoever touches the missing part.
fn check_length<'data>(
    file: &object::File<'data, impl ReadRef<'data>>,
    found: u64,
) -> Result<(), InspectError> {
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
fn manifest_bytes<'data>(file: &object::File<'data, impl ReadRef<'data>>) -> Option<&'data [u8]> {
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
