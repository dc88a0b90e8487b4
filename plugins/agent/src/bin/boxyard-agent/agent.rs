//! The agent: one loop between the host, the runners and the streams of what they run.

mod flow;
mod host;
mod reports;
mod watch;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::{Duration, Instant},
};

use boxyard_agent::protocol::{self, FromAgent, Goodbye, Hello};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Rlimit, getpid, set_child_subreaper},
};

use self::watch::{Watch, Watched};
use crate::{
    connection::{Connection, Received},
    job::Job,
    line::to_runner,
    memory::KillCounter,
    pool::{Pool, Work},
    runner::World,
    sys,
    transport::{Line, Transport},
    tree::{self, Hunt, Reaped},
};

/// How long a runner may take to kill what it was told to before it is killed itself.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long the rest of the output of what was stopped may take to reach the host.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a lost connection is tried again.
const RECONNECT: Duration = Duration::from_millis(100);
/// How often orphans are looked for while there are some.
const HUNT: Duration = Duration::from_millis(5);

pub(crate) fn run(
    transport: Transport,
    line: Line,
    ignored: Vec<std::ffi::c_int>,
    open_files: Rlimit,
) -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let mut agent = Agent {
        signals: sys::signal_descriptor(&[libc::SIGCHLD, libc::SIGTERM])?,
        line: Host::Connected(Connection::new(line)),
        transport,
        secret: None,
        linger: Duration::ZERO,
        world: None,
        ignored: ignored.into(),
        open_files,
        runner_lines: Watch::new()?,
        streams: Watch::new()?,
        pool: Pool::default(),
        jobs: HashMap::new(),
        drains: HashMap::new(),
        next_drain: 0,
        orphans: None,
        ending: None,
        is_terminated: false,
        memory: KillCounter::default(),
        scratch: Vec::new(),
    };
    agent.greet();
    agent.flush();
    // While the host reads that.
    agent.memory = KillCounter::open();
    agent.serve()
}

/// Where the host is.
#[derive(Debug)]
enum Host {
    Connected(Connection),
    /// The connection was lost and is tried again until then.
    Lost {
        until: Instant,
        next: Instant,
    },
    /// It is gone for good.
    Gone,
}

#[derive(Debug)]
struct Agent {
    transport: Transport,
    line: Host,
    /// What the host gave us to show when we connect again.
    secret: Option<String>,
    linger: Duration,
    /// What runners are made with; `None` until the host said it.
    world: Option<World>,
    ignored: Rc<[std::ffi::c_int]>,
    open_files: Rlimit,
    signals: OwnedFd,
    /// Runners' lines, by runner.
    runner_lines: Watch,
    /// Streams of requests and of what was left behind; not looked at while the host does
    /// not take what there is.
    streams: Watch,
    pool: Pool,
    jobs: HashMap<u32, Job>,
    /// Outputs that somebody holds whose command ended: read, so that he is not stopped, and
    /// dropped.
    drains: HashMap<u32, OwnedFd>,
    next_drain: u32,
    /// Killing what a lost runner left to us.
    orphans: Option<Hunt>,
    /// Since when everything is coming to its end.
    ending: Option<Instant>,
    /// Whether that is for a signal: the host did not ask for it.
    is_terminated: bool,
    memory: KillCounter,
    /// What outputs are read into.
    scratch: Vec<u8>,
}

impl Agent {
    fn greet(&mut self) {
        let hello = Hello {
            protocol: protocol::VERSION,
            pid: getpid().as_raw_pid().unsigned_abs(),
            secret: self.secret.clone(),
        };
        self.send(&FromAgent::Hello(hello));
    }

    /// Queues a message; one for a host that is not there is lost with its request.
    fn send(&mut self, message: &FromAgent<'_>) {
        if let Host::Connected(connection) = &mut self.line {
            if let Err(error) = connection.send(message) {
                crate::report(error);
            }
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            self.flush();
            if self.is_over() {
                self.dismiss_runners()?;
                self.say_goodbye(None);
                return Ok(());
            }
            let ready = self.wait()?;
            if ready.signals {
                self.signalled()?;
            }
            if ready.runners {
                for id in self.runner_lines.ready()? {
                    if let Watched::Runner(id) = id {
                        self.hear_runner(id);
                    }
                }
            }
            if ready.host {
                self.hear_host();
            }
            if ready.streams {
                for watched in self.streams.ready()? {
                    self.serve_stream(watched);
                }
            }
            self.keep_time(Instant::now());
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) -> io::Result<Ready> {
        let timeout = self.next_time().map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            // Rounded up: waking before the time would only wait again.
            let left = left + Duration::from_micros(100);
            Timespec::try_from(left).unwrap_or_default()
        });
        let mut waited = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::from_borrowed_fd(self.runner_lines.as_fd(), PollFlags::IN),
        ];
        let mut congested = false;
        if let Host::Connected(connection) = &self.line {
            waited.push(PollFd::from_borrowed_fd(connection.input(), PollFlags::IN));
            if connection.has_output() {
                waited.push(PollFd::from_borrowed_fd(
                    connection.output(),
                    PollFlags::OUT,
                ));
            }
            congested = connection.is_congested();
        }
        let streams_at = waited.len();
        if !congested {
            let streams = self.streams.as_fd();
            waited.push(PollFd::from_borrowed_fd(streams, PollFlags::IN));
        }
        match poll(&mut waited, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |at: usize| waited.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            signals: is_ready(0),
            runners: is_ready(1),
            host: is_ready(2) && streams_at > 2,
            streams: is_ready(streams_at),
        })
    }

    fn flush(&mut self) {
        let lost = match &mut self.line {
            Host::Connected(connection) => connection.flush().is_err(),
            _ => false,
        };
        if lost {
            self.lose_host();
        }
    }

    fn hear_host(&mut self) {
        let Host::Connected(connection) = &mut self.line else {
            return;
        };
        match connection.receive() {
            Ok(Received::Some) => {}
            Ok(Received::Nothing) => return,
            Ok(Received::End) if connection.decoder.is_partial() => {
                crate::report("the connection ended in the middle of a frame");
                return self.lose_host();
            }
            Ok(Received::End) => return self.lose_host(),
            Err(error) => {
                crate::report(error);
                return self.lose_host();
            }
        }
        if let Err(message) = self.take_messages() {
            self.say_goodbye(Some(message));
            self.lose_host();
        }
    }

    /// The connection is over: whoever waited for a command is gone.
    fn lose_host(&mut self) {
        let channels: Vec<u32> = self.jobs.keys().copied().collect();
        for channel in channels {
            self.cancel(channel);
            // The next connection has channels of its own.
            if let Some(job) = self.jobs.remove(&channel) {
                self.pool.detach(job.runner);
            }
        }
        if self.linger.is_zero() || self.ending.is_some() || !self.transport.can_reopen() {
            self.line = Host::Gone;
            self.end_everything();
        } else {
            let next = Instant::now();
            self.line = Host::Lost {
                until: next + self.linger,
                next,
            };
        }
    }

    fn reconnect(&mut self, now: Instant) {
        let Host::Lost { until, next } = self.line else {
            return;
        };
        if now >= until {
            self.line = Host::Gone;
            return self.end_everything();
        }
        if now < next {
            return;
        }
        match self.transport.reopen() {
            Ok(line) => {
                self.line = Host::Connected(Connection::new(line));
                self.greet();
            }
            Err(_) => {
                self.line = Host::Lost {
                    until,
                    next: now + RECONNECT,
                };
            }
        }
    }

    fn say_goodbye(&mut self, error: Option<String>) {
        self.send(&FromAgent::Goodbye(Goodbye { error }));
        if let Host::Connected(connection) = &mut self.line {
            // It is the last word: a host that does not listen misses nothing else.
            let _ = connection.flush();
        }
    }

    /// Kills everything that runs and everything that was left behind.
    fn end_everything(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(Instant::now());
        for runner in self.pool.all() {
            if !matches!(runner.work, Work::Idle { .. }) {
                runner.tell(to_runner::CANCEL, &[], &[]);
            }
        }
        let deadline = Instant::now() + KILL_PATIENCE;
        for job in self.jobs.values_mut().filter(|job| !job.replied) {
            job.cut.get_or_insert(crate::job::Cut::Stopped);
            job.deadline = Some(deadline);
        }
    }

    /// Lets the runners go and waits for that, so that the guard finds nobody to look for.
    fn dismiss_runners(&mut self) -> io::Result<()> {
        self.pool = Pool::default();
        let until = Instant::now() + LAST_WORDS;
        while Instant::now() < until {
            match tree::reap() {
                Reaped::NoChildren => break,
                Reaped::Child(..) => continue,
                Reaped::Nothing => {}
            }
            let mut waited = [PollFd::new(&self.signals, PollFlags::IN)];
            match poll(
                &mut waited,
                Some(&Timespec::try_from(HUNT).unwrap_or_default()),
            ) {
                Ok(_) | Err(Errno::INTR) => {
                    sys::take_signals(self.signals.as_fd(), 0);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Whether nothing is left to do.
    fn is_over(&self) -> bool {
        let Some(since) = self.ending else {
            return false;
        };
        let is_idle = |work: Work| matches!(work, Work::Idle { .. });
        let at_rest = self.orphans.is_none() && self.pool.all().all(|runner| is_idle(runner.work));
        let gone = !matches!(self.line, Host::Connected(_));
        let told = gone || self.jobs.values().all(Job::is_over) || since.elapsed() > LAST_WORDS;
        // What cannot be killed from here is left to the guard, or to the kernel.
        (at_rest && told) || since.elapsed() > 2 * KILL_PATIENCE
    }
}

/// What there is to do.
#[derive(Debug, Default)]
struct Ready {
    signals: bool,
    runners: bool,
    host: bool,
    streams: bool,
}
