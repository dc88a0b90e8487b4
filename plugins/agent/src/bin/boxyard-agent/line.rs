//! The line between the agent and one of its runners: frames over a socket pair, with
//! descriptors beside them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use boxyard_agent::protocol::{HEADER_LEN, Header};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read, retry_on_intr},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

/// Frames to a runner.
pub(crate) mod to_runner {
    /// A request, with its streams' descriptors.
    pub(crate) const JOB: u8 = 1;
    /// Kill it, or give it up.
    pub(crate) const CANCEL: u8 = 2;
    /// A signal for the command.
    pub(crate) const SIGNAL: u8 = 4;
    /// The input came to its end, rather than to a break.
    pub(crate) const COMPLETE: u8 = 5;
}

/// Frames from a runner.
pub(crate) mod from_runner {
    /// How the request ended.
    pub(crate) const ENDED: u8 = 1;
    /// Nothing of the request is left.
    pub(crate) const IDLE: u8 = 2;
}

/// How long a runner may take to read what it is told.
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Sends a frame and descriptors whole.
pub(crate) fn send(
    line: impl AsFd,
    kind: u8,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let header = Header {
        length,
        channel: 0,
        kind,
        stream: 0,
    };
    let header = header.to_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        rights.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let mut sent = 0;
    loop {
        let head = header.get(sent..).unwrap_or_default();
        let body = payload
            .get(sent.saturating_sub(HEADER_LEN)..)
            .unwrap_or_default();
        if head.is_empty() && body.is_empty() {
            return Ok(());
        }
        let parts = [IoSlice::new(head), IoSlice::new(body)];
        match sendmsg(&line, &parts, &mut rights, SendFlags::NOSIGNAL) {
            Ok(count) => {
                sent += count;
                // They went with the first byte.
                rights.clear();
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut waited = [PollFd::new(&line, PollFlags::OUT)];
                if retry_on_intr(|| poll(&mut waited, Some(&PATIENCE)))? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A frame as a runner receives it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Waits for a frame; `None` when the other end is gone.
pub(crate) fn receive(line: impl AsFd) -> io::Result<Option<Received>> {
    let mut header = [0; HEADER_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let read = retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut header)];
        recvmsg(&line, &mut parts, &mut rights, RecvFlags::CMSG_CLOEXEC)
    })?;
    if read.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    if let Some(rest) = header.get_mut(read.bytes..) {
        read_exact(&line, rest)?;
    }
    let [l0, l1, l2, l3, _, _, _, _, kind, _] = header;
    // The agent checked the length when it read it from the host.
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).map_err(io::Error::other)?;
    let mut payload = vec![0; length];
    read_exact(&line, &mut payload)?;
    Ok(Some(Received {
        kind,
        payload,
        descriptors,
    }))
}

fn read_exact(line: impl AsFd, mut to: &mut [u8]) -> io::Result<()> {
    while !to.is_empty() {
        match retry_on_intr(|| read(&line, &mut *to))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => to = to.get_mut(count..).unwrap_or_default(),
        }
    }
    Ok(())
}
