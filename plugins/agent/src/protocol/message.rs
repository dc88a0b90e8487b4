//! Messages: what a frame means, in each direction.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Frame, Header, MAX_DOCUMENT};

/// A stream of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// What the request reads: standard input, a file's content, an archive.
    Stdin,
    /// What it writes: standard output, a terminal, a file's content, an archive.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Returns its number in a frame's header.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    fn from_number(number: u8) -> Result<Self, MessageError> {
        match number {
            0 => Ok(Self::Stdin),
            1 => Ok(Self::Stdout),
            2 => Ok(Self::Stderr),
            stream => Err(MessageError::Stream { stream }),
        }
    }
}

/// The agent's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// Its process id where it runs.
    pub pid: u32,
    /// What the host gave it on its first connection; `None` on that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// The host's first message: what all commands of the sandbox start from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setup {
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// The environment of every command.
    pub env: BTreeMap<String, String>,
    /// Where commands run that do not say so; `/` where empty. Relative paths of files start
    /// there, too.
    pub working_dir: String,
    /// Who runs commands that do not say so; the agent's own user where `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The directory that no path of a file operation leaves; none where `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The `oom_score_adj` of commands, so that the kernel takes them before the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// What the agent must show when it connects again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// How long the agent tries to connect again when the connection is lost, in
    /// milliseconds; it ends at once where 0.
    pub linger_ms: u64,
}

/// The last message on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// What went wrong; `None` after a [`FromHost::Shutdown`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a request ended: a document of its own, or an error of the plugin API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply<T, E> {
    /// What it answers.
    Ok(T),
    /// Why it failed.
    Error(E),
}

/// A message that no peer of ours sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// A kind that this direction does not have.
    Kind {
        /// The kind found.
        kind: u8,
    },
    /// A stream that this message cannot be about.
    Stream {
        /// The stream's number.
        stream: u8,
    },
    /// A channel 0 where a request is meant, or another where the connection is.
    Channel {
        /// The kind of frame.
        kind: u8,
        /// The channel found.
        channel: u32,
    },
    /// A payload of the wrong form.
    Payload {
        /// The kind of frame.
        kind: u8,
        /// What is wrong with it.
        message: String,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind { kind } => write!(f, "a frame of kind {kind}, which nobody sends this way"),
            Self::Stream { stream } => write!(f, "a frame about stream {stream}, which is none"),
            Self::Channel { kind, channel } => {
                write!(f, "a frame of kind {kind} on channel {channel}")
            }
            Self::Payload { kind, message } => {
                write!(
                    f,
                    "a frame of kind {kind} with a malformed payload: {message}"
                )
            }
        }
    }
}

impl std::error::Error for MessageError {}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const OPEN: u8 = 2;
    pub(super) const DATA: u8 = super::Header::DATA;
    pub(super) const END: u8 = 4;
    pub(super) const CREDIT: u8 = 5;
    pub(super) const CLOSE: u8 = 6;
    pub(super) const SIGNAL: u8 = 7;
    pub(super) const RESIZE: u8 = 8;
    pub(super) const CANCEL: u8 = 9;
    pub(super) const SHUTDOWN: u8 = 10;
    pub(super) const REPLY: u8 = 11;
    pub(super) const GOODBYE: u8 = 12;
}

/// A message from the host to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHost<'a> {
    /// Answers the agent's [`Hello`].
    Setup(Setup),
    /// Opens a channel with a request, a JSON document.
    Open {
        /// The channel: a number that is not in use.
        channel: u32,
        /// What is asked for.
        request: &'a [u8],
    },
    /// Bytes for the request's input.
    Data {
        /// The request.
        channel: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The end of the request's input.
    End {
        /// The request.
        channel: u32,
    },
    /// So many more bytes of an output may come.
    Credit {
        /// The request.
        channel: u32,
        /// Which output.
        stream: Stream,
        /// How many bytes more.
        bytes: u32,
    },
    /// Nobody reads this output any more.
    Close {
        /// The request.
        channel: u32,
        /// Which output.
        stream: Stream,
    },
    /// A signal for a command.
    Signal {
        /// The request.
        channel: u32,
        /// The signal's number.
        number: i32,
    },
    /// A size for a command's terminal.
    Resize {
        /// The request.
        channel: u32,
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// Kill the request with everything it started, and drop its output.
    Cancel {
        /// The request.
        channel: u32,
    },
    /// Kill everything and end.
    Shutdown,
}

/// A message from the agent to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromAgent<'a> {
    /// The first message.
    Hello(Hello),
    /// Bytes of an output.
    Data {
        /// The request.
        channel: u32,
        /// Which output.
        stream: Stream,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The end of an output.
    End {
        /// The request.
        channel: u32,
        /// Which output.
        stream: Stream,
    },
    /// So many more bytes of the request's input may come.
    Credit {
        /// The request.
        channel: u32,
        /// How many bytes more.
        bytes: u32,
    },
    /// Nobody reads the request's input any more.
    Close {
        /// The request.
        channel: u32,
    },
    /// How the request ended, a JSON document. With it and the ends of both outputs the
    /// channel is free again.
    Reply {
        /// The request.
        channel: u32,
        /// A [`Reply`].
        document: &'a [u8],
    },
    /// The last message.
    Goodbye(Goodbye),
}

impl<'a> FromHost<'a> {
    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// [`MessageError`].
    pub fn parse(frame: Frame<'a>) -> Result<Self, MessageError> {
        let Frame { header, payload } = frame;
        let on_connection = matches!(header.kind, kind::HELLO | kind::SHUTDOWN);
        check_channel(header, on_connection)?;
        let channel = header.channel;
        match header.kind {
            kind::HELLO => Ok(Self::Setup(document(frame)?)),
            kind::OPEN => Ok(Self::Open {
                channel,
                request: payload,
            }),
            kind::DATA => {
                input(header)?;
                Ok(Self::Data {
                    channel,
                    bytes: payload,
                })
            }
            kind::END => {
                input(header)?;
                Ok(Self::End { channel })
            }
            kind::CREDIT => Ok(Self::Credit {
                channel,
                stream: output(header)?,
                bytes: u32::from_le_bytes(word(frame)?),
            }),
            kind::CLOSE => Ok(Self::Close {
                channel,
                stream: output(header)?,
            }),
            kind::SIGNAL => Ok(Self::Signal {
                channel,
                number: i32::from_le_bytes(word(frame)?),
            }),
            kind::RESIZE => {
                let [c0, c1, r0, r1] = word(frame)?;
                Ok(Self::Resize {
                    channel,
                    columns: u16::from_le_bytes([c0, c1]),
                    rows: u16::from_le_bytes([r0, r1]),
                })
            }
            kind::CANCEL => Ok(Self::Cancel { channel }),
            kind::SHUTDOWN => Ok(Self::Shutdown),
            kind => Err(MessageError::Kind { kind }),
        }
    }

    /// Appends its frame.
    ///
    /// # Errors
    ///
    /// [`MessageError::Payload`] for a document or for data that is longer than a frame may be.
    pub fn encode(&self, to: &mut Vec<u8>) -> Result<(), MessageError> {
        let frame = |channel: u32, kind: u8, stream: Stream, payload: &[u8], to: &mut Vec<u8>| {
            append(to, channel, kind, stream, payload)
        };
        match self {
            Self::Setup(setup) => frame(
                0,
                kind::HELLO,
                Stream::Stdin,
                &json(kind::HELLO, setup)?,
                to,
            ),
            Self::Open { channel, request } => {
                frame(*channel, kind::OPEN, Stream::Stdin, request, to)
            }
            Self::Data { channel, bytes } => frame(*channel, kind::DATA, Stream::Stdin, bytes, to),
            Self::End { channel } => frame(*channel, kind::END, Stream::Stdin, &[], to),
            Self::Credit {
                channel,
                stream,
                bytes,
            } => frame(*channel, kind::CREDIT, *stream, &bytes.to_le_bytes(), to),
            Self::Close { channel, stream } => frame(*channel, kind::CLOSE, *stream, &[], to),
            Self::Signal { channel, number } => {
                let number = number.to_le_bytes();
                frame(*channel, kind::SIGNAL, Stream::Stdin, &number, to)
            }
            Self::Resize {
                channel,
                columns,
                rows,
            } => {
                let size = [columns.to_le_bytes(), rows.to_le_bytes()].concat();
                frame(*channel, kind::RESIZE, Stream::Stdin, &size, to)
            }
            Self::Cancel { channel } => frame(*channel, kind::CANCEL, Stream::Stdin, &[], to),
            Self::Shutdown => frame(0, kind::SHUTDOWN, Stream::Stdin, &[], to),
        }
    }
}

impl<'a> FromAgent<'a> {
    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// [`MessageError`].
    pub fn parse(frame: Frame<'a>) -> Result<Self, MessageError> {
        let Frame { header, payload } = frame;
        let on_connection = matches!(header.kind, kind::HELLO | kind::GOODBYE);
        check_channel(header, on_connection)?;
        let channel = header.channel;
        match header.kind {
            kind::HELLO => Ok(Self::Hello(document(frame)?)),
            kind::DATA => Ok(Self::Data {
                channel,
                stream: output(header)?,
                bytes: payload,
            }),
            kind::END => Ok(Self::End {
                channel,
                stream: output(header)?,
            }),
            kind::CREDIT => {
                input(header)?;
                Ok(Self::Credit {
                    channel,
                    bytes: u32::from_le_bytes(word(frame)?),
                })
            }
            kind::CLOSE => {
                input(header)?;
                Ok(Self::Close { channel })
            }
            kind::REPLY => Ok(Self::Reply {
                channel,
                document: payload,
            }),
            kind::GOODBYE => Ok(Self::Goodbye(document(frame)?)),
            kind => Err(MessageError::Kind { kind }),
        }
    }

    /// Appends its frame.
    ///
    /// # Errors
    ///
    /// [`MessageError::Payload`] for a document or for data that is longer than a frame may be.
    pub fn encode(&self, to: &mut Vec<u8>) -> Result<(), MessageError> {
        let frame = |channel: u32, kind: u8, stream: Stream, payload: &[u8], to: &mut Vec<u8>| {
            append(to, channel, kind, stream, payload)
        };
        match self {
            Self::Hello(hello) => frame(
                0,
                kind::HELLO,
                Stream::Stdin,
                &json(kind::HELLO, hello)?,
                to,
            ),
            Self::Data {
                channel,
                stream,
                bytes,
            } => frame(*channel, kind::DATA, *stream, bytes, to),
            Self::End { channel, stream } => frame(*channel, kind::END, *stream, &[], to),
            Self::Credit { channel, bytes } => {
                let bytes = bytes.to_le_bytes();
                frame(*channel, kind::CREDIT, Stream::Stdin, &bytes, to)
            }
            Self::Close { channel } => frame(*channel, kind::CLOSE, Stream::Stdin, &[], to),
            Self::Reply { channel, document } => {
                frame(*channel, kind::REPLY, Stream::Stdin, document, to)
            }
            Self::Goodbye(goodbye) => {
                let goodbye = json(kind::GOODBYE, goodbye)?;
                frame(0, kind::GOODBYE, Stream::Stdin, &goodbye, to)
            }
        }
    }
}

fn check_channel(header: Header, on_connection: bool) -> Result<(), MessageError> {
    if (header.channel == 0) == on_connection {
        return Ok(());
    }
    Err(MessageError::Channel {
        kind: header.kind,
        channel: header.channel,
    })
}

fn output(header: Header) -> Result<Stream, MessageError> {
    match Stream::from_number(header.stream)? {
        Stream::Stdin => Err(MessageError::Stream { stream: 0 }),
        output => Ok(output),
    }
}

fn input(header: Header) -> Result<(), MessageError> {
    match Stream::from_number(header.stream)? {
        Stream::Stdin => Ok(()),
        output => Err(MessageError::Stream {
            stream: output.number(),
        }),
    }
}

fn word(frame: Frame<'_>) -> Result<[u8; 4], MessageError> {
    frame.payload.try_into().map_err(|_| MessageError::Payload {
        kind: frame.header.kind,
        message: format!("{} bytes, expected 4", frame.payload.len()),
    })
}

fn document<T: DeserializeOwned>(frame: Frame<'_>) -> Result<T, MessageError> {
    serde_json::from_slice(frame.payload).map_err(|error| MessageError::Payload {
        kind: frame.header.kind,
        message: error.to_string(),
    })
}

fn json(kind: u8, value: &impl Serialize) -> Result<Vec<u8>, MessageError> {
    serde_json::to_vec(value).map_err(|error| MessageError::Payload {
        kind,
        message: error.to_string(),
    })
}

fn append(
    to: &mut Vec<u8>,
    channel: u32,
    kind: u8,
    stream: Stream,
    payload: &[u8],
) -> Result<(), MessageError> {
    let limit = match kind {
        kind::DATA => super::MAX_DATA,
        _ => MAX_DOCUMENT,
    };
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= limit);
    let Some(length) = length else {
        return Err(MessageError::Payload {
            kind,
            message: format!("{} bytes, expected at most {limit}", payload.len()),
        });
    };
    let header = Header {
        length,
        channel,
        kind,
        stream: stream.number(),
    };
    to.reserve(super::HEADER_LEN + payload.len());
    to.extend_from_slice(&header.to_bytes());
    to.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Decoder;

    #[test]
    fn every_message_reads_back() {
        let (channel, stream) = (7, Stream::Stderr);
        let from_host = [
            FromHost::Setup(Setup {
                env: BTreeMap::from([("A".into(), "b".into())]),
                ..Setup::default()
            }),
            FromHost::Open {
                channel,
                request: b"{}",
            },
            FromHost::Data {
                channel,
                bytes: b"\0\xff",
            },
            FromHost::End { channel },
            FromHost::Credit {
                channel,
                stream,
                bytes: u32::MAX,
            },
            FromHost::Close { channel, stream },
            FromHost::Signal {
                channel,
                number: -1,
            },
            FromHost::Resize {
                channel,
                columns: 300,
                rows: 2,
            },
            FromHost::Cancel { channel },
            FromHost::Shutdown,
        ];
        let mut decoder = Decoder::new();
        for message in &from_host {
            message.encode(decoder.buffer()).unwrap();
            let frame = decoder.next_frame().unwrap().unwrap();
            assert_eq!(FromHost::parse(frame).unwrap(), *message);
        }
        let from_agent = [
            FromAgent::Hello(Hello {
                protocol: 1,
                pid: 2,
                secret: Some("s".into()),
            }),
            FromAgent::Data {
                channel,
                stream,
                bytes: b"x",
            },
            FromAgent::End { channel, stream },
            FromAgent::Credit { channel, bytes: 3 },
            FromAgent::Close { channel },
            FromAgent::Reply {
                channel,
                document: b"{}",
            },
            FromAgent::Goodbye(Goodbye { error: None }),
        ];
        for message in &from_agent {
            message.encode(decoder.buffer()).unwrap();
            let frame = decoder.next_frame().unwrap().unwrap();
            assert_eq!(FromAgent::parse(frame).unwrap(), *message);
        }
    }

    #[test]
    fn what_nobody_sends_is_refused() {
        let parse = |channel, kind, stream, payload: &[u8]| {
            let header = Header {
                length: u32::try_from(payload.len()).unwrap(),
                channel,
                kind,
                stream,
            };
            let frame = Frame { header, payload };
            (
                FromHost::parse(frame).is_ok(),
                FromAgent::parse(frame).is_ok(),
            )
        };
        for (channel, kind, stream, payload) in [
            (1, 0, 0, &b""[..]),
            (1, 200, 0, b""),
            // A document that is none, and one on a request's channel.
            (0, 1, 0, b"{"),
            (1, 1, 0, b"{}"),
            // The connection has no streams and no requests.
            (0, 3, 1, b"x"),
            (0, 9, 0, b""),
            (0, 11, 0, b"{}"),
            (1, 3, 3, b"x"),
            (1, 5, 1, b"123"),
            (1, 10, 0, b""),
        ] {
            assert_eq!(
                parse(channel, kind, stream, payload),
                (false, false),
                "{kind}"
            );
        }
        // Input flows one way, output the other.
        assert_eq!(parse(1, 3, 0, b"x"), (true, false));
        assert_eq!(parse(1, 3, 1, b"x"), (false, true));
    }

    #[test]
    fn nothing_longer_than_a_frame_is_sent() {
        let mut wire = Vec::new();
        let message = FromHost::Open {
            channel: 1,
            request: &vec![b' '; MAX_DOCUMENT + 1],
        };
        assert!(matches!(
            message.encode(&mut wire),
            Err(MessageError::Payload { .. })
        ));
        assert!(wire.is_empty());
    }
}
