//! The loading pipeline: discover, inspect, verify, decide, load, init, register.
//!
//! Each step is a module with its own error. One bad plugin is quarantined with its reason;
//! the others load. No code of a plugin runs before it is decided to load it.

mod copies;
mod decide;
mod discover;
mod init;
mod inspect;
mod load;
mod needed;
mod set;
mod verify;

use std::{fmt, path::PathBuf};

use boxyard_plugin_api::ManifestSandboxType;
use serde::{Serialize, Serializer};

pub use decide::{DecideError, admit};
pub use discover::DiscoverError;
pub use init::InitError;
pub use inspect::{InspectError, Inspected, inspect};
pub use load::LoadError;
pub use needed::Needed;
pub use verify::{VerifyError, pin};

pub use set::{InProcess, Offer, Placement};
pub(crate) use set::{PluginSet, Scan};

/// What became of a file that looks like a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginStatus {
    /// Its types and tools are offered.
    Loaded,
    /// It was refused.
    Quarantined,
    /// Another version of the same plugin is loaded.
    Shadowed,
}

impl fmt::Display for PluginStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loaded => "loaded",
            Self::Quarantined => "quarantined",
            Self::Shadowed => "shadowed",
        })
    }
}

/// One file that looks like a plugin, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct PluginReport {
    /// The file.
    pub path: PathBuf,
    /// The plugin's name; `None` where the file does not say.
    pub name: Option<String>,
    /// The plugin's version.
    pub version: Option<String>,
    /// The plugin API that it was built with.
    pub api_version: Option<String>,
    /// What became of it.
    pub status: PluginStatus,
    /// Why it is not loaded.
    pub reason: Option<String>,
    /// The sandbox types that it names; JSON has their names alone.
    #[serde(serialize_with = "names")]
    pub sandbox_types: Vec<ManifestSandboxType>,
    /// The tools that it names.
    pub tools: Vec<String>,
}

impl PluginReport {
    /// Reports a file of which nothing is known but why it was refused.
    fn unreadable(path: PathBuf, error: &InspectError) -> Self {
        Self {
            path,
            name: None,
            version: None,
            api_version: None,
            status: PluginStatus::Quarantined,
            reason: Some(error.to_string()),
            sandbox_types: Vec::new(),
            tools: Vec::new(),
        }
    }

    fn of(plugin: &Inspected, status: PluginStatus, reason: Option<String>) -> Self {
        let manifest = &plugin.manifest;
        Self {
            path: plugin.path.clone(),
            name: Some(manifest.name.clone()),
            version: Some(manifest.version.clone()),
            api_version: Some(manifest.api_version.clone()),
            status,
            reason,
            sandbox_types: manifest.sandbox_types.clone(),
            tools: manifest.tools.clone(),
        }
    }
}

fn names<S: Serializer>(types: &[ManifestSandboxType], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(types.iter().map(|one| &one.name))
}

/// Why a plugin was refused after its manifest was read.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Decide(#[from] DecideError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Init(#[from] InitError),
    /// Its code ran and failed, for this reason.
    #[error("{0}")]
    Before(String),
}

impl Refused {
    /// Returns whether the plugin's own code ran.
    fn ran(&self) -> bool {
        use InitError::{DataDir, Deadline, Failed, Manifest, Thread};
        match self {
            Self::Init(Deadline { .. } | Failed { .. } | Manifest { .. }) => true,
            Self::Init(DataDir { .. } | Thread { .. }) => false,
            Self::Verify(_) | Self::Decide(_) | Self::Load(_) | Self::Before(_) => false,
        }
    }
}
