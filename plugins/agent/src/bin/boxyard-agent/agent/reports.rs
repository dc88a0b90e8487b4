//! What runners report, what the kernel does, and what time brings.

use std::{io, os::fd::AsFd, time::Instant};

use boxyard_agent::protocol::{FromAgent, Reply};
use rustix::{
    io::{Errno, read},
    process::Pid,
};
use serde::Serialize;
use serde_json::Value;

use super::{Agent, HUNT, Host, KILL_PATIENCE, LAST_WORDS};
use crate::{
    failure::{self, Failure, Result},
    job::{Cut, Job},
    line::{from_runner, to_runner},
    pool::Work,
    runner::Ended,
    sys,
    tree::{self, Reaped},
};

/// The exit code of a command that its timeout ended.
const TIMED_OUT: i32 = 124;

/// How a command ended, as the plugin API's type of that name has it.
#[derive(Debug, Serialize)]
struct CommandExit {
    exit_code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    timed_out: bool,
    out_of_memory: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    killed: Option<u32>,
    duration_ms: u64,
}

impl Agent {
    pub(super) fn signalled(&mut self) -> io::Result<()> {
        let terminated = libc::SIGTERM.unsigned_abs();
        if sys::take_signals(self.signals.as_fd(), terminated) {
            self.is_terminated |= self.ending.is_none();
            self.end_everything();
        }
        loop {
            match tree::reap() {
                Reaped::Child(pid, _) => self.lost(pid)?,
                Reaped::Nothing | Reaped::NoChildren => return Ok(()),
            }
        }
    }

    /// A child is gone. One that is a runner with work left what it ran to us.
    fn lost(&mut self, pid: Pid) -> io::Result<()> {
        let Some(id) = self.pool.find(pid) else {
            return Ok(());
        };
        // What it said before it went.
        self.hear_runner(id);
        let Some(runner) = self.pool.remove(id) else {
            return Ok(());
        };
        self.runner_lines.remove(runner.line());
        let mut hunt = self.orphans.take().unwrap_or_default();
        hunt.round(&self.pool.pids())?;
        let killed = hunt.killed();
        self.orphans = Some(hunt);
        let Work::Request(channel) = runner.work else {
            return Ok(());
        };
        let Some(job) = self.jobs.get_mut(&channel).filter(|job| !job.replied) else {
            return Ok(());
        };
        job.replied = true;
        job.deadline = None;
        let failure = Failure::internal(format_args!(
            "the process that kept the request was killed; {killed} others were killed with it"
        ));
        self.finish(channel, Err::<(), _>(failure));
        Ok(())
    }

    /// Reads what a runner reports.
    pub(super) fn hear_runner(&mut self, id: u32) {
        let Some(runner) = self.pool.get_mut(id) else {
            return;
        };
        loop {
            let mut buffer = [0; 4096];
            match read(runner.line(), &mut buffer) {
                // It is gone; the kernel says so apart.
                Ok(0) => {
                    self.runner_lines.remove(runner.line());
                    break;
                }
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    runner.decoder.buffer().extend_from_slice(bytes);
                    if count < buffer.len() {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        let mut reports = Vec::new();
        while let Ok(Some(frame)) = runner.decoder.next_frame() {
            reports.push((frame.header.kind, frame.payload.to_vec()));
        }
        for (kind, payload) in reports {
            match kind {
                from_runner::ENDED => self.ended(id, &payload),
                from_runner::IDLE => {
                    if let Some(surplus) = self.pool.give_back(id) {
                        self.runner_lines.remove(surplus.line());
                    }
                }
                _ => {}
            }
        }
    }

    /// A runner's request ended; what it left behind may go on.
    fn ended(&mut self, id: u32, document: &[u8]) {
        let Some(runner) = self.pool.get_mut(id) else {
            return;
        };
        let Work::Request(channel) = runner.work else {
            return;
        };
        runner.work = Work::LeftOver;
        if self.ending.is_some() {
            runner.tell(to_runner::CANCEL, &[], &[]);
        }
        let Some(job) = self.jobs.get_mut(&channel).filter(|job| !job.replied) else {
            return;
        };
        job.replied = true;
        job.deadline = None;
        match command_end(job.is_command, document) {
            // To its caller that is no end of a command: nobody that he knows of asked for it.
            Ok(Some(ended)) if self.is_terminated && ended.cut && job.cut == Some(Cut::Stopped) => {
                let error = "the agent was told to end by a signal, and killed the command";
                self.finish(channel, Err::<(), _>(Failure::unavailable(error)));
            }
            Ok(Some(ended)) => {
                let exit = self.exit(channel, &ended);
                self.finish(channel, Ok(exit));
            }
            Ok(None) => self.conclude(channel, document),
            Err(error) => self.finish(channel, Err::<(), _>(Failure::internal(error))),
        }
    }

    fn exit(&self, channel: u32, ended: &Ended) -> Option<CommandExit> {
        let job = self.jobs.get(&channel)?;
        let timed_out = ended.cut && job.cut == Some(Cut::TimedOut);
        let was_killed = ended.exit_code == Ended::KILLED && job.cut.is_none();
        Some(CommandExit {
            exit_code: if timed_out {
                TIMED_OUT
            } else {
                ended.exit_code
            },
            signal: ended.signal.filter(|_| !timed_out),
            timed_out,
            out_of_memory: was_killed && self.memory.read() > job.memory_kills,
            killed: ended.killed,
            duration_ms: u64::try_from(job.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn finish<T: Serialize>(&mut self, channel: u32, answer: Result<T>) {
        self.conclude(channel, &failure::document(&answer));
    }

    /// Sends the rest of a request's output and how it ended.
    fn conclude(&mut self, channel: u32, document: &[u8]) {
        self.drop_input(channel);
        self.bound_outputs(channel);
        self.send(&FromAgent::Reply { channel, document });
        self.forget_if_over(channel);
    }

    /// Returns when there is something to do that nobody else will say.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let jobs = self.jobs.values().filter_map(|job: &Job| job.deadline);
        let orphans = self.orphans.as_ref().map(|_| Instant::now() + HUNT);
        let ending = self.ending.map(|since| {
            let last_words = since + LAST_WORDS;
            if last_words > Instant::now() {
                last_words
            } else {
                since + 2 * KILL_PATIENCE
            }
        });
        let reconnect = match self.line {
            Host::Lost { next, until } => Some(next.min(until)),
            _ => None,
        };
        jobs.chain(self.pool.trim_at())
            .chain(orphans)
            .chain(ending)
            .chain(reconnect)
            .min()
    }

    pub(super) fn keep_time(&mut self, now: Instant) {
        let due = self
            .jobs
            .iter()
            .filter(|(_, job)| job.deadline.is_some_and(|deadline| deadline <= now));
        let due: Vec<u32> = due.map(|(channel, _)| *channel).collect();
        for channel in due {
            self.overdue(channel, now);
        }
        while let Some(runner) = self.pool.trim(now) {
            self.runner_lines.remove(runner.line());
        }
        self.reconnect(now);
        self.hunt_orphans();
    }

    fn overdue(&mut self, channel: u32, now: Instant) {
        let Some(job) = self.jobs.get_mut(&channel) else {
            return;
        };
        let Some(runner) = self.pool.get(job.runner) else {
            job.deadline = None;
            return;
        };
        if job.cut.is_none() {
            job.cut = Some(Cut::TimedOut);
            job.deadline = Some(now + KILL_PATIENCE);
            runner.tell(to_runner::CANCEL, &[], &[]);
        } else {
            // It does not answer. What it ran comes to us, and is killed here.
            job.deadline = None;
            runner.kill();
        }
    }

    fn hunt_orphans(&mut self) {
        let Some(hunt) = &mut self.orphans else {
            return;
        };
        match hunt.round(&self.pool.pids()) {
            Ok(0) => self.orphans = None,
            Ok(_) => {}
            Err(error) => {
                crate::report(format_args!("looking for orphans: {error}"));
                self.orphans = None;
            }
        }
    }
}

/// Reads how a command ended in what its runner reports; `None` for what the client gets as it
/// is, the end of anything else and an error.
fn command_end(is_command: bool, document: &[u8]) -> serde_json::Result<Option<Ended>> {
    if is_command {
        let reply = serde_json::from_slice::<Reply<Ended, Value>>(document)?;
        return Ok(match reply {
            Reply::Ok(ended) => Some(ended),
            Reply::Error(_) => None,
        });
    }
    serde_json::from_slice::<Reply<Value, Value>>(document)?;
    Ok(None)
}
