//! One command: started, waited for, signalled, and killed with all that it started.

mod environment;
mod program;
mod user;

use std::{
    ffi::CString,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Uid, fchown},
    io::Errno,
    process::{Pid, Resource, Rlimit, Signal, WaitStatus, geteuid, kill_process_group},
};

use self::{environment::Environment, program::Invocation};
use super::{Ended, Told, World, ended, told};
use crate::{
    failure::{Failure, Result},
    request::Command,
    sys::{self, Launch, Stage},
    tree::{self, Reaped},
};

pub(crate) use user::credentials;

/// Runs a command to its end and to that of all it left behind.
pub(super) fn run(
    command: Command,
    streams: [OwnedFd; 3],
    world: &World,
    line: &OwnedFd,
    children: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut running = match start(command, streams, world) {
        Ok(Started::Running(leader)) => Running {
            leader: Some(leader),
            line,
        },
        Ok(Started::Refused(exit_code)) => {
            let refused = Ended {
                exit_code,
                ..Ended::default()
            };
            return ended(line, &Ok(refused));
        }
        Err(failure) => return ended(line, &Err::<(), _>(failure)),
    };
    loop {
        if matches!(running.reap()?, Reaped::NoChildren) {
            return Ok(());
        }
        let mut ready = [
            PollFd::new(line, PollFlags::IN),
            PollFd::from_borrowed_fd(children, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [from_agent, from_children] = &ready;
        if from_children.revents().contains(PollFlags::IN) {
            sys::take_signals(children, 0);
        }
        if from_agent.revents().is_empty() {
            continue;
        }
        match told(line.as_fd())? {
            Told::Signal(number) => running.signal(number),
            Told::Cancel => return running.kill(),
            Told::AgentGone => {
                running.kill()?;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Told::Complete | Told::Other => {}
        }
    }
}

/// A command, or what it left behind when it ended.
struct Running<'a> {
    /// Its first process, until it was reaped.
    leader: Option<Pid>,
    line: &'a OwnedFd,
}

impl Running<'_> {
    /// Reaps what has ended; reports the command's end when it comes.
    fn reap(&mut self) -> io::Result<Reaped> {
        loop {
            match tree::reap() {
                Reaped::Child(pid, status) if self.leader == Some(pid) => {
                    self.leader = None;
                    ended(self.line, &Ok(ending(status)))?;
                }
                // An orphan that came to us, or one that was killed with a command.
                Reaped::Child(..) => {}
                none => return Ok(none),
            }
        }
    }

    fn signal(&self, number: i32) {
        let signal = Signal::from_named_raw(number);
        if let (Some(leader), Some(signal)) = (self.leader, signal) {
            // A group that is ending needs no signal any more.
            let _ = kill_process_group(leader, signal);
        }
    }

    fn kill(&mut self) -> io::Result<()> {
        let mut status = None;
        let killed = tree::kill_all(|pid, ended| {
            if self.leader == Some(pid) {
                status = Some(ended);
            }
        });
        let Some(_) = self.leader.take() else {
            // It ended before, and was reported; a left-over that cannot be killed is retried
            // by whoever ends the agent.
            return killed.map(drop);
        };
        let mut report = status.map(ending).unwrap_or(Ended {
            exit_code: Ended::KILLED,
            signal: Some(9),
            ..Ended::default()
        });
        // It may have ended by itself just before.
        report.cut = report.signal == Some(9);
        let answer = match killed {
            Ok(count) => {
                report.killed = Some(count);
                Ok(report)
            }
            Err(error) => Err(Failure::internal(error).context("killing the command")),
        };
        ended(self.line, &answer)
    }
}

fn ending(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(exit_code), _) => Ended {
            exit_code,
            ..Ended::default()
        },
        (None, Some(signal)) => Ended {
            exit_code: 128 + signal,
            signal: Some(signal),
            ..Ended::default()
        },
        (None, None) => Ended {
            exit_code: Ended::KILLED,
            ..Ended::default()
        },
    }
}

enum Started {
    Running(Pid),
    /// Its program cannot be run; standard error says why, and it ends with this code.
    Refused(i32),
}

fn start(command: Command, streams: [OwnedFd; 3], world: &World) -> Result<Started> {
    let setup = &world.setup;
    let user = command.user.as_deref().or(setup.user.as_deref());
    let user = user.map(user::find).transpose()?;
    let place = match &command.working_dir {
        Some(directory) => Path::new(&setup.working_dir).join(directory),
        None => Path::new(&setup.working_dir).to_owned(),
    };
    let environment = Environment::new(setup, &command, &place, user.as_ref());
    let invocation = Invocation::new(&command.program, environment.path());
    let stderr = streams[2].try_clone()?;
    let terminal = command.tty.is_some();
    if let Some(user) = user.as_ref().filter(|_| terminal) {
        // Where it stays ours, it is still the command's to use, and not to open again.
        let _ = fchown(&streams[0], Some(Uid::from_raw(user.credentials.uid)), None);
    }
    let launch = Launch {
        candidates: c_strings(&invocation.candidates)?,
        argv: c_strings(&invocation.argv)?,
        envp: c_strings(&environment.entries())?,
        directory: c_string(place.as_os_str().as_bytes())?,
        streams,
        terminal,
        // Who is not root is that user already.
        credentials: user
            .filter(|_| geteuid().is_root())
            .map(|user| user.credentials),
        capabilities: world.capabilities,
        no_new_privileges: setup.no_new_privileges,
        limits: limits(&command, world)?,
        oom_score_adj: match setup.oom_score_adj {
            Some(score) => Some(c_string(score.to_string().as_bytes())?),
            None => None,
        },
        ignored: world.ignored.to_vec(),
    };
    let (stage, errno) = match sys::launch(&launch) {
        Ok(Ok(leader)) => return Ok(Started::Running(leader)),
        Ok(Err(failure)) => failure,
        Err(error) => return Err(out_of_room(error.into())),
    };
    let shown = place.display();
    match stage {
        Stage::Program if is_refusal(errno) => {
            let refusal = program::Refusal::new(&invocation, errno, &place);
            // Whoever reads it may be gone already.
            let _ = std::fs::File::from(stderr).write_all(refusal.message.as_bytes());
            Ok(Started::Refused(refusal.exit_code))
        }
        Stage::Program if errno == Errno::TOOBIG => Err(Failure::invalid_argument(
            "the command's arguments and environment are longer than the system allows",
        )),
        Stage::Program => Err(out_of_room(errno.into())),
        Stage::Directory => Err(match errno {
            Errno::NOENT => {
                Failure::not_found(format_args!("working directory `{shown}` does not exist"))
            }
            Errno::NOTDIR => Failure::invalid_argument(format_args!(
                "working directory `{shown}` is no directory"
            )),
            errno => Failure::from(errno).context(format_args!("working directory `{shown}`")),
        }),
        Stage::User => {
            Err(Failure::from(errno).context("becoming the user that the command names"))
        }
        Stage::Privileges => {
            Err(Failure::from(errno).context("taking capabilities from the command"))
        }
        Stage::Limit(index) => {
            let name = launch.limits.get(index).map(|(resource, _)| resource);
            Err(Failure::from(errno).context(format_args!("setting the limit {name:?}")))
        }
        Stage::Terminal => Err(Failure::from(errno).context("giving the command its streams")),
    }
}

fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::NAMETOOLONG
            | Errno::ACCESS
            | Errno::PERM
            | Errno::NOEXEC
            | Errno::TXTBSY
            | Errno::ISDIR
            | Errno::LIBBAD
    )
}

/// Tells what a later try may find changed.
fn out_of_room(failure: Failure) -> Failure {
    failure.context("starting the command").retryable()
}

fn limits(command: &Command, world: &World) -> Result<Vec<(Resource, Rlimit)>> {
    let mut limits = vec![(Resource::Nofile, world.open_files)];
    for (name, value) in &command.limits {
        let limit = boxyard_agent::Limit::from_name(name).map_err(Failure::invalid_argument)?;
        // The kernel spells "no limit" as the largest number.
        let value = (*value != u64::MAX).then_some(*value);
        let both = Rlimit {
            current: value,
            maximum: value,
        };
        limits.push((limit.resource(), both));
    }
    Ok(limits)
}

fn c_strings<S: AsRef<[u8]>>(strings: &[S]) -> Result<Vec<CString>> {
    strings.iter().map(|text| c_string(text.as_ref())).collect()
}

fn c_string(text: &[u8]) -> Result<CString> {
    CString::new(text).map_err(|_| {
        Failure::invalid_argument(format_args!(
            "`{}` has a NUL byte, which no program can be given",
            String::from_utf8_lossy(text)
        ))
    })
}
