//! How the agent and the host come together.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use rustix::{
    fs::{Mode, OFlags, open},
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd, ioctl_fionbio},
};

/// The first descriptor that is none of the standard ones.
pub(crate) const FIRST: RawFd = 3;

/// Where the host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// It listens on a socket.
    Connect(PathBuf),
    /// It gave us one end of a connection.
    Descriptor(RawFd),
    /// It is at the other ends of standard input and output.
    Stdio,
}

/// An open connection: one descriptor to read and one to write, nonblocking both.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) input: OwnedFd,
    pub(crate) output: OwnedFd,
}

impl Transport {
    pub(crate) fn from_arguments(
        mut arguments: impl Iterator<Item = OsString>,
    ) -> Result<Self, String> {
        let mode = arguments.next().ok_or("no transport is given")?;
        let transport = match mode.to_str() {
            Some("--connect") => {
                let path = arguments.next().ok_or("--connect needs a socket's path")?;
                Self::Connect(path.into())
            }
            Some("--fd") => {
                let number = arguments.next().ok_or("--fd needs a number")?;
                let parsed = number.to_str().and_then(|text| text.parse().ok());
                let number = parsed.filter(|number| *number >= 0);
                Self::Descriptor(number.ok_or("--fd needs a number of 0 or more")?)
            }
            Some("--stdio") => Self::Stdio,
            _ => return Err(format!("unknown argument {mode:?}")),
        };
        match arguments.next() {
            None => Ok(transport),
            Some(extra) => Err(format!("unexpected argument {extra:?}")),
        }
    }

    /// Opens the connection. Afterwards descriptors 0 and 1 lead nowhere, and every other that
    /// was inherited but standard error is closed.
    pub(crate) fn open(&self) -> io::Result<Line> {
        let line = match self {
            Self::Connect(path) => return connect(path),
            Self::Descriptor(number) => {
                let line = take(*number)?;
                Line {
                    output: fcntl_dupfd_cloexec(&line, FIRST)?,
                    input: line,
                }
            }
            Self::Stdio => Line {
                input: take(0)?,
                output: take(1)?,
            },
        };
        let nowhere = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        if let Ok(nowhere) = nowhere {
            // It may be one of those that it takes the place of.
            let nowhere = fcntl_dupfd_cloexec(nowhere, FIRST)?;
            rustix::stdio::dup2_stdin(&nowhere)?;
            rustix::stdio::dup2_stdout(&nowhere)?;
        }
        line.prepared()
    }

    /// Whether a connection that was lost can be opened again.
    pub(crate) fn can_reopen(&self) -> bool {
        matches!(self, Self::Connect(_))
    }

    /// Opens the connection again after it was lost.
    pub(crate) fn reopen(&self) -> io::Result<Line> {
        match self {
            Self::Connect(path) => connect(path),
            Self::Descriptor(_) | Self::Stdio => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Line {
    fn prepared(self) -> io::Result<Self> {
        for fd in [&self.input, &self.output] {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
            ioctl_fionbio(fd, true)?;
        }
        Ok(self)
    }
}

fn connect(path: &PathBuf) -> io::Result<Line> {
    let stream = UnixStream::connect(path).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("connecting to {}: {error}", path.display()),
        )
    })?;
    let input = OwnedFd::from(stream);
    let output = fcntl_dupfd_cloexec(&input, FIRST)?;
    Line { input, output }.prepared()
}

/// Moves an inherited descriptor out of the way of the standard ones.
fn take(number: RawFd) -> io::Result<OwnedFd> {
    #[expect(
        unsafe_code,
        reason = "a number of the command line becomes a descriptor"
    )]
    // SAFETY: the host gave us the number, nothing in this program owns it yet, and each
    // number is taken once.
    let inherited = unsafe { OwnedFd::from_raw_fd(number) };
    Ok(fcntl_dupfd_cloexec(inherited, FIRST)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_one_transport() {
        let parse =
            |arguments: &[&str]| Transport::from_arguments(arguments.iter().map(Into::into));
        assert_eq!(parse(&["--fd", "3"]), Ok(Transport::Descriptor(3)));
        assert_eq!(parse(&["--stdio"]), Ok(Transport::Stdio));
        assert_eq!(
            parse(&["--connect", "/s"]),
            Ok(Transport::Connect("/s".into()))
        );
        for wrong in [
            &[][..],
            &["--fd"],
            &["--fd", "-1"],
            &["--fd", "x"],
            &["--connect"],
            &["--stdio", "1"],
            &["run"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
