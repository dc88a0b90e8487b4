//! The sandbox type: makes sandboxes, and removes what dead hosts left of theirs.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use boxyard_plugin_api::prelude::*;

use crate::{
    agent::Executable,
    config::Config,
    directory::{Directories, Found},
    sandbox::LocalSandbox,
};

/// What runs the line of a [`Program::Shell`].
const SHELL: &str = "/bin/sh";

/// Sandboxes that are plain processes of this machine.
#[derive(Debug)]
pub(crate) struct LocalProcess {
    directories: Directories,
    data_dir: PathBuf,
    /// Made for the first sandbox: a host that makes none needs none.
    executable: Mutex<Option<Arc<Executable>>>,
}

/// What a later host needs to find what is left of a sandbox.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    lease: String,
    id: String,
}

impl Saved {
    const VERSION: u32 = 1;
}

impl Backend for LocalProcess {
    const TYPE: &'static str = "local-process";
    const ISOLATION: Isolation = Isolation::None;
    const DESCRIPTION: &'static str =
        "Runs commands as processes of this machine, with no isolation at all.";
    const CAPABILITIES: &'static [Capability] = &[
        Capability::COMMANDS,
        Capability::TERMINAL,
        Capability::USERS,
        Capability::FILES,
        Capability::ARCHIVES,
        Capability::STATS,
        Capability::SWEEP,
    ];
    type Config = Config;
    type Sandbox = LocalSandbox;

    fn open(plugin: &PluginContext) -> Result<Self> {
        Ok(Self {
            directories: Directories::new(plugin.data_dir())?,
            data_dir: plugin.data_dir().into(),
            executable: Mutex::default(),
        })
    }

    async fn probe(&self, _call: &Call) -> Result<Health> {
        if let Err(error) = self.executable() {
            return Ok(Health::unhealthy(error.message()));
        }
        if !Path::new("/proc/self/stat").exists() {
            return Ok(Health::unhealthy(
                "/proc is not mounted, without which processes cannot be found and killed",
            ));
        }
        if !Path::new(SHELL).exists() {
            return Ok(Health::degraded(format!(
                "{SHELL} is missing: only argument lists can be run"
            )));
        }
        Ok(Health::healthy())
    }

    async fn create(
        &self,
        config: Config,
        sandbox: SandboxContext,
        call: &Call,
    ) -> Result<LocalSandbox> {
        config.validate()?;
        let identity = sandbox.identity();
        let saved = Saved {
            lease: identity.lease.clone(),
            id: identity.id.clone(),
        };
        sandbox
            .save_state(State::new(Saved::VERSION, &saved)?)
            .await?;
        if call.is_cancelled() {
            return Err(Error::cancelled("the caller asked to stop"));
        }
        let directory = self.directories.of(&saved.lease, &saved.id);
        let executable = self.executable()?;
        let made = LocalSandbox::new(config, directory.clone(), executable, sandbox)?;
        // The last step, and one that is not waited for: nothing can be left half made.
        directory.create()?;
        Ok(made)
    }

    /// A sandbox's agent ends with the host that started it and kills everything it ran, so
    /// that a directory is all that can be left.
    async fn recover(
        &self,
        state: State,
        _sandbox: SandboxContext,
        _call: &Call,
    ) -> Result<Recovered<LocalSandbox>> {
        if state.version != Saved::VERSION {
            return Err(Error::failed_precondition(format_args!(
                "state document version {}: expected {}",
                state.version,
                Saved::VERSION
            )));
        }
        let saved: Saved = state.data()?;
        let directory = self.directories.of(&saved.lease, &saved.id);
        directory.remove().await?;
        Ok(Recovered::Gone)
    }

    async fn sweep(&self, request: SweepRequest, call: &Call) -> Result<Swept> {
        let mut swept = Swept::default();
        for found in self.directories.list()? {
            let Found {
                lease,
                sandbox,
                directory,
                age,
            } = found;
            if !request.is_orphan(&lease, &sandbox) {
                continue;
            }
            if age < request.grace() || call.is_cancelled() {
                swept.kept.push(sandbox);
                continue;
            }
            match directory.remove().await {
                Ok(()) => swept.removed.push(sandbox),
                Err(error) => {
                    tracing::warn!(sandbox, %error, "an orphan could not be removed");
                    swept.kept.push(sandbox);
                }
            }
        }
        Ok(swept)
    }
}

impl LocalProcess {
    fn executable(&self) -> Result<Arc<Executable>> {
        let mut made = self
            .executable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made {
            return Ok(made.clone());
        }
        let new = Arc::new(Executable::new(&self.data_dir)?);
        Ok(made.insert(new).clone())
    }
}
