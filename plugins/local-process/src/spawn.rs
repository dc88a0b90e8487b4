//! Starting a command.
//!
//! Everything is settled before the process is made, so that the standard library can take
//! its fast path (`posix_spawn`): the program is found on the command's own PATH, and limits
//! are set from outside. A command with limits starts as a shell that says that it is there
//! and waits; when `prlimit` has set them all it is told to go on and becomes the program.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{self, Child, Stdio},
};

use boxyard_plugin_api::prelude::*;
use rustix::{
    fs::{Access, access},
    io::Errno,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::watch,
};

use crate::{
    environment::Environment,
    leader::Leader,
    limits::{self, Limits},
    processes::Mark,
    program::{Invocation, Refusal, SHELL},
};

/// Writes a line and waits for one, then becomes the program; reads not one byte more of what
/// the program is to read.
///
/// The line is written because a process is spawned before its `execve` is over, which puts
/// back the stack limit that it found.
const GATE: &str = r#"echo && read -r BOXYARD_GATE || exit 125; exec "$@""#;
const GATE_WITHOUT_STDIN: &str =
    r#"echo && read -r BOXYARD_GATE || exit 125; exec "$@" </dev/null"#;

/// A command with everything that its sandbox adds.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) context: &'a SandboxContext,
    pub(crate) environment: &'a Environment,
    pub(crate) directory: &'a Path,
    pub(crate) limits: &'a Limits,
    pub(crate) mark: Mark,
    /// Held as long as the command is alive.
    pub(crate) alive: &'a watch::Receiver<bool>,
}

/// A command that runs, and our ends of its pipes.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) leader: Leader,
    /// `None` for a command that reads nothing.
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

impl Launch<'_> {
    /// Starts the command; refuses one whose program is not there, or is none.
    pub(crate) async fn start(&self, command: &Command) -> Result<Result<Running, Refusal>> {
        check_directory(self.directory)?;
        let path = self.environment.path(command);
        let invocation = Invocation::find(command.program.clone(), path, self.directory);
        let invocation = match invocation {
            Ok(invocation) => invocation,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let gated = !self.limits.is_empty();
        let mut process = if gated {
            if let Err(refusal) = invocation.check(self.directory) {
                return Ok(Err(refusal));
            }
            gate(&invocation, command.stdin, path.is_some())
        } else {
            let mut process = process::Command::new(&invocation.file);
            process.arg0(&invocation.name).args(&invocation.arguments);
            process
        };
        self.environment
            .apply(command, self.directory, &self.mark, &mut process);
        let stdin = if command.stdin || gated {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        process
            .current_dir(self.directory)
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match process.spawn() {
            Ok(child) => {
                let mut running = self.watch(child)?;
                if gated {
                    self.open_gate(&mut running).await?;
                }
                if !command.stdin {
                    running.stdin = None;
                }
                Ok(Ok(running))
            }
            Err(error) => self.refuse(error, &invocation).map(Err),
        }
    }

    fn watch(&self, mut child: Child) -> Result<Running> {
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // From here on an error drops the leader, which kills what was started.
        let leader = Leader::new(child, self.mark.clone(), self.context, self.alive)?;
        Ok(Running {
            leader,
            stdin: stdin
                .map(|stdin| pipe::Sender::from_owned_fd(stdin.into()))
                .transpose()?,
            stdout: receiver(stdout)?,
            stderr: receiver(stderr)?,
        })
    }

    /// Sets the limits of a command that waits for them, and lets it go.
    async fn open_gate(&self, running: &mut Running) -> Result<()> {
        let mut line = [0];
        let told = async {
            running.stdout.read_exact(&mut line).await?;
            limits::apply(self.limits, running.leader.pid())?;
            match &mut running.stdin {
                Some(gate) => Ok(gate.write_all(b"\n").await?),
                None => Err(Error::internal("the command has no pipe")),
            }
        };
        told.await
            .map_err(|error: Error| error.context("starting the command with limits"))
    }

    /// Tells a program that cannot be run from a machine that cannot run one.
    fn refuse(&self, error: io::Error, invocation: &Invocation) -> Result<Refusal> {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        if !self.limits.is_empty() && !Path::new(SHELL).exists() {
            return Err(Error::failed_precondition(format_args!(
                "{SHELL} is missing, through which a command with limits is started"
            )));
        }
        match errno {
            Some(Errno::TOOBIG) => Err(Error::invalid_argument(
                "the command's arguments and environment are longer than the system allows",
            )),
            Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM) => Err(
                Error::resource_exhausted(format_args!("starting the command: {error}"))
                    .retryable(),
            ),
            Some(
                errno @ (Errno::NOENT
                | Errno::NOTDIR
                | Errno::LOOP
                | Errno::NAMETOOLONG
                | Errno::ACCESS
                | Errno::PERM
                | Errno::NOEXEC
                | Errno::TXTBSY
                | Errno::LIBBAD),
            ) => {
                // It may as well have been the directory, gone or closed meanwhile.
                check_directory(self.directory)?;
                access(self.directory, Access::EXEC_OK)
                    .map_err(|errno| directory_error(self.directory, errno.into()))?;
                let is_directory = self.directory.join(&invocation.file).is_dir();
                let errno = if is_directory { Errno::ISDIR } else { errno };
                Ok(Refusal::new(&invocation.name, errno))
            }
            _ => Err(Error::from(error).context("starting the command")),
        }
    }
}

/// Makes the shell that waits for its limits and becomes the program.
fn gate(invocation: &Invocation, wants_stdin: bool, has_path: bool) -> process::Command {
    let script = if wants_stdin {
        GATE
    } else {
        GATE_WITHOUT_STDIN
    };
    // The shell finds a plain name as we did, and the program sees the name it was called by.
    let named = has_path && invocation.file.file_name() == Some(invocation.name.as_ref());
    let mut process = process::Command::new(SHELL);
    process.arg0("sh").args(["-c", script, "sh"]);
    if named && !invocation.name.starts_with('-') {
        process.arg(&invocation.name);
    } else {
        process.arg(&invocation.file);
    }
    process.args(&invocation.arguments);
    process
}

fn check_directory(directory: &Path) -> Result<()> {
    match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(directory_error(directory, Errno::NOTDIR.into())),
        Err(error) => Err(directory_error(directory, error)),
    }
}

fn directory_error(directory: &Path, error: io::Error) -> Error {
    let shown = directory.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::not_found(format_args!("working directory `{shown}` does not exist"))
        }
        io::ErrorKind::NotADirectory => {
            Error::invalid_argument(format_args!("working directory `{shown}` is no directory"))
        }
        _ => Error::from(error).context(format_args!("working directory `{shown}`")),
    }
}

fn receiver(pipe: Option<impl Into<OwnedFd>>) -> Result<pipe::Receiver> {
    let pipe = pipe.ok_or_else(|| Error::internal("the command has no pipe"))?;
    Ok(pipe::Receiver::from_owned_fd(pipe.into())?)
}
