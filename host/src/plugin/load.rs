//! Step 5: a private copy is opened, its header and its layout are checked.
//!
//! Libraries are never closed again: unloading Rust code is unsound. What is opened is a copy
//! of the bytes that were inspected, named by their hash, so that nobody changes it under the
//! process, and an upgrade lies beside the old one.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use boxyard_plugin_api::abi::{
    PluginModuleRef,
    layout::{LayoutError, Older, open_root_module},
};
use fs_mistrust::Mistrust;
use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};

use super::{Inspected, decide::host_api};

/// Copies that nobody used for so long are removed.
const COPY_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

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

/// Makes the private copy of what was inspected, or finds the one that is there.
///
/// # Errors
///
/// [`LoadError::Copy`].
pub(super) fn private_copy(plugin: &Inspected, cache: &Path) -> Result<PathBuf, LoadError> {
    let path = cache.join(format!("{}.so", plugin.sha256));
    copy(plugin, cache, &path).map_err(|source| LoadError::Copy {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

fn copy(plugin: &Inspected, cache: &Path, path: &Path) -> io::Result<()> {
    let mut mistrust = Mistrust::builder();
    let mistrust = mistrust
        .ignore_environment()
        .trust_no_group_id()
        .build()
        .map_err(io::Error::other)?;
    mistrust
        .verifier()
        .permit_readable()
        .make_directory(cache)
        .map_err(io::Error::other)?;
    if let Ok(metadata) = fs::metadata(path)
        && metadata.len() == plugin.bytes.len() as u64
    {
        return File::open(path)?.set_modified(SystemTime::now());
    }
    remove_old(cache);
    let mut file = tempfile::NamedTempFile::new_in(cache)?;
    file.write_all(&plugin.bytes)?;
    // A crash must not leave a short file under the name of a hash.
    file.as_file().sync_data()?;
    file.persist(path)?;
    Ok(())
}

/// Removes copies that no host used lately. One that is open somewhere lives on there.
fn remove_old(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > COPY_LIFETIME)) {
            // It only takes space; the next host tries again.
            let _ = fs::remove_file(entry.path());
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
