//! The agent's runners.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use boxyard_agent::protocol::Decoder;
use rustix::{
    io::ioctl_fionbio,
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::{Pid, Signal, kill_process},
};

use crate::{
    line,
    runner::{self, World},
    sys,
    transport::FIRST,
};

/// How many idle runners are kept for the next burst of requests.
const MAX_IDLE: usize = 64;
/// How long a burst is remembered; then one idle runner is kept.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// What a runner is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Idle {
        since: Instant,
    },
    /// The request of a channel.
    Request(u32),
    /// What a command left behind that ended.
    LeftOver,
}

/// A runner as the agent sees it.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) pid: Pid,
    pub(crate) work: Work,
    line: OwnedFd,
    pub(crate) decoder: Decoder,
}

impl Runner {
    pub(crate) fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// Tells it something, or kills it where it does not listen: what it ran comes to the
    /// agent then.
    pub(crate) fn tell(&self, kind: u8, payload: &[u8], descriptors: &[BorrowedFd<'_>]) {
        if line::send(&self.line, kind, payload, descriptors).is_err() {
            self.kill();
        }
    }

    pub(crate) fn kill(&self) {
        // It is our child and not reaped, so that nobody else has its number.
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

/// All runners, by a number of their own.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    runners: HashMap<u32, Runner>,
    idle: Vec<u32>,
    next: u32,
}

impl Pool {
    /// Takes an idle runner, or makes one; tells which of both.
    pub(crate) fn take(&mut self, world: &World, channel: u32) -> io::Result<(u32, bool)> {
        let work = Work::Request(channel);
        if let Some(id) = self.idle.pop() {
            if let Some(runner) = self.runners.get_mut(&id) {
                runner.work = work;
                return Ok((id, false));
            }
        }
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let Some(pid) = sys::fork()? else {
            become_runner(theirs, world);
        };
        ioctl_fionbio(&ours, true)?;
        self.next = self.next.wrapping_add(1);
        let runner = Runner {
            pid,
            work,
            line: ours,
            decoder: Decoder::new(),
        };
        self.runners.insert(self.next, runner);
        Ok((self.next, true))
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Runner> {
        self.runners.get_mut(&id)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Runner> {
        self.runners.get(&id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    pub(crate) fn find(&self, pid: Pid) -> Option<u32> {
        let mut runners = self.runners.iter();
        let found = runners.find(|(_, runner)| runner.pid == pid);
        found.map(|(id, _)| *id)
    }

    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.all().map(|runner| runner.pid).collect()
    }

    /// Takes a runner's work for left over, whose end nobody waits for any more.
    pub(crate) fn detach(&mut self, id: u32) {
        if let Some(runner) = self.runners.get_mut(&id) {
            if let Work::Request(_) = runner.work {
                runner.work = Work::LeftOver;
            }
        }
    }

    /// Takes a runner back that has nothing left to do; returns it when there are enough, to
    /// be let go.
    pub(crate) fn give_back(&mut self, id: u32) -> Option<Runner> {
        if self.idle.len() >= MAX_IDLE {
            return self.runners.remove(&id);
        }
        let runner = self.runners.get_mut(&id)?;
        let since = Instant::now();
        runner.work = Work::Idle { since };
        self.idle.push(id);
        None
    }

    /// Forgets a runner that is gone.
    pub(crate) fn remove(&mut self, id: u32) -> Option<Runner> {
        self.idle.retain(|idle| *idle != id);
        self.runners.remove(&id)
    }

    /// Returns when [`Pool::trim`] has something to do.
    pub(crate) fn trim_at(&self) -> Option<Instant> {
        let oldest = self.idle.get(1).and_then(|_| self.idle.first())?;
        match self.get(*oldest)?.work {
            Work::Idle { since } => Some(since + IDLE_TIME),
            _ => None,
        }
    }

    /// Takes out an idle runner, not the only one, that nobody needed for some time.
    pub(crate) fn trim(&mut self, now: Instant) -> Option<Runner> {
        self.trim_at().filter(|at| *at <= now)?;
        let oldest = self.idle.remove(0);
        self.runners.remove(&oldest)
    }
}

/// Runs in the agent's copy, which keeps nothing of the agent's but what it was told.
fn become_runner(line: OwnedFd, world: &World) -> ! {
    let code = match sys::keep_only(line, FIRST) {
        Ok(line) => i32::from(runner::serve(line, world).is_err()),
        Err(_) => 1,
    };
    // Its memory is the agent's: nothing of that may be dropped here.
    sys::exit(code)
}
