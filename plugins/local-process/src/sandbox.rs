//! One sandbox: a directory, an environment, and the commands that run in them.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use boxyard_plugin_api::prelude::*;
use serde_json::Map;
use tokio::{sync::watch, time::timeout};

use crate::{
    command,
    config::Config,
    directory::Directory,
    environment::Environment,
    limits::{self, Limits},
    processes::{self, Mark, blocking},
    spawn::Launch,
};

/// How long `stop` waits for the running commands to end.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// One sandbox. Its commands are processes of the host's user, side by side with all others.
#[derive(Debug)]
pub(crate) struct LocalSandbox {
    context: SandboxContext,
    directory: Directory,
    working_dir: PathBuf,
    environment: Environment,
    timeout: Option<Duration>,
    limits: Limits,
    /// How many commands were started; numbers them, too.
    commands: AtomicU64,
    /// Turns true once, at `stop`. Every command that is alive holds a receiver.
    stopping: watch::Sender<bool>,
    /// Whether a `stop` came to its end.
    stopped: AtomicBool,
}

impl LocalSandbox {
    /// Makes a sandbox from a configuration that was validated.
    pub(crate) fn new(
        config: Config,
        directory: Directory,
        context: SandboxContext,
    ) -> Result<Self> {
        let timeout = config.timeout()?;
        let working_dir = config.working_dir.clone();
        let working_dir = working_dir.unwrap_or_else(|| directory.path().into());
        Ok(Self {
            environment: Environment::new(&config, &working_dir),
            timeout,
            limits: config.limits,
            directory,
            working_dir,
            context,
            commands: AtomicU64::new(0),
            stopping: watch::Sender::new(false),
            stopped: AtomicBool::new(false),
        })
    }

    fn mark(&self) -> Mark {
        Mark::sandbox(self.context.id())
    }
}

impl Sandbox for LocalSandbox {
    async fn start(&self, _call: &Call) -> Result<()> {
        tracing::warn!(
            "a local-process sandbox isolates nothing: its commands can do whatever the host's \
             user can"
        );
        Ok(())
    }

    async fn stop(&self, _call: &Call) -> Result<()> {
        self.stopping.send_replace(true);
        if timeout(STOP_GRACE, self.stopping.closed()).await.is_err() {
            return Err(Error::unavailable(format_args!(
                "{} commands still run {} seconds after SIGKILL",
                self.stopping.receiver_count(),
                STOP_GRACE.as_secs()
            ))
            .retryable());
        }
        // No command can start any more. Where none ever did there is nothing to look for.
        if self.commands.load(Ordering::Acquire) > 0 {
            processes::kill(self.mark()).await?;
        }
        self.stopped.store(true, Ordering::Release);
        Ok(())
    }

    async fn cleanup(&self, call: &Call) -> Result<()> {
        if !self.stopped.load(Ordering::Acquire) {
            self.stop(call).await?;
        }
        let directory = self.directory.clone();
        blocking(move || directory.remove()).await
    }

    async fn execute_command(
        &self,
        command: Command,
        io: CommandIo,
        call: &Call,
    ) -> Result<CommandExit> {
        command.validate()?;
        if command.user.is_some() {
            return Err(Error::unsupported("running as another user"));
        }
        if command.tty.is_some() {
            return Err(Error::unsupported("a terminal"));
        }
        let limits = limits::merged(&self.limits, &command.limits)?;
        let directory = match &command.working_dir {
            Some(directory) => self.working_dir.join(directory),
            None => self.working_dir.clone(),
        };
        // Held before the look, so that `stop` either is seen here or waits for us.
        let alive = self.stopping.subscribe();
        if *alive.borrow() {
            return Err(Error::failed_precondition("the sandbox is stopped"));
        }
        let number = self.commands.fetch_add(1, Ordering::AcqRel) + 1;
        let launch = Launch {
            context: &self.context,
            environment: &self.environment,
            directory: &directory,
            limits: &limits,
            mark: Mark::command(self.context.id(), number),
            alive: &alive,
        };
        let limit = command.timeout.or(self.timeout);
        command::run(launch, command, limit, io, call).await
    }

    async fn info(&self, _call: &Call) -> Result<Map<String, Value>> {
        let directory = self.working_dir.to_string_lossy().into_owned();
        Ok(Map::from_iter([("working_dir".into(), directory.into())]))
    }

    async fn stats(&self, _call: &Call) -> Result<Stats> {
        processes::measure(self.mark()).await
    }
}
