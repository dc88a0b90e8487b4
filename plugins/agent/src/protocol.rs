//! What goes over the connection: frames, and what each of them means.
//!
//! `PROTOCOL.md` is the whole of it on one page; both programs use this code, so that they
//! cannot differ.

mod frame;
mod message;

pub use frame::{Decoder, Frame, FrameError, HEADER_LEN, Header, MAX_DATA, MAX_DOCUMENT};
pub use message::{FromAgent, FromHost, Goodbye, Hello, MessageError, Reply, Setup, Stream};

/// The version of the protocol; agent and client of one build always speak the same.
pub const VERSION: u32 = 1;

/// How many requests may be open at once on one connection.
pub const MAX_OPEN: usize = 4096;

/// How many bytes of a stream may be on their way before its reader asks for more.
pub const WINDOW: u32 = 256 * 1024;
