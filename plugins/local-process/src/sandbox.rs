//! One sandbox: a directory, an environment, and an agent that runs commands in them.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use boxyard_agent::{Client, protocol::Setup};
use boxyard_plugin_api::{Stats, prelude::*};
use serde_json::Map;

use crate::{
    agent::{Executable, LocalAgent},
    config::Config,
    directory::Directory,
    environment::environment,
};

/// One sandbox. Its commands are processes of the host's user, side by side with all others.
#[derive(Debug)]
pub(crate) struct LocalSandbox {
    context: SandboxContext,
    config: Config,
    timeout: Option<Duration>,
    directory: Directory,
    working_dir: PathBuf,
    executable: Arc<Executable>,
    /// Set once, at `start`.
    agent: OnceLock<LocalAgent>,
}

impl LocalSandbox {
    /// Makes a sandbox from a configuration that was validated.
    pub(crate) fn new(
        config: Config,
        directory: Directory,
        executable: Arc<Executable>,
        context: SandboxContext,
    ) -> Result<Self> {
        let working_dir = config.working_dir.clone();
        Ok(Self {
            timeout: config.timeout()?,
            working_dir: working_dir.unwrap_or_else(|| directory.path().into()),
            config,
            directory,
            executable,
            context,
            agent: OnceLock::new(),
        })
    }

    fn client(&self) -> Result<&Client> {
        match self.agent.get() {
            Some(agent) => Ok(agent.client()),
            None => Err(Error::failed_precondition("the sandbox was not started")),
        }
    }

    fn setup(&self) -> Result<Setup> {
        let working_dir = self.working_dir.to_str().ok_or_else(|| {
            Error::invalid_argument(format_args!(
                "working directory `{}` is not UTF-8",
                self.working_dir.display()
            ))
        })?;
        Ok(Setup {
            env: environment(&self.config, self.context.id(), &self.working_dir),
            working_dir: working_dir.into(),
            root: Some(working_dir.into()),
            ..Setup::default()
        })
    }
}

impl Sandbox for LocalSandbox {
    async fn start(&self, _call: &Call) -> Result<()> {
        tracing::warn!(
            "a local-process sandbox isolates nothing: its commands can do whatever the host's \
             user can"
        );
        let agent = LocalAgent::start(&self.executable, self.setup()?, &self.context).await?;
        self.agent
            .set(agent)
            .map_err(|_| Error::failed_precondition("the sandbox was started before"))
    }

    async fn stop(&self, _call: &Call) -> Result<()> {
        match self.agent.get() {
            Some(agent) => agent.stop().await,
            None => Ok(()),
        }
    }

    async fn cleanup(&self, call: &Call) -> Result<()> {
        self.stop(call).await?;
        self.directory.remove().await
    }

    async fn execute_command(
        &self,
        mut command: Command,
        io: CommandIo,
        call: &Call,
    ) -> Result<CommandExit> {
        command.timeout = command.timeout.or(self.timeout);
        for (limit, value) in &self.config.limits {
            let name = limit.name().to_owned();
            command.limits.entry(name).or_insert(*value);
        }
        self.client()?.execute_command(&command, io, call).await
    }

    boxyard_agent::delegate_files!(self => self.client());

    async fn stats(&self, call: &Call) -> Result<Stats> {
        self.client()?.stats(call).await
    }

    async fn execution_context(&self, _call: &Call) -> Result<Option<ExecutionContext>> {
        // Nothing runs anywhere before start.
        let agent = self.agent.get();
        Ok(agent.map(|agent| ExecutionContext::Process {
            pid: agent.client().pid(),
        }))
    }

    async fn info(&self, call: &Call) -> Result<Map<String, Value>> {
        let directory = self.working_dir.to_string_lossy().into_owned();
        let mut info = Map::from_iter([("working_dir".into(), directory.into())]);
        if let Ok(client) = self.client() {
            // An agent that is gone has left nothing behind.
            let processes = client.processes(call).await.unwrap_or_default();
            let left_behind = processes.iter().filter(|process| process.left_behind);
            let left_behind: Vec<_> = left_behind.collect();
            if !left_behind.is_empty() {
                info.insert("left_behind".into(), serde_json::to_value(left_behind)?);
            }
        }
        Ok(info)
    }
}
