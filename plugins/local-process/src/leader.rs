//! The process that a command starts as: waited for, signalled, and never left behind.
//!
//! Tokio's own child is not used: where no pidfd is to be had it falls back to a SIGCHLD
//! handler, and so it does for a child that is dropped unreaped. Signal handlers are the host's.

use std::{
    io,
    os::fd::OwnedFd,
    process::{Child, ExitStatus},
};

use boxyard_plugin_api::prelude::*;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
};

use crate::processes::{self, Mark};

/// The first process of a command, which leads a process group of its own.
///
/// Dropped before it ended, it is killed with its group and with everything that carries the
/// command's mark, and reaped, all in the background.
#[derive(Debug)]
pub(crate) struct Leader {
    group: Group,
    /// Taken when it was reaped.
    process: Option<Process>,
    mark: Mark,
    context: SandboxContext,
    /// Held until it was reaped; `stop` waits until nobody holds one any more.
    alive: watch::Receiver<bool>,
}

/// The process group of a leader that was not reaped yet, which keeps the number taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group(Pid);

#[derive(Debug)]
struct Process {
    child: Child,
    pidfd: AsyncFd<OwnedFd>,
}

impl Group {
    pub(crate) fn signal(self, signal: Signal) {
        if let Err(errno) = kill_process_group(self.0, signal) {
            tracing::debug!(group = self.0.as_raw_pid(), ?signal, %errno, "not signalled");
        }
    }
}

impl Leader {
    /// Takes a child that was just spawned with a process group of its own.
    pub(crate) fn new(
        mut child: Child,
        mark: Mark,
        context: &SandboxContext,
        alive: &watch::Receiver<bool>,
    ) -> Result<Self> {
        let pid = Pid::from_child(&child);
        let group = Group(pid);
        let watched = pidfd_open(pid, PidfdFlags::NONBLOCK)
            .map_err(io::Error::from)
            .and_then(watch_pidfd);
        match watched {
            Ok(pidfd) => Ok(Self {
                group,
                process: Some(Process { child, pidfd }),
                mark,
                context: context.clone(),
                alive: alive.clone(),
            }),
            Err(error) => {
                group.signal(Signal::KILL);
                // Killed, it ends at once; whatever it returns is of no interest.
                let _ = child.wait();
                Err(
                    Error::resource_exhausted(format_args!("watching the command: {error}"))
                        .retryable(),
                )
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.group.0
    }

    /// Returns its group; not to be used once [`Leader::wait`] answered.
    pub(crate) fn group(&self) -> Group {
        self.group
    }

    /// Waits until it ended, and reaps it. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        let process = self.process.as_mut();
        let process = process.ok_or_else(|| Error::internal("the command was reaped already"))?;
        let status = process.wait().await?;
        self.process = None;
        Ok(status)
    }
}

impl Process {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            let mut ready = self.pidfd.readable().await?;
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ready.clear_ready();
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for descriptors that may close early, which an `OwnedFd` does not"
)]
fn watch_pidfd(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

impl Drop for Leader {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        self.group.signal(Signal::KILL);
        let (mark, alive) = (self.mark.clone(), self.alive.clone());
        self.context.spawn(async move {
            if let Err(error) = process.wait().await {
                tracing::warn!(%error, "a killed command was not reaped");
            }
            if let Err(error) = processes::kill(mark).await {
                tracing::warn!(%error, "a killed command left processes behind");
            }
            drop(alive);
        });
    }
}
