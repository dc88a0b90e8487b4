//! Starting an agent on one end of a socket pair.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as Pair},
    process::{Child, Command},
    time::Duration,
};

use tokio::{
    net::UnixStream,
    time::{Instant, sleep},
};

/// How often a program that is busy is tried again.
const BUSY: Duration = Duration::from_millis(1);
/// How long it may stay busy.
const PATIENCE: Duration = Duration::from_secs(2);

/// Starts an agent as a child of this process; returns it, and the line to it for
/// [`Client::connect`](crate::Client::connect).
///
/// The command is the agent's program, or one that makes a boundary and becomes that program at
/// last: `--fd 0` comes after all arguments that it has, and the line is its standard input. The
/// rest, its environment for example, is the caller's to choose.
///
/// The command is taken whole, as one that lives on would hold the agent's end of the line, which
/// then never ended, whatever becomes of the agent.
///
/// The child ends when the line does, and is the caller's to wait for. A program that is still
/// open for writing, as one that was just written may be in what another thread is about to start,
/// is tried again for a while.
///
/// # Errors
///
/// What the system says: that there is no such program, or that there is no room for a process.
///
/// # Panics
///
/// Panics outside of a tokio runtime that has its I/O and its time enabled.
///
/// # Examples
///
/// ```
/// use std::{path::Path, process::Command};
///
/// use boxyard_agent::{Client, protocol::Setup};
/// use boxyard_plugin_api::prelude::*;
///
/// async fn start(program: &Path, sandbox: &SandboxContext) -> Result<Client> {
///     let mut command = Command::new(program);
///     command.env_clear().current_dir("/");
///     let (mut child, line) = boxyard_agent::spawn(command).await?;
///     let (client, work) = Client::connect(line, Setup::default()).await?;
///     sandbox.spawn(async move {
///         work.await;
///         // It ends now, and is nobody's zombie.
///         let _ = tokio::task::spawn_blocking(move || child.wait()).await;
///     });
///     Ok(client)
/// }
/// ```
pub async fn spawn(mut command: Command) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = Pair::pair()?;
    ours.set_nonblocking(true)?;
    // Before there is a child: nobody would wait for one that is not returned.
    let line = UnixStream::from_std(ours)?;
    command.args(["--fd", "0"]).stdin(OwnedFd::from(theirs));
    let started = Instant::now();
    loop {
        match command.spawn() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && started.elapsed() < PATIENCE =>
            {
                sleep(BUSY).await;
            }
            spawned => return Ok((spawned?, line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, pin::pin};

    use futures_util::FutureExt;
    use tokio::{io::AsyncReadExt, time::timeout};

    use super::*;
    use crate::{Client, Program, protocol::Setup};

    /// How long anything may take that must happen.
    const BOUND: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_program_that_is_still_written_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("boxyard-agent");
        let program = Program::for_this_machine(directory.path()).unwrap();
        program.write_to(&path).unwrap();
        let writer = File::options().append(true).open(&path).unwrap();
        let mut spawned = pin!(spawn(Command::new(path)));
        assert!(spawned.as_mut().now_or_never().is_none());
        drop(writer);
        let (mut child, line) = spawned.await.unwrap();
        let (client, work) = Client::connect(line, Setup::default()).await.unwrap();
        let work = tokio::spawn(work);
        client.shut_down(BOUND).await.unwrap();
        work.await.unwrap();
        assert!(child.wait().unwrap().success());
    }

    #[tokio::test]
    async fn the_command_gets_the_line_and_nobody_else_holds_it() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $* >&0", "sh", "own"]);
        let (mut child, mut line) = spawn(command).await.unwrap();
        let mut text = String::new();
        let read = timeout(BOUND, line.read_to_string(&mut text)).await;
        read.unwrap().unwrap();
        assert_eq!(text, "own --fd 0\n");
        assert!(child.wait().unwrap().success());
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let error = spawn(Command::new("/nonexistent")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
