//! Watching many descriptors at once.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use boxyard_agent::protocol::Stream;
use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, EventData, EventFlags},
    },
    io::Errno,
};

/// How many descriptors are served before everything else is looked at again.
const AT_ONCE: usize = 64;

/// What a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    Runner(u32),
    /// A stream of a channel's request.
    Stream(u32, Stream),
    /// An output that is read for nobody.
    Drain(u32),
}

impl Watched {
    fn data(self) -> EventData {
        let (tag, id) = match self {
            Self::Stream(channel, stream) => (u64::from(stream.number()), channel),
            Self::Runner(id) => (3, id),
            Self::Drain(id) => (4, id),
        };
        EventData::new_u64(u64::from(id) << 3 | tag)
    }

    fn from_data(data: EventData) -> Option<Self> {
        let data = data.u64();
        let id = u32::try_from(data >> 3).ok()?;
        match data & 7 {
            0 => Some(Self::Stream(id, Stream::Stdin)),
            1 => Some(Self::Stream(id, Stream::Stdout)),
            2 => Some(Self::Stream(id, Stream::Stderr)),
            3 => Some(Self::Runner(id)),
            4 => Some(Self::Drain(id)),
            _ => None,
        }
    }
}

/// A set of watched descriptors, itself one to watch.
#[derive(Debug)]
pub(super) struct Watch(OwnedFd);

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    pub(super) fn add(&self, descriptor: impl AsFd, watched: Watched) -> Result<(), Errno> {
        let interest = match watched {
            Watched::Stream(_, Stream::Stdin) => EventFlags::OUT,
            _ => EventFlags::IN,
        };
        epoll::add(&self.0, descriptor, watched.data(), interest)
    }

    /// Watches no more. To be called before a descriptor is closed: a process that was forked
    /// meanwhile may still hold it, and then the kernel goes on.
    pub(super) fn remove(&self, descriptor: impl AsFd) {
        // What is not watched needs not be removed.
        let _ = epoll::delete(&self.0, descriptor);
    }

    /// Returns what is ready now.
    pub(super) fn ready(&self) -> io::Result<Vec<Watched>> {
        let mut events = Vec::with_capacity(AT_ONCE);
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.0, spare, Some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let watched = |event: &epoll::Event| Watched::from_data(event.data);
        Ok(events.iter().filter_map(watched).collect())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
