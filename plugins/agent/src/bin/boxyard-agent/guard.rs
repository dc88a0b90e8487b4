//! The guard: a process above the agent that outlives it by as long as it takes to kill what
//! the agent ran.

use std::io;

use rustix::{
    fs::{Mode, OFlags, open},
    process::{
        Pid, Signal, WaitOptions, getpid, getppid, set_child_subreaper,
        set_parent_process_death_signal, wait,
    },
};

use crate::{sys, transport::Line, tree};

/// Runs the agent below a guard. Process 1 needs none: with it the kernel ends all others.
pub(crate) fn above(line: Line, agent: impl FnOnce(Line) -> io::Result<()>) -> io::Result<()> {
    let guard = getpid();
    if guard == Pid::INIT {
        return agent(line);
    }
    set_child_subreaper(Some(guard))?;
    let Some(child) = sys::fork()? else {
        // A guard that is killed ends the agent, which kills what it ran.
        set_parent_process_death_signal(Some(Signal::TERM))?;
        if getppid() != Some(guard) {
            return Err(io::Error::other("the guard is gone"));
        }
        return agent(line);
    };
    // The connection's end is what tells the host that the agent is gone.
    drop(line);
    watch(child)
}

fn watch(agent: Pid) -> io::Result<()> {
    if let Ok(nowhere) = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        // It keeps nobody's pipe open.
        rustix::stdio::dup2_stderr(&nowhere)?;
    }
    let status = loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == agent => break status,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    tree::kill_all(|_, _| {})?;
    match status.exit_status() {
        Some(0) => Ok(()),
        _ => Err(io::Error::other("the agent did not end by itself")),
    }
}
