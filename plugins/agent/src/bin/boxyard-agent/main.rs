//! The guest agent: runs commands inside a sandbox's boundary for a host outside.
//!
//! Every process of this program has one thread. The *guard* is above the agent where nothing
//! else would outlive it; the *agent* speaks to the host and keeps everything that runs; a
//! *runner* is between the agent and one request.

mod agent;
mod connection;
mod failure;
mod guard;
mod job;
mod line;
mod memory;
mod pool;
mod processes;
mod request;
mod runner;
mod sys;
mod terminal;
mod transport;
mod tree;
mod working_dir;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior};

use crate::transport::Transport;

const USAGE: &str = "usage: boxyard-agent --connect SOCKET | --fd NUMBER | --stdio";

fn main() -> ExitCode {
    let transport = match Transport::from_arguments(std::env::args_os().skip(1)) {
        Ok(transport) => transport,
        Err(message) => {
            report(format_args!("{message}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match run(transport) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error);
            ExitCode::FAILURE
        }
    }
}

fn run(transport: Transport) -> io::Result<()> {
    // A command of the same user must not read the agent's memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // However its file is called where it is started.
    rustix::thread::set_name(c"boxyard-agent")?;
    let ignored = sys::ignored_signals();
    // Out of reach of the terminal of whoever started us; leading a session already is fine.
    let _ = rustix::process::setsid();
    let open_files = raise_open_files();
    let line = transport.open()?;
    guard::above(line, |line| {
        agent::run(transport, line, ignored, open_files)
    })
}

/// Lets the agent open as many files as it may; returns what commands are to have.
fn raise_open_files() -> Rlimit {
    let found = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: found.maximum,
        maximum: found.maximum,
    };
    // With fewer descriptors there are fewer commands at once, and each that is too many says so.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    found
}

fn report(message: impl std::fmt::Display) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "boxyard-agent: {message}");
}
