//! What the host says, and what is done about it.

use std::{os::fd::AsFd, rc::Rc, time::Duration, time::Instant};

use boxyard_agent::protocol::{self, FromAgent, FromHost, MAX_OPEN, Setup, Stream};
use rustix::{io::Errno, thread::CapabilitySet};
use serde::Serialize;

use super::{Agent, Host, KILL_PATIENCE, Watched};
use crate::{
    failure::{self, Failure, Result},
    job::{Cut, Input, Job, Output, Streams},
    line::to_runner,
    pool::Work,
    processes,
    request::{Request, TerminalSize},
    runner::World,
    terminal, working_dir,
};

/// What ends the connection: a message for the host, which should not have said that.
type Said = std::result::Result<(), String>;

impl Agent {
    /// Takes every message that is there whole.
    pub(super) fn take_messages(&mut self) -> Said {
        // Out of the agent's hands, so that it can work while the bytes are looked at.
        let Host::Connected(connection) = &mut self.line else {
            return Ok(());
        };
        let mut decoder = std::mem::take(&mut connection.decoder);
        let taken = loop {
            match decoder.next_frame() {
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
                Ok(Some(frame)) => {
                    let message = FromHost::parse(frame).map_err(|error| error.to_string());
                    if let Err(error) = message.and_then(|message| self.take_message(message)) {
                        break Err(error);
                    }
                }
            }
        };
        if let Host::Connected(connection) = &mut self.line {
            connection.decoder = decoder;
        }
        taken
    }

    fn take_message(&mut self, message: FromHost<'_>) -> Said {
        if let FromHost::Setup(setup) = message {
            return self.set_up(setup);
        }
        let Some(world) = &self.world else {
            return Err("expected the host's setup first".into());
        };
        match message {
            FromHost::Setup(_) => {}
            FromHost::Open { channel, request } => {
                if self.jobs.contains_key(&channel) {
                    return Err(format!("channel {channel} is open already"));
                }
                let world = world.clone();
                if let Err(failure) = self.open(channel, request, &world) {
                    self.answer::<()>(channel, Err(failure));
                }
            }
            FromHost::Data { channel, bytes } => self.input(channel, bytes)?,
            FromHost::End { channel } => self.end_input(channel),
            FromHost::Credit {
                channel,
                stream,
                bytes,
            } => {
                if let Some(output) = self.output(channel, stream) {
                    output.credit = output.credit.saturating_add(bytes);
                    self.pump(channel, stream);
                }
            }
            FromHost::Close { channel, stream } => self.close_output(channel, stream),
            FromHost::Signal { channel, number } => {
                let job = self.jobs.get(&channel).filter(|job| !job.replied);
                if let Some(runner) = job.and_then(|job| self.pool.get(job.runner)) {
                    runner.tell(to_runner::SIGNAL, &number.to_le_bytes(), &[]);
                }
            }
            FromHost::Resize {
                channel,
                columns,
                rows,
            } => {
                let size = TerminalSize { columns, rows };
                let job = self.jobs.get(&channel).filter(|job| job.terminal);
                if let Some(terminal) = job.and_then(|job| job.outputs[0].descriptor.as_ref()) {
                    // A terminal that cannot be resized keeps its size.
                    let _ = terminal::resize(terminal, size);
                }
            }
            FromHost::Cancel { channel } => self.cancel(channel),
            FromHost::Shutdown => self.end_everything(),
        }
        Ok(())
    }

    fn set_up(&mut self, setup: Setup) -> Said {
        if setup.protocol != protocol::VERSION {
            return Err(format!(
                "the host speaks protocol {}, expected {}",
                setup.protocol,
                protocol::VERSION
            ));
        }
        self.secret.clone_from(&setup.secret);
        self.linger = Duration::from_millis(setup.linger_ms);
        // What commands start from stays as the first host said it.
        if self.world.is_none() {
            working_dir::give(&setup);
            self.world = Some(World {
                capabilities: setup
                    .capabilities
                    .as_deref()
                    .map(capabilities)
                    .transpose()?,
                setup: Rc::new(setup),
                ignored: self.ignored.clone(),
                open_files: self.open_files,
            });
        }
        Ok(())
    }

    fn open(&mut self, channel: u32, request: &[u8], world: &World) -> Result<()> {
        if self.ending.is_some() {
            return Err(Failure::failed_precondition("the sandbox is stopped"));
        }
        if self.jobs.len() >= MAX_OPEN {
            return Err(Failure::resource_exhausted(format_args!(
                "{MAX_OPEN} requests are open already"
            ))
            .retryable());
        }
        let parsed: Request = serde_json::from_slice(request).map_err(Failure::invalid_argument)?;
        let command = match &parsed {
            Request::Processes {} => {
                let runners = self.pool.all();
                let runners =
                    runners.map(|runner| (runner.pid, matches!(runner.work, Work::LeftOver)));
                let found = processes::list(&runners.collect::<Vec<_>>());
                self.answer(channel, Ok(found));
                return Ok(());
            }
            Request::ExecuteCommand(command) => Some(command),
            _ => None,
        };
        let started = Instant::now();
        let tty = command.and_then(|command| command.tty);
        let streams = Streams::open(parsed.has_input(), tty).map_err(no_room)?;
        let memory_kills = self.memory.read();
        let (id, is_new) = self.pool.take(world, channel).map_err(|error| {
            Failure::resource_exhausted(format_args!("starting a process: {error}")).retryable()
        })?;
        let Some(runner) = self.pool.get(id) else {
            return Err(Failure::internal(
                "a runner that was just made is not there",
            ));
        };
        if is_new {
            self.runner_lines
                .add(runner.line(), Watched::Runner(id))
                .map_err(no_room)?;
        }
        let theirs = streams.theirs.each_ref().map(AsFd::as_fd);
        runner.tell(to_runner::JOB, request, &theirs);
        let timeout = command.and_then(|command| command.timeout_ms);
        let timeout = timeout.map(Duration::from_millis);
        let mut job = Job {
            runner: id,
            is_command: command.is_some(),
            input: streams.input.map(|fd| Input::new(fd, tty.is_some())),
            outputs: streams.outputs.map(Output::new),
            terminal: tty.is_some(),
            started,
            deadline: timeout.and_then(|timeout| started.checked_add(timeout)),
            cut: None,
            replied: false,
            memory_kills,
        };
        // Nobody types at it: it reads its end, where it would read for ever.
        if let Some(input) = job.input.as_mut().filter(|_| !parsed.has_input()) {
            input.finish();
        }
        self.jobs.insert(channel, job);
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.watch_output(channel, stream);
        }
        self.feed(channel);
        Ok(())
    }

    /// Answers a request that opened no streams.
    fn answer<T: Serialize>(&mut self, channel: u32, answer: Result<T>) {
        let document = &failure::document(&answer);
        self.send(&FromAgent::Reply { channel, document });
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.send(&FromAgent::End { channel, stream });
        }
    }

    /// Kills a request that is not answered yet; drops what it wrote in any case.
    pub(super) fn cancel(&mut self, channel: u32) {
        let Some(job) = self.jobs.get_mut(&channel) else {
            return;
        };
        if !job.replied && job.cut.is_none() {
            job.cut = Some(Cut::Cancelled);
            job.deadline = Some(Instant::now() + KILL_PATIENCE);
            let runner = job.runner;
            self.drop_input(channel);
            if let Some(runner) = self.pool.get(runner) {
                runner.tell(to_runner::CANCEL, &[], &[]);
            }
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.close_output(channel, stream);
        }
    }
}

/// Descriptors run out as memory does: later there may be some.
fn no_room(errno: Errno) -> Failure {
    Failure::resource_exhausted(format_args!(
        "opening the request's streams: {}",
        std::io::Error::from(errno)
    ))
    .retryable()
}

/// Finds capabilities by name.
fn capabilities(names: &[String]) -> Result<CapabilitySet, String> {
    let mut found = CapabilitySet::empty();
    for name in names {
        found |= CapabilitySet::from_name(name).ok_or_else(|| {
            format!("there is no capability `{name}`: expected a name such as `CHOWN`")
        })?;
    }
    Ok(found)
}
