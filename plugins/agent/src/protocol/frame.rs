//! Frames: a header of ten bytes and a bounded payload.

/// The length of a frame's header in bytes.
pub const HEADER_LEN: usize = 10;
/// The longest payload of a frame that carries a stream's bytes.
pub const MAX_DATA: usize = 64 * 1024;
/// The longest payload of a frame that carries a document.
pub const MAX_DOCUMENT: usize = 4 * 1024 * 1024;

/// A frame's header as it is on the wire: length, channel, kind and stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The length of the payload in bytes.
    pub length: u32,
    /// The request that it belongs to; 0 for the connection itself.
    pub channel: u32,
    /// What it is; see [`FromHost`](super::FromHost) and [`FromAgent`](super::FromAgent).
    pub kind: u8,
    /// Which of the request's streams; 0 where that means nothing.
    pub stream: u8,
}

impl Header {
    /// The kind of a frame that carries a stream's bytes, in both directions.
    pub const DATA: u8 = 3;

    /// Returns its bytes.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [c0, c1, c2, c3] = self.channel.to_le_bytes();
        [l0, l1, l2, l3, c0, c1, c2, c3, self.kind, self.stream]
    }

    fn from_bytes(bytes: [u8; HEADER_LEN]) -> Self {
        let [l0, l1, l2, l3, c0, c1, c2, c3, kind, stream] = bytes;
        Self {
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            channel: u32::from_le_bytes([c0, c1, c2, c3]),
            kind,
            stream,
        }
    }
}

/// One frame whose payload is still where it was read to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its payload.
    pub payload: &'a [u8],
}

/// A frame that no peer of ours sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The header announces more than a frame of its kind may have.
    TooLong {
        /// The kind of frame.
        kind: u8,
        /// The length announced, in bytes.
        length: usize,
        /// The length allowed, in bytes.
        limit: usize,
    },
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::TooLong {
            kind,
            length,
            limit,
        } = self;
        write!(
            f,
            "a frame of kind {kind} announces {length} bytes, expected at most {limit}"
        )
    }
}

impl std::error::Error for FrameError {}

/// Cuts a stream of bytes into frames; holds at most one read and one unfinished frame.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// How many of `bytes` were given out already.
    start: usize,
}

impl Decoder {
    /// What a reader should ask for at a time.
    pub const READ: usize = 128 * 1024;

    /// Makes a decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the buffer to append what was read to. Everything complete must have been
    /// taken with [`Decoder::next_frame`] before.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        // A large frame came and went; the next ones are small again.
        if self.bytes.is_empty() && self.bytes.capacity() > 4 * Self::READ {
            self.bytes = Vec::new();
        }
        &mut self.bytes
    }

    /// Returns whether a frame is there in part: a stream that ends here was truncated.
    pub fn is_partial(&self) -> bool {
        self.start < self.bytes.len()
    }

    /// Returns the next complete frame, `None` where more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the stream is of no more use.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let rest = self.bytes.get(self.start..).unwrap_or_default();
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = Header::from_bytes(*header);
        let limit = match header.kind {
            Header::DATA => MAX_DATA,
            _ => MAX_DOCUMENT,
        };
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length > limit {
            return Err(FrameError::TooLong {
                kind: header.kind,
                length,
                limit,
            });
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        self.start += HEADER_LEN + length;
        Ok(Some(Frame { header, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            length: u32::try_from(payload.len()).unwrap(),
            channel: 0x0102_0304,
            kind,
            stream: 2,
        };
        [&header.to_bytes(), payload].concat()
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_come() {
        let wire = [frame(3, b"hello"), frame(9, b""), frame(2, &[7; 100_000])].concat();
        for step in [1, 7, 10, 11, 4096, wire.len()] {
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(step) {
                decoder.buffer().extend_from_slice(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    assert_eq!(
                        (frame.header.channel, frame.header.stream),
                        (0x0102_0304, 2)
                    );
                    seen.push((frame.header.kind, frame.payload.len()));
                }
            }
            assert_eq!(seen, [(3, 5), (9, 0), (2, 100_000)], "step {step}");
            assert!(!decoder.is_partial());
        }
    }

    #[test]
    fn a_frame_that_announces_too_much_is_refused_before_it_comes() {
        for (kind, limit) in [(Header::DATA, MAX_DATA), (2, MAX_DOCUMENT)] {
            for (length, fits) in [(limit, true), (limit + 1, false)] {
                let header = Header {
                    length: u32::try_from(length).unwrap(),
                    channel: 1,
                    kind,
                    stream: 0,
                };
                let mut decoder = Decoder::new();
                decoder.buffer().extend_from_slice(&header.to_bytes());
                assert_eq!(decoder.next_frame().is_ok(), fits, "{kind} {length}");
                assert!(decoder.is_partial());
            }
        }
    }
}
