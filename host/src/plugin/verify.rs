//! Step 3: whether anyone but the host's user and root could have changed the file, and
//! whether its content is the pinned one.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use fs_mistrust::Mistrust;

use super::Inspected;
use crate::config::PluginConfig;

/// The file in a plugin directory that pins contents: name and SHA-256, as JSON.
const PINS: &str = "boxyard-pins.json";

/// Why a file is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file belongs to someone else.
    #[error(
        "belongs to user {found}: expected root or user {expected}; change its owner, or pass --trust-plugin-dirs for development"
    )]
    Owner {
        /// Who it belongs to.
        found: u32,
        /// Who runs the host.
        expected: u32,
    },
    /// Others can write to the file.
    #[error(
        "can be changed by others (mode {mode:04o}): run `chmod go-w` on it, or pass --trust-plugin-dirs for development"
    )]
    Writable {
        /// Its permission bits.
        mode: u32,
    },
    /// Others can replace the file through a directory above it.
    #[error(
        "is in a place that others can change: {message}; correct it, or pass --trust-plugin-dirs for development"
    )]
    Place {
        /// Which directory, and how.
        message: String,
    },
    /// The content is not the pinned one.
    #[error("has SHA-256 {found}, but {pinned_by} pins {}: install it again if the change is yours", pinned.join(" or "))]
    Hash {
        /// What was read.
        found: String,
        /// What is expected.
        pinned: Vec<String>,
        /// Where that is written.
        pinned_by: String,
    },
    /// The pins cannot be read.
    #[error("cannot be checked: {} is unreadable: {message}", path.display())]
    Pins {
        /// The file with the pins.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// Checks the place, the owner, the mode and the content of what was read.
///
/// # Errors
///
/// [`VerifyError`]. `trust` leaves out all but the content.
pub(super) fn verify(
    plugin: &Inspected,
    config: &PluginConfig,
    trust: bool,
) -> Result<(), VerifyError> {
    if !trust {
        check_file(plugin)?;
        check_place(&plugin.path)?;
    }
    check_pins(plugin, config)
}

/// Looks at the descriptor that was read, not at the path again.
fn check_file(plugin: &Inspected) -> Result<(), VerifyError> {
    let user = rustix::process::geteuid().as_raw();
    let owner = plugin.metadata.uid();
    if owner != user && owner != 0 {
        return Err(VerifyError::Owner {
            found: owner,
            expected: user,
        });
    }
    let mode = plugin.metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(VerifyError::Writable { mode });
    }
    Ok(())
}

/// Returns the rules for places: root and the host's user may write there, and nobody else.
pub(super) fn mistrust() -> Result<Mistrust, fs_mistrust::Error> {
    Mistrust::builder()
        .ignore_environment()
        .trust_no_group_id()
        .build()
}

fn check_place(path: &Path) -> Result<(), VerifyError> {
    let place = |error: &dyn std::fmt::Display| VerifyError::Place {
        message: error.to_string(),
    };
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let mistrust = mistrust().map_err(|error| place(&error))?;
    mistrust
        .verifier()
        .permit_readable()
        .require_directory()
        .check(directory.unwrap_or(Path::new(".")))
        .map_err(|error| place(&error))
}

fn check_pins(plugin: &Inspected, config: &PluginConfig) -> Result<(), VerifyError> {
    let mismatch = |pinned: Vec<String>, pinned_by: String| {
        if pinned.is_empty()
            || pinned
                .iter()
                .any(|pin| pin.eq_ignore_ascii_case(&plugin.sha256))
        {
            Ok(())
        } else {
            Err(VerifyError::Hash {
                found: plugin.sha256.clone(),
                pinned,
                pinned_by,
            })
        }
    };
    mismatch(
        config.sha256.clone(),
        format!("`plugins.{}.sha256`", plugin.manifest.name),
    )?;
    let Some((directory, name)) = split(&plugin.path) else {
        return Ok(());
    };
    let path = directory.join(PINS);
    let pins = read_pins(&path).map_err(|message| VerifyError::Pins {
        path: path.clone(),
        message,
    })?;
    mismatch(
        pins.get(&name).cloned().into_iter().collect(),
        path.display().to_string(),
    )
}

/// Pins the content of a file in its directory; replaces an earlier pin.
///
/// # Errors
///
/// What the system says.
pub fn pin(path: &Path, sha256: &str) -> io::Result<()> {
    let (directory, name) =
        split(path).ok_or_else(|| io::Error::other("a plugin's path ends with its file name"))?;
    let pins_path = directory.join(PINS);
    let mut pins = read_pins(&pins_path).map_err(io::Error::other)?;
    pins.insert(name, sha256.to_owned());
    let file = tempfile::NamedTempFile::new_in(&directory)?;
    serde_json::to_writer_pretty(&file, &pins)?;
    file.as_file().sync_all()?;
    file.persist(pins_path)?;
    Ok(())
}

fn split(path: &Path) -> Option<(PathBuf, String)> {
    Some((
        path.parent()?.to_path_buf(),
        path.file_name()?.to_str()?.to_owned(),
    ))
}

fn read_pins(path: &Path) -> Result<BTreeMap<String, String>, String> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.to_string()),
    }
}
