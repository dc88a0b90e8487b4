//! Step 6: a plugin is initialised, on a thread of its own and with a deadline, and what it
//! then offers is compared with its manifest.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use boxyard_plugin_api::{
    API_VERSION, Error, SandboxTypeDescriptor, ToolDescriptor,
    abi::{HostServicesObject, InitRequest, PluginModuleRef, SandboxTypeObject, ToolObject},
};
use serde_json::Value;

use super::{Inspected, Refused, load};
use crate::{
    config::Config,
    telemetry::{PluginLog, PluginServices},
};

/// Why an opened plugin is not used.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The plugin did not answer in time.
    #[error("did not finish loading within {}: it is left behind, and the host goes on without it", humantime::format_duration(*deadline))]
    Deadline {
        /// How long it had.
        deadline: Duration,
    },
    /// The plugin's own initialisation failed.
    #[error("failed to initialise: {source}")]
    Failed {
        /// What it says.
        source: Error,
    },
    /// The plugin offers something else than its manifest says.
    #[error("does not keep its manifest: {message}")]
    Manifest {
        /// The difference.
        message: String,
    },
    /// Its data directory cannot be made.
    #[error("cannot have its data directory {}: {source}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The host has no thread for it.
    #[error("cannot be loaded: no thread: {source}")]
    Thread {
        /// What the system says.
        source: io::Error,
    },
}

/// What a plugin brought.
pub(super) struct Initialised {
    pub(super) module: PluginModuleRef,
    pub(super) sandbox_types: Vec<(SandboxTypeDescriptor, SandboxTypeObject)>,
    pub(super) tools: Vec<(ToolDescriptor, ToolObject)>,
}

/// Opens and initialises a plugin.
///
/// # Errors
///
/// `LoadError` and [`InitError`].
pub(super) fn start(
    plugin: &Arc<Inspected>,
    copy: PathBuf,
    config: &Config,
    host_id: &str,
    log: &Arc<PluginLog>,
) -> Result<Initialised, Refused> {
    let request = request(plugin, config, host_id)?;
    let deadline = config.timeouts.load;
    let (sender, receiver) = mpsc::channel();
    let (theirs, services) = (Arc::clone(plugin), PluginServices::new(Arc::clone(log)));
    let worker = move || {
        let started = load::open(&theirs, &copy)
            .map_err(Refused::from)
            .and_then(|module| {
                initialise(&theirs, module, &request, services).map_err(Refused::from)
            });
        // The host gave up on the plugin: what it brought is never used.
        let _ = sender.send(started);
    };
    thread::Builder::new()
        .name("plugin-init".into())
        .spawn(worker)
        .map_err(|source| InitError::Thread { source })?;
    receiver
        .recv_timeout(deadline)
        .map_err(|_| InitError::Deadline { deadline })?
}

fn request(plugin: &Inspected, config: &Config, host_id: &str) -> Result<InitRequest, InitError> {
    let name = &plugin.manifest.name;
    let data_dir = config.state_dir().join("plugins").join(name);
    std::fs::create_dir_all(&data_dir).map_err(|source| InitError::DataDir {
        path: data_dir.clone(),
        source,
    })?;
    Ok(InitRequest {
        host_version: env!("CARGO_PKG_VERSION").into(),
        host_api: API_VERSION.into(),
        host_id: host_id.into(),
        path: plugin.path.to_string_lossy().into_owned(),
        data_dir: data_dir.to_string_lossy().into_owned(),
        runtime_threads: config.plugin_threads,
        log_filter: config.log.clone(),
        settings: Value::Object(config.plugin(name).settings),
    })
}

fn initialise(
    plugin: &Inspected,
    module: PluginModuleRef,
    request: &InitRequest,
    services: PluginServices,
) -> Result<Initialised, InitError> {
    let failed = |source: Error| InitError::Failed { source };
    if module.call_manifest().as_str() != plugin.manifest_text {
        return Err(InitError::Manifest {
            message: "its code has another one".into(),
        });
    }
    let request = serde_json::to_string(request).map_err(|error| failed(error.into()))?;
    let host = HostServicesObject::from_services(services);
    module
        .call_init(request.as_str().into(), host)
        .into_result()
        .map_err(|failure| failed(failure.into()))?;
    let mut sandbox_types = Vec::new();
    for object in module.call_sandbox_types() {
        sandbox_types.push((object.describe().map_err(failed)?, object));
    }
    let mut tools = Vec::new();
    for object in module.call_tools() {
        tools.push((object.describe().map_err(failed)?, object));
    }
    let found = Initialised {
        module,
        sandbox_types,
        tools,
    };
    compare(plugin, &found)?;
    Ok(found)
}

fn compare(plugin: &Inspected, found: &Initialised) -> Result<(), InitError> {
    let promised: Vec<String> = plugin
        .manifest
        .sandbox_types
        .iter()
        .map(|one| format!("{} ({})", one.name, one.isolation))
        .collect();
    let offered: Vec<String> = found
        .sandbox_types
        .iter()
        .map(|(one, _)| format!("{} ({})", one.name, one.isolation))
        .collect();
    same("sandbox types", promised, offered)?;
    let offered = found
        .tools
        .iter()
        .map(|(one, _)| one.name.clone())
        .collect();
    same("tools", plugin.manifest.tools.clone(), offered)
}

fn same(what: &str, promised: Vec<String>, offered: Vec<String>) -> Result<(), InitError> {
    if promised == offered {
        return Ok(());
    }
    let list = |names: Vec<String>| {
        if names.is_empty() {
            "none".into()
        } else {
            names.join(", ")
        }
    };
    Err(InitError::Manifest {
        message: format!(
            "it promises the {what} {}, its code offers {}",
            list(promised),
            list(offered)
        ),
    })
}
