//! Messages on the wire: each as a frame, and each frame as what it means.

use serde::{Serialize, de::DeserializeOwned};

use super::{FromAgent, FromHost, MessageError, Stream};
use crate::protocol::{Frame, HEADER_LEN, Header, MAX_DATA, MAX_DOCUMENT};

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
        kind::DATA => MAX_DATA,
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
    to.reserve(HEADER_LEN + payload.len());
    to.extend_from_slice(&header.to_bytes());
    to.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::{Decoder, Goodbye, Hello, Setup};

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
