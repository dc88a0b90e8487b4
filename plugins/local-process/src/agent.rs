//! The agent of one sandbox: a child process of the host that runs the sandbox's commands.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
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
        put(&path, program.bytes()).map_err(|error| {
            Error::from(error).context(format_args!(
                "writing the guest agent to {}",
                path.display()
            ))
        })?;
        Ok(Self(path))
    }
}

/// Compares a file piece by piece: fresh pages for all of it would cost more.
fn holds(path: &Path, mut expected: &[u8]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut piece)?;
        let found = piece.get(..read).unwrap_or_default();
        match expected.split_at_checked(read) {
            Some((head, rest)) if head == found => expected = rest,
            _ => return Ok(false),
        }
        if read == 0 {
            return Ok(expected.is_empty());
        }
    }
}

/// Makes sure of what a file holds. Whoever runs what was there before goes on with that; a
/// failure leaves nothing else behind.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if holds(path, bytes).unwrap_or(false) {
        return Ok(());
    }
    let new = path.with_extension(std::process::id().to_string());
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o700);
    let written = options.open(&new)?.write_all(bytes);
    let renamed = written.and_then(|()| fs::rename(&new, path));
    if renamed.is_err() {
        // What went wrong before says more than that this does, too.
        let _ = fs::remove_file(&new);
    }
    renamed
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_once_and_replaced_when_it_differs() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let inode = || fs::metadata(&path).unwrap().ino();
        put(&path, b"first").unwrap();
        let first = inode();
        put(&path, b"first").unwrap();
        assert_eq!(inode(), first);
        // Whoever runs the first keeps it, so that its number is not taken again.
        let _running = File::open(&path).unwrap();
        put(&path, b"second").unwrap();
        assert_ne!(inode(), first);
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_put_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::create_dir(&path).unwrap();
        put(&path, b"new").unwrap_err();
        let left = fs::read_dir(directory.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["program"]);
    }
}
