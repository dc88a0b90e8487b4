//! A runner: a process between the agent and one request at a time.
//!
//! It is a subreaper, so that everything that a command starts stays below it; it kills what
//! it is told to kill, reports, and takes the next request. The agent has as many as it has
//! requests running, and keeps some for later.

mod command;
mod files;

use std::{
    ffi::c_int,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use boxyard_agent::protocol::Setup;
use rustix::{process::Rlimit, thread::CapabilitySet};
use serde::Serialize;

pub(crate) use command::credentials;

use crate::{
    failure::{self, Failure, Result},
    line::{self, from_runner, to_runner},
    request::Request,
};

/// What every runner has from the agent by being its copy.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) setup: Rc<Setup>,
    /// What commands keep of the agent's capabilities; all where `None`.
    pub(crate) capabilities: Option<CapabilitySet>,
    /// Signals that the agent found ignored.
    pub(crate) ignored: Rc<[c_int]>,
    /// The limit on open files that the agent found, before it raised its own.
    pub(crate) open_files: Rlimit,
}

/// How a command ended, as the agent is told.
#[derive(Debug, Default, Serialize, serde::Deserialize)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) killed: Option<u32>,
    /// Whether it was still running when it was told to end.
    #[serde(default)]
    pub(crate) cut: bool,
}

impl Ended {
    /// The exit code of a command that SIGKILL ended.
    pub(crate) const KILLED: i32 = 128 + 9;
}

/// Serves until the agent closes the line.
pub(crate) fn serve(line: OwnedFd, world: &World) -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let children = crate::sys::signal_descriptor(&[libc::SIGCHLD])?;
    while let Some(received) = line::receive(&line)? {
        // A cancel or a signal that crossed the end of its request.
        if received.kind != to_runner::JOB {
            continue;
        }
        let [stdin, stdout, stderr]: [OwnedFd; 3] = received
            .descriptors
            .try_into()
            .map_err(|_| io::Error::other("a request without its streams"))?;
        match serde_json::from_slice(&received.payload) {
            Err(error) => ended(&line, &Err::<(), _>(Failure::invalid_argument(error)))?,
            Ok(Request::ExecuteCommand(command)) => {
                let streams = [stdin, stdout, stderr];
                command::run(command, streams, world, &line, children.as_fd())?;
            }
            Ok(request) => {
                drop(stderr);
                let streams = files::Streams {
                    input: stdin,
                    output: stdout,
                    line: line.as_fd(),
                };
                let answer = files::serve(request, streams, world)?;
                ended(&line, &answer)?;
            }
        }
        line::send(&line, from_runner::IDLE, &[], &[])?;
    }
    Ok(())
}

/// Tells the agent how the request ended.
fn ended<T: Serialize>(line: impl AsFd, answer: &Result<T>) -> io::Result<()> {
    line::send(line, from_runner::ENDED, &failure::document(answer), &[])
}

/// Reads what the agent has to say about the running request.
fn told(line: BorrowedFd<'_>) -> io::Result<Told> {
    let Some(received) = line::receive(line)? else {
        return Ok(Told::AgentGone);
    };
    Ok(match received.kind {
        to_runner::SIGNAL => match received.payload.try_into() {
            Ok(number) => Told::Signal(i32::from_le_bytes(number)),
            Err(_) => Told::Other,
        },
        to_runner::CANCEL => Told::Cancel,
        to_runner::COMPLETE => Told::Complete,
        _ => Told::Other,
    })
}

/// What the agent says about a running request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Signal(i32),
    Cancel,
    Complete,
    AgentGone,
    Other,
}
