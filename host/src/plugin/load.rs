//! Step 5: a private copy is opened, its header and its layout are checked.
//!
//! Libraries are never closed again: unloading Rust code is unsound.

use std::{
    io,
    path::{Path, PathBuf},
};

use abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use boxyard_plugin_api::abi::{
    PluginModuleRef,
    layout::{LayoutError, Older, open_root_module},
};
use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};

use super::{Inspected, copies::Copies, decide::host_api, inspect::Content};

/// Why a library cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The private copy cannot be made.
    #[error("cannot be copied to {}: {source}", path.display())]
    Copy {
        /// Where to.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The dynamic linker refuses the library.
    #[error("cannot be opened: {message}")]
    Open {
        /// What the linker says.
        message: String,
    },
    /// The library exports no root module.
    #[error("exports no root module: expected a library built with `register_plugin!`")]
    NoRootModule,
    /// The library's code was built with another API than its manifest says.
    #[error(
        "says in its manifest that it was built with plugin API {manifest}, but its code has {code}"
    )]
    ApiVersion {
        /// What the manifest says.
        manifest: String,
        /// What the code says.
        code: String,
    },
    /// The library's types do not fit.
    #[error("does not fit this host's plugin API: {message}")]
    Layout {
        /// Which, and how.
        message: String,
    },
}

/// Returns the private copy of what was inspected; makes it where there is none.
///
/// # Errors
///
/// [`LoadError::Copy`].
pub(super) fn private_copy(plugin: &Inspected, copies: &Copies) -> Result<PathBuf, LoadError> {
    match &plugin.content {
        Content::Copied(path) => Ok(path.clone()),
        Content::Read(bytes) => {
            copies
                .make(&plugin.sha256, bytes)
                .map_err(|source| LoadError::Copy {
                    path: copies.path(&plugin.sha256),
                    source,
                })
        }
    }
}

/// Opens a copy and checks that its code fits. Runs the library's constructors.
///
/// # Errors
///
/// [`LoadError`].
#[expect(unsafe_code, reason = "opening a library runs its code")]
#[expect(
    clippy::disallowed_types,
    reason = "this is the one place where libraries are opened"
)]
pub(super) fn open(plugin: &Inspected, copy: &Path) -> Result<PluginModuleRef, LoadError> {
    // SAFETY: constructors of the library run here. The operator put the file into a plugin
    // directory, `verify` saw that nobody else could change it, and `decide` admitted it.
    let library = unsafe { libloading::os::unix::Library::open(Some(copy), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|error| LoadError::Open {
        message: error.to_string(),
    })?;
    // SAFETY: whatever has this name was exported by `abi_stable`, whose header starts with a
    // magic text that `upgrade` checks before anything else of it is read.
    let header =
        unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let header = header
        .map(|symbol| *symbol)
        .map_err(|_| LoadError::NoRootModule);
    // Never closed: see the module's documentation.
    std::mem::forget(library);
    check(plugin, header?)
}

fn check(plugin: &Inspected, header: AbiHeaderRef) -> Result<PluginModuleRef, LoadError> {
    let library = header.upgrade().map_err(|error| LoadError::Layout {
        message: error.to_string(),
    })?;
    let code = library.version_strings().version.as_str();
    if code != plugin.manifest.api_version {
        return Err(LoadError::ApiVersion {
            manifest: plugin.manifest.api_version.clone(),
            code: code.into(),
        });
    }
    let older = if plugin.api_version < host_api() {
        Older::Plugin
    } else {
        Older::Host
    };
    open_root_module(header, older).map_err(|error| LoadError::Layout {
        message: match error {
            LayoutError::Header { message }
            | LayoutError::Differs { message }
            | LayoutError::Constructor { message } => message,
            LayoutError::Unchecked => "it hides the layout of its types".into(),
        },
    })
}
