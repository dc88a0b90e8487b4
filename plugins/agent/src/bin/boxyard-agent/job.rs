//! One request as the agent keeps it: its streams, its end, and what is still owed to the host.

use std::{collections::VecDeque, os::fd::OwnedFd, time::Instant};

use boxyard_agent::protocol::{Stream, WINDOW};
use rustix::{
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
};

use crate::{request::TerminalSize, terminal};

/// Why a request ends before its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    TimedOut,
    Cancelled,
    Stopped,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) runner: u32,
    pub(crate) is_command: bool,
    pub(crate) input: Option<Input>,
    /// Standard output and standard error.
    pub(crate) outputs: [Output; 2],
    pub(crate) terminal: bool,
    pub(crate) started: Instant,
    /// When it is killed; when its runner is, once it was told to.
    pub(crate) deadline: Option<Instant>,
    pub(crate) cut: Option<Cut>,
    pub(crate) replied: bool,
    /// How often the kernel had killed for want of memory when it started.
    pub(crate) memory_kills: u64,
}

impl Job {
    /// Returns one of its outputs; `None` for its input.
    pub(crate) fn output(&mut self, stream: Stream) -> Option<&mut Output> {
        let [stdout, stderr] = &mut self.outputs;
        match stream {
            Stream::Stdin => None,
            Stream::Stdout => Some(stdout),
            Stream::Stderr => Some(stderr),
        }
    }

    /// Whether nothing is owed to the host any more.
    pub(crate) fn is_over(&self) -> bool {
        self.replied && self.outputs.iter().all(|output| output.ended)
    }
}

/// What the request reads: bytes on their way from the host.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) descriptor: OwnedFd,
    waiting: VecDeque<u8>,
    /// How many of those the host sent, and may send again when they are written; what ends a
    /// terminal's input follows them and is ours.
    from_host: usize,
    /// Whether the host said that no more comes.
    pub(crate) finished: bool,
    /// Whether the event loop watches the descriptor.
    pub(crate) watched: bool,
    terminal: bool,
}

/// What writing some of the input came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// So many bytes of the host's were taken, and all there is for now.
    All(usize),
    /// So many were taken, and more wait.
    Part(usize),
    /// The request reads no more.
    Closed,
}

impl Input {
    pub(crate) fn new(descriptor: OwnedFd, terminal: bool) -> Self {
        Self {
            descriptor,
            waiting: VecDeque::new(),
            from_host: 0,
            finished: false,
            watched: false,
            terminal,
        }
    }

    /// Takes bytes from the host; `false` where it sent more than it may.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> bool {
        let fits = self.waiting.len() + bytes.len() <= WINDOW as usize && !self.finished;
        if fits {
            self.waiting.extend(bytes);
            self.from_host += bytes.len();
        }
        fits
    }

    /// Takes the host's word that no more comes.
    pub(crate) fn finish(&mut self) {
        if self.terminal && !self.finished {
            self.waiting
                .extend(terminal::end_of_input(&self.descriptor));
        }
        self.finished = true;
    }

    /// Writes what the request takes now.
    pub(crate) fn feed(&mut self) -> Fed {
        let mut fed = 0;
        loop {
            let (next, _) = self.waiting.as_slices();
            if next.is_empty() {
                self.waiting.shrink_to(64 * 1024);
                return Fed::All(fed);
            }
            match write(&self.descriptor, next) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    let of_host = count.min(self.from_host);
                    self.from_host -= of_host;
                    fed += of_host;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Fed::Part(fed),
                Err(_) => return Fed::Closed,
            }
        }
    }
}

/// What the request writes: bytes on their way to the host.
#[derive(Debug)]
pub(crate) struct Output {
    /// `None` once nothing more is read from it.
    pub(crate) descriptor: Option<OwnedFd>,
    /// How many bytes the host still takes.
    pub(crate) credit: u32,
    /// How many bytes are left of a command that ended; unknown while it runs.
    pub(crate) left: Option<usize>,
    /// Whether the host was told that it ended.
    pub(crate) ended: bool,
    pub(crate) watched: bool,
    /// Whether its pipe was made as wide as it may be.
    pub(crate) widened: bool,
}

/// What reading some of an output came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Some(usize),
    Nothing,
    End,
}

impl Output {
    pub(crate) fn new(descriptor: Option<OwnedFd>) -> Self {
        Self {
            descriptor,
            credit: WINDOW,
            left: None,
            ended: false,
            watched: false,
            widened: false,
        }
    }

    /// Returns how many bytes may be read now.
    pub(crate) fn allowed(&self, most: usize) -> usize {
        let credit = usize::try_from(self.credit).unwrap_or(usize::MAX);
        most.min(credit).min(self.left.unwrap_or(usize::MAX))
    }

    /// Reads what is there, no more than allowed.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Read {
        let Some(descriptor) = &self.descriptor else {
            return Read::End;
        };
        let allowed = self.allowed(buffer.len());
        let buffer = buffer.get_mut(..allowed).unwrap_or_default();
        loop {
            match read(descriptor, &mut *buffer) {
                Ok(0) => return Read::End,
                Ok(count) => {
                    self.credit -= u32::try_from(count).unwrap_or(self.credit);
                    self.left = self.left.map(|left| left.saturating_sub(count));
                    return Read::Some(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Read::Nothing,
                // A terminal that nobody holds any more says EIO.
                Err(_) => return Read::End,
            }
        }
    }
}

/// The two sides of a request's streams.
pub(crate) struct Streams {
    pub(crate) input: Option<OwnedFd>,
    pub(crate) outputs: [Option<OwnedFd>; 2],
    /// The runner's: standard input, output and error.
    pub(crate) theirs: [OwnedFd; 3],
}

impl Streams {
    /// Makes pipes, or a terminal; input that nobody gives is at its end.
    pub(crate) fn open(has_input: bool, tty: Option<TerminalSize>) -> Result<Self, Errno> {
        if let Some(size) = tty {
            let (ours, theirs) = terminal::open(size)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            let duplicate = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
            return Ok(Self {
                input: Some(duplicate(&ours)?),
                outputs: [Some(ours), None],
                theirs: [duplicate(&theirs)?, duplicate(&theirs)?, theirs],
            });
        }
        let (stdin, input) = if has_input {
            let (theirs, ours) = pipe()?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            (theirs, Some(ours))
        } else {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
            let nothing = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty());
            (nothing.or_else(|_| closed_pipe())?, None)
        };
        let (stdout, their_stdout) = pipe()?;
        let (stderr, their_stderr) = pipe()?;
        rustix::io::ioctl_fionbio(&stdout, true)?;
        rustix::io::ioctl_fionbio(&stderr, true)?;
        Ok(Self {
            input,
            outputs: [Some(stdout), Some(stderr)],
            theirs: [stdin, their_stdout, their_stderr],
        })
    }
}

/// An empty image has no `/dev/null`.
fn closed_pipe() -> Result<OwnedFd, Errno> {
    pipe().map(|(theirs, _)| theirs)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    pipe_with(PipeFlags::CLOEXEC)
}
