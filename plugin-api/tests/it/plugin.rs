//! The plugin under test: what an author writes, registered as an author registers it.

#![expect(
    unsafe_code,
    reason = "the exported symbols are reached without a dynamic linker"
)]

mod caller;
mod faulty;
mod model;

use abi_stable::library::{AbiHeaderRef, LibHeader};
use boxyard_plugin_api::prelude::*;

pub(crate) use faulty::{FAULTS_OF_CREATE, bomb};
pub(crate) use model::answer;

use caller::Caller;
use faulty::{Faulty, FaultyTool, Indescribable, IndescribableTool};
use model::{Bare, Model};

register_plugin! {
    sandboxes: [Model, Bare, Faulty, Indescribable],
    tools: [Caller, FaultyTool, IndescribableTool],
}

/// What an operator may set for this plugin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Whose `open` panics.
    #[serde(default)]
    panic_in_open_of: String,
}

/// Panics where the settings say so.
fn opened(plugin: &PluginContext, name: &str) -> Result<()> {
    let settings: Settings = plugin.settings()?;
    assert!(
        settings.panic_in_open_of != name,
        "opening {name} went wrong"
    );
    Ok(())
}

/// The library's exports, as the host's dynamic linker would find them.
mod exports {
    use super::LibHeader;

    #[expect(improper_ctypes, reason = "only the addresses are used")]
    unsafe extern "C" {
        #[link_name = "_1as_0lib_1header_0root_bmodule_bloader"]
        pub(super) safe static HEADER: LibHeader;
        #[link_name = "BOXYARD_MANIFEST"]
        pub(super) safe static MANIFEST: u8;
    }
}

/// Returns the header that the macro exports.
pub(crate) fn header() -> AbiHeaderRef {
    // SAFETY: an `AbiHeaderRef` is a reference to the `AbiHeader` that a `LibHeader` begins with.
    unsafe { std::mem::transmute::<&'static LibHeader, AbiHeaderRef>(&exports::HEADER) }
}

/// Returns the manifest that the macro exports: one JSON document, up to its last brace.
pub(crate) fn embedded_manifest() -> &'static [u8] {
    let start = &raw const exports::MANIFEST;
    let (mut length, mut depth) = (0, 0);
    loop {
        // SAFETY: the loop ends with the document, which is all inside the static; no string in
        // this package's manifest has a brace.
        let byte = unsafe { start.add(length) };
        // SAFETY: as above.
        match unsafe { *byte } {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        length += 1;
        if depth == 0 {
            break;
        }
    }
    // SAFETY: all of these bytes were just read.
    unsafe { std::slice::from_raw_parts(start, length) }
}
