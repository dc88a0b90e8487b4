//! Streams: from the host to a request and back, no faster than either takes them.

use std::os::fd::AsFd;

use boxyard_agent::protocol::{FromAgent, MAX_DATA, Stream};
use rustix::io::ioctl_fionread;

use super::{Agent, Host, Watched};
use crate::{
    job::{Fed, Output, Read},
    line::to_runner,
};

/// How wide the pipe of a command is that fills it, in bytes.
const WIDE_PIPE: usize = 4 * MAX_DATA;
/// More than the kernel keeps of what was written to a terminal.
const TERMINAL_MOST: usize = 64 * 1024;

impl Agent {
    pub(super) fn serve_stream(&mut self, watched: Watched) {
        match watched {
            Watched::Stream(channel, Stream::Stdin) => self.feed(channel),
            Watched::Stream(channel, stream) => self.pump(channel, stream),
            Watched::Drain(id) => self.drain(id),
            Watched::Runner(_) => {}
        }
    }

    /// Takes input for a request; an error says that the host sent more than it may.
    pub(super) fn input(&mut self, channel: u32, bytes: &[u8]) -> Result<(), String> {
        let input = self
            .jobs
            .get_mut(&channel)
            .and_then(|job| job.input.as_mut());
        // One that reads no more may get what was on its way.
        let Some(input) = input else {
            return Ok(());
        };
        if !input.take(bytes) {
            return Err(format!(
                "channel {channel} got more input than it asked for"
            ));
        }
        self.feed(channel);
        Ok(())
    }

    pub(super) fn end_input(&mut self, channel: u32) {
        let input = self
            .jobs
            .get_mut(&channel)
            .and_then(|job| job.input.as_mut());
        if let Some(input) = input {
            input.finish();
            self.feed(channel);
        }
    }

    /// Writes what a request takes of its input.
    pub(super) fn feed(&mut self, channel: u32) {
        let Some(job) = self.jobs.get_mut(&channel) else {
            return;
        };
        let Some(input) = &mut job.input else {
            return;
        };
        let (fed, waits) = match input.feed() {
            Fed::Closed => {
                self.drop_input(channel);
                return;
            }
            Fed::All(fed) => (fed, false),
            Fed::Part(fed) => (fed, true),
        };
        if waits != input.watched {
            if waits {
                let watched = Watched::Stream(channel, Stream::Stdin);
                input.watched = self.streams.add(&input.descriptor, watched).is_ok();
            } else {
                self.streams.remove(&input.descriptor);
                input.watched = false;
            }
        }
        if !waits && input.finished && !job.terminal {
            // The end of the pipe is the end of the input; whether it is whole is said apart.
            let (runner, is_command) = (job.runner, job.is_command);
            self.streams.remove(&input.descriptor);
            job.input = None;
            if let Some(runner) = self.pool.get(runner).filter(|_| !is_command) {
                runner.tell(to_runner::COMPLETE, &[], &[]);
            }
        } else if fed > 0 {
            let bytes = u32::try_from(fed).unwrap_or(u32::MAX);
            self.send(&FromAgent::Credit { channel, bytes });
        }
    }

    /// Tells the host that a request reads no more.
    pub(super) fn drop_input(&mut self, channel: u32) {
        let input = self.jobs.get_mut(&channel).and_then(|job| job.input.take());
        if let Some(input) = input {
            self.streams.remove(&input.descriptor);
            self.send(&FromAgent::Close { channel });
        }
    }

    pub(super) fn output(&mut self, channel: u32, stream: Stream) -> Option<&mut Output> {
        self.jobs.get_mut(&channel)?.output(stream)
    }

    pub(super) fn watch_output(&mut self, channel: u32, stream: Stream) {
        self.set_watched(channel, stream, true);
        let has_none = self
            .output(channel, stream)
            .is_some_and(|output| output.descriptor.is_none());
        if has_none {
            self.end_output(channel, stream);
        }
    }

    fn set_watched(&mut self, channel: u32, stream: Stream, wanted: bool) {
        // Not by `self.output`: the streams are needed beside it.
        let job = self.jobs.get_mut(&channel);
        let Some(output) = job.and_then(|job| job.output(stream)) else {
            return;
        };
        let Some(descriptor) = output
            .descriptor
            .as_ref()
            .filter(|_| output.watched != wanted)
        else {
            return;
        };
        output.watched = if wanted {
            let watched = Watched::Stream(channel, stream);
            self.streams.add(descriptor, watched).is_ok()
        } else {
            self.streams.remove(descriptor);
            false
        };
    }

    /// Passes output on, as much as the host takes.
    pub(super) fn pump(&mut self, channel: u32, stream: Stream) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(MAX_DATA, 0);
        self.pump_through(channel, stream, &mut scratch);
        self.scratch = scratch;
    }

    fn pump_through(&mut self, channel: u32, stream: Stream, scratch: &mut [u8]) {
        loop {
            let Host::Connected(connection) = &mut self.line else {
                return;
            };
            if connection.is_congested() {
                // Looked at again when the host took some of what waits for it.
                return self.set_watched(channel, stream, true);
            }
            let Some(output) = self.output(channel, stream) else {
                return;
            };
            if output.descriptor.is_none() {
                return;
            }
            if output.left == Some(0) {
                return self.end_output(channel, stream);
            }
            if output.credit == 0 {
                return self.set_watched(channel, stream, false);
            }
            let ends = output.left.is_some();
            match output.read(scratch) {
                Read::Some(count) => {
                    let bytes = scratch.get(..count).unwrap_or_default();
                    let Host::Connected(connection) = &mut self.line else {
                        return;
                    };
                    // A connection that is lost says so at the next look.
                    let _ = connection.send_data(channel, stream, bytes);
                    if count == MAX_DATA {
                        self.widen(channel, stream);
                    }
                    if count < MAX_DATA && !ends {
                        return self.set_watched(channel, stream, true);
                    }
                }
                // All that an ended command showed at its terminal.
                Read::Nothing if ends => return self.end_output(channel, stream),
                Read::Nothing => return self.set_watched(channel, stream, true),
                Read::End => return self.end_output(channel, stream),
            }
        }
    }

    /// Gives a command that prints a lot a wider pipe, so that it and the agent wait for each
    /// other less often.
    fn widen(&mut self, channel: u32, stream: Stream) {
        let Some(output) = self.output(channel, stream) else {
            return;
        };
        if let Some(pipe) = output.descriptor.as_ref().filter(|_| !output.widened) {
            // One that stays narrow works as well; a user has only so much for pipes.
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, WIDE_PIPE);
        }
        output.widened = true;
    }

    /// What is in the pipes now is all that an ended command wrote. What a terminal has is
    /// known only by reading it up, and somebody else may go on writing there.
    pub(super) fn bound_outputs(&mut self, channel: u32) {
        let is_terminal = self.jobs.get(&channel).is_some_and(|job| job.terminal);
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(output) = self.output(channel, stream) {
                let in_pipe = output.descriptor.as_ref().map(ioctl_fionread);
                let in_pipe = in_pipe.and_then(Result::ok).unwrap_or(0);
                output.left = Some(match is_terminal {
                    true => TERMINAL_MOST,
                    false => usize::try_from(in_pipe).unwrap_or(usize::MAX),
                });
                self.pump(channel, stream);
            }
        }
    }

    /// Says that an output ended. Whoever holds it still is read for nobody.
    pub(super) fn end_output(&mut self, channel: u32, stream: Stream) {
        self.finish_output(channel, stream, true);
    }

    /// Closes an output, so that whoever writes to it learns that nobody reads.
    pub(super) fn close_output(&mut self, channel: u32, stream: Stream) {
        self.finish_output(channel, stream, false);
    }

    fn finish_output(&mut self, channel: u32, stream: Stream, drain: bool) {
        let Some(output) = self.output(channel, stream) else {
            return;
        };
        let descriptor = output.descriptor.take();
        let was_ended = std::mem::replace(&mut output.ended, true);
        output.watched = false;
        if let Some(descriptor) = descriptor {
            self.streams.remove(&descriptor);
            if drain {
                self.next_drain = self.next_drain.wrapping_add(1);
                let watched = Watched::Drain(self.next_drain);
                if self.streams.add(&descriptor, watched).is_ok() {
                    self.drains.insert(self.next_drain, descriptor);
                    self.drain(self.next_drain);
                }
            }
        }
        if !was_ended {
            self.send(&FromAgent::End { channel, stream });
        }
        self.forget_if_over(channel);
    }

    /// Reads what nobody wants, so that whoever writes it is not stopped.
    fn drain(&mut self, id: u32) {
        self.scratch.resize(MAX_DATA, 0);
        let Some(descriptor) = self.drains.get(&id) else {
            return;
        };
        match rustix::io::read(descriptor, &mut *self.scratch) {
            Ok(0) => {}
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(_) => {}
        }
        self.streams.remove(descriptor.as_fd());
        self.drains.remove(&id);
    }

    /// Forgets a request of which nothing is owed any more.
    pub(super) fn forget_if_over(&mut self, channel: u32) {
        if self
            .jobs
            .get(&channel)
            .is_some_and(crate::job::Job::is_over)
        {
            self.drop_input(channel);
            self.jobs.remove(&channel);
        }
    }
}
