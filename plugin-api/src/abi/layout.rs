//! Whether two builds of this crate fit together, decided from their type layouts.

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals},
    library::{AbiHeaderRef, IsLayoutChecked},
    type_layout::TypeLayout,
};

use crate::abi::PluginModuleRef;

/// Which side of a boundary was built with the older API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Older {
    /// The host, or both are of one age.
    Host,
    /// The plugin.
    Plugin,
}

/// Why a library's root module cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The library's header is of another version of `abi_stable`.
    Header {
        /// What it says.
        message: String,
    },
    /// The library hides the layout of its types.
    Unchecked,
    /// A type differs.
    Differs {
        /// Which, and how.
        message: String,
    },
    /// The library's constructor failed.
    Constructor {
        /// What it says.
        message: String,
    },
}

/// Checks a library's header and types, runs its constructor and returns its root module.
///
/// `abi_stable`'s own check expects the loader to be the older side: a host with one more
/// optional entry would refuse every older plugin. Here the older side's layout is what is
/// expected and the newer side's what must satisfy it, so that entries appended on either
/// side are fine and read as `None` on the other. Each library is checked against fresh
/// state, so that a bad one cannot spoil the next.
///
/// # Errors
///
/// [`LayoutError`], and nothing of the library's code has run unless it is
/// [`LayoutError::Constructor`].
pub fn open_root_module(
    header: AbiHeaderRef,
    older: Older,
) -> Result<PluginModuleRef, LayoutError> {
    let header = header.upgrade().map_err(|error| LayoutError::Header {
        message: error.to_string(),
    })?;
    let IsLayoutChecked::Yes(theirs) = header.root_mod_consts().layout() else {
        return Err(LayoutError::Unchecked);
    };
    compare(theirs, older)?;
    // SAFETY: the layout of the library's root module was just found to fit this crate's, in
    // the direction in which they differ in age.
    let module = unsafe { header.init_root_module_with_unchecked_layout::<PluginModuleRef>() };
    module.map_err(|error| LayoutError::Constructor {
        message: error.to_string(),
    })
}

fn compare(theirs: &'static TypeLayout, older: Older) -> Result<(), LayoutError> {
    let ours = PluginModuleRef::LAYOUT;
    let (expected, found) = match older {
        Older::Host => (ours, theirs),
        Older::Plugin => (theirs, ours),
    };
    check_layout_compatibility_with_globals(expected, found, &CheckingGlobals::new()).map_err(
        |errors| LayoutError::Differs {
            message: gist(&errors.to_string()),
        },
    )
}

/// Returns what people want to know of a layout error, which prints every table whole.
fn gist(text: &str) -> String {
    const SHOWN: usize = 8;
    let mut differences: Vec<String> = text.split("\nError:").skip(1).map(difference).collect();
    differences.dedup();
    let hidden = differences.len().saturating_sub(SHOWN);
    differences.truncate(SHOWN);
    let mut gist = differences.join("; ");
    if hidden > 0 {
        gist.push_str(&format!("; and {hidden} more"));
    }
    if gist.is_empty() { text.into() } else { gist }
}

/// Returns one difference: its kind, what is expected and what was found.
fn difference(error: &str) -> String {
    let kind = error.lines().next().unwrap_or_default();
    let sides = error.split_once("Expected:").and_then(|(_, rest)| {
        let (expected, found) = rest.split_once("Found:")?;
        Some((name(expected)?, name(found)?))
    });
    match sides {
        Some((expected, found)) => format!("{kind}: expected `{expected}`, found `{found}`"),
        None => kind.into(),
    }
}

/// Returns a field's name, or whatever else is described.
fn name(description: &str) -> Option<&str> {
    let mut lines = description.lines().map(str::trim);
    let field = lines
        .clone()
        .find_map(|line| line.strip_prefix("field_name:"));
    field.or_else(|| lines.find(|line| !line.is_empty()))
}
