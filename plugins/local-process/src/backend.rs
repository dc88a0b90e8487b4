//! The sandbox type: makes sandboxes, and removes what dead hosts left of theirs.

use boxyard_plugin_api::prelude::*;

use crate::{
    config::Config,
    directory::{Directories, Directory, Found},
    processes::{self, Mark, blocking},
    program::SHELL,
    sandbox::LocalSandbox,
};

/// Sandboxes that are plain processes of this machine.
#[derive(Debug)]
pub(crate) struct LocalProcess {
    directories: Directories,
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
    const CAPABILITIES: &'static [Capability] =
        &[Capability::COMMANDS, Capability::STATS, Capability::SWEEP];
    type Config = Config;
    type Sandbox = LocalSandbox;

    fn open(plugin: &PluginContext) -> Result<Self> {
        Ok(Self {
            directories: Directories::new(plugin.data_dir())?,
        })
    }

    async fn probe(&self, _call: &Call) -> Result<Health> {
        if let Err(error) = processes::check() {
            return Ok(Health::unhealthy(error.message()));
        }
        if !std::path::Path::new(SHELL).exists() {
            return Ok(Health::degraded(format!(
                "{SHELL} is missing: only argument lists without limits can be run"
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
        let made = LocalSandbox::new(config, directory.clone(), sandbox)?;
        // The last step, and one that is not waited for: nothing can be left half made.
        directory.create()?;
        Ok(made)
    }

    /// A command's pipes and its deadline died with the host that held them, so a sandbox is
    /// never taken over: what is left of it goes.
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
        remove(&saved.id, self.directories.of(&saved.lease, &saved.id)).await?;
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
            match remove(&sandbox, directory).await {
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

/// Kills what belongs to a sandbox and removes its directory.
async fn remove(id: &str, directory: Directory) -> Result<()> {
    processes::kill(Mark::sandbox(id)).await?;
    blocking(move || directory.remove()).await
}
