//! The connection to the host: frames in, frames out, and never a wait.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
};

use boxyard_agent::protocol::{Decoder, FromAgent, HEADER_LEN, Header, Stream};
use rustix::{
    buffer::spare_capacity,
    io::{Errno, read, write, writev},
};

use crate::transport::Line;

/// With so many bytes waiting for the host, no command's output is read.
const CONGESTED: usize = 256 * 1024;
/// Output of this length goes to the host at once; less waits for what else there is to say.
const LONG: usize = 8 * 1024;

/// What reading from the host came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Some,
    Nothing,
    End,
}

#[derive(Debug)]
pub(crate) struct Connection {
    line: Line,
    pub(crate) decoder: Decoder,
    out: Vec<u8>,
    /// How many bytes of `out` are sent.
    sent: usize,
}

impl Connection {
    pub(crate) fn new(line: Line) -> Self {
        Self {
            line,
            decoder: Decoder::new(),
            out: Vec::new(),
            sent: 0,
        }
    }

    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.line.input.as_fd()
    }

    pub(crate) fn output(&self) -> BorrowedFd<'_> {
        self.line.output.as_fd()
    }

    pub(crate) fn has_output(&self) -> bool {
        self.sent < self.out.len()
    }

    pub(crate) fn is_congested(&self) -> bool {
        self.out.len() - self.sent > CONGESTED
    }

    /// Reads once.
    pub(crate) fn receive(&mut self) -> io::Result<Received> {
        let buffer = self.decoder.buffer();
        buffer.reserve(4096);
        loop {
            match read(&self.line.input, spare_capacity(buffer)) {
                Ok(0) => return Ok(Received::End),
                Ok(count) => {
                    // A full read: the host has more to say than a few words.
                    if count >= 4096 && buffer.capacity() < Decoder::READ {
                        buffer.reserve(Decoder::READ);
                    }
                    return Ok(Received::Some);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::CONNRESET | Errno::IO) => return Ok(Received::End),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, message: &FromAgent<'_>) -> io::Result<()> {
        message.encode(&mut self.out).map_err(io::Error::other)
    }

    /// Sends output; a long piece without a copy where nothing waits before it.
    pub(crate) fn send_data(
        &mut self,
        channel: u32,
        stream: Stream,
        bytes: &[u8],
    ) -> io::Result<()> {
        let message = FromAgent::Data {
            channel,
            stream,
            bytes,
        };
        if bytes.len() < LONG {
            return self.send(&message);
        }
        self.flush()?;
        if self.has_output() {
            return self.send(&message);
        }
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let header = Header {
            length,
            channel,
            kind: Header::DATA,
            stream: stream.number(),
        };
        let header = header.to_bytes();
        let sent = match writev(
            &self.line.output,
            &[IoSlice::new(&header), IoSlice::new(bytes)],
        ) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let head = header.get(sent..).unwrap_or_default();
        let body = bytes.get(sent.saturating_sub(HEADER_LEN)..);
        self.out.extend_from_slice(head);
        self.out.extend_from_slice(body.unwrap_or_default());
        Ok(())
    }

    /// Sends what the host takes now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match write(&self.line.output, rest) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        self.sent = 0;
        if self.out.capacity() > CONGESTED {
            self.out = Vec::new();
        }
        self.out.clear();
        Ok(())
    }
}
