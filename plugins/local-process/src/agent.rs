//! The agent of one sandbox: a child process of the host that runs the sandbox's commands.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use boxyard_agent::{Client, Program, protocol::Setup};
use boxyard_plugin_api::prelude::*;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{sync::watch, time::timeout};

/// How long the agent may take to kill everything and end.
const SHUT_DOWN: Duration = Duration::from_secs(15);
/// How long its guard may take to do the same when the agent was killed.
const GUARD: Duration = Duration::from_secs(10);

/// The agent's program as a file that can be executed, in the plugin's own directory.
#[derive(Debug)]
pub(crate) struct Executable(PathBuf);

impl Executable {
    /// Finds the file, or makes it where it is not there or is of another build.
    pub(crate) fn new(data_dir: &Path) -> Result<Self> {
        let program = Program::for_this_machine(data_dir)?;
        let path = data_dir.join("boxyard-agent");
        program.write_to(&path)?;
        Ok(Self(path))
    }
}

/// An agent that runs, or ran.
#[derive(Debug)]
pub(crate) struct LocalAgent {
    client: Client,
    /// Names the agent itself; our child is the guard above it.
    process: OwnedFd,
    /// Turns true when our child was reaped, which is when nothing of the sandbox runs.
    gone: watch::Receiver<bool>,
    stopping: Arc<OnceLock<()>>,
}

impl LocalAgent {
    /// Starts an agent; the host hears of one that ends by itself.
    pub(crate) async fn start(
        executable: &Executable,
        setup: Setup,
        context: &SandboxContext,
    ) -> Result<Self> {
        let mut command = Command::new(&executable.0);
        command.env_clear().current_dir("/").stdout(Stdio::null());
        let (child, line) = boxyard_agent::spawn(command)
            .await
            .map_err(|error| Error::from(error).context("starting the guest agent"))?;
        let mut child = Reaped(Some(child));
        let (client, work) = Client::connect(line, setup).await?;
        let pid = i32::try_from(client.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::internal("the guest agent has no process id"))?;
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
        let (gone_sender, gone) = watch::channel(false);
        let stopping = Arc::new(OnceLock::new());
        let (reported, was_asked) = (context.clone(), stopping.clone());
        context.spawn(async move {
            work.await;
            if let Some(child) = child.0.take() {
                reap(child).await;
            }
            gone_sender.send_replace(true);
            if was_asked.get().is_none() {
                reported.exited(
                    "the sandbox's guest agent was killed or ended by itself; everything that \
                     it ran was killed with it",
                );
            }
        });
        Ok(Self {
            client,
            process,
            gone,
            stopping,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Kills everything that the agent runs, and ends it; again is no error.
    pub(crate) async fn stop(&self) -> Result<()> {
        // That it was asked before is fine.
        let _ = self.stopping.set(());
        if let Err(error) = self.client.shut_down(SHUT_DOWN).await {
            tracing::warn!(%error, "the guest agent does not answer and is killed");
            // One that is gone already needs no signal.
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
        }
        let mut gone = self.gone.clone();
        let waited = timeout(GUARD, gone.wait_for(|gone| *gone)).await;
        match waited {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::unavailable(format_args!(
                "processes of the sandbox still run {} seconds after they were killed",
                GUARD.as_secs()
            ))
            .retryable()),
        }
    }
}

/// A child that is not left a zombie where we go away before its end.
struct Reaped(Option<Child>);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // Its end of the line is closed, so that it ends; waiting would block us.
            std::thread::spawn(move || child.wait());
        }
    }
}

async fn reap(mut child: Child) {
    let waited = tokio::task::spawn_blocking(move || child.wait()).await;
    if let Ok(Err(error)) = waited {
        tracing::warn!(%error, "the guest agent's guard was not reaped");
    }
}
