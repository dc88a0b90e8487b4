//! Frames: a JSON header and a body of raw bytes, each with its length in front.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::message::Message;

/// The most bytes in a header: a larger one is no message but garbage.
const MAX_HEADER: u32 = 64 * 1024 * 1024;
/// The most bytes in a body; what is larger goes in pieces.
pub(super) const MAX_BODY: usize = 256 * 1024;

/// One message, and the bytes that go with it.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) message: Message,
    pub(super) body: Vec<u8>,
}

impl From<Message> for Frame {
    fn from(message: Message) -> Self {
        Self {
            message,
            body: Vec::new(),
        }
    }
}

impl Frame {
    /// Reads the next frame; `None` where the stream ends between two.
    ///
    /// # Errors
    ///
    /// What the stream answers, an end in the middle, and what is no frame.
    pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let header_length = match stream.read_u32().await {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let body_length = stream.read_u32().await?;
        let header = read_exactly(stream, header_length, MAX_HEADER).await?;
        let max_body = u32::try_from(MAX_BODY).unwrap_or(u32::MAX);
        let body = read_exactly(stream, body_length, max_body).await?;
        Ok(Some(Self {
            message: serde_json::from_slice(&header)?,
            body,
        }))
    }

    /// Writes the frame whole.
    ///
    /// # Errors
    ///
    /// What the stream answers, and a frame that is too long to be read.
    pub(super) async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let header = serde_json::to_vec(&self.message)?;
        stream.write_u32(length(&header)?).await?;
        stream.write_u32(length(&self.body)?).await?;
        stream.write_all(&header).await?;
        stream.write_all(&self.body).await?;
        stream.flush().await
    }
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| too_long(bytes.len()))
}

async fn read_exactly(
    stream: &mut (impl AsyncRead + Unpin),
    length: u32,
    limit: u32,
) -> io::Result<Vec<u8>> {
    let wanted = length as usize;
    if length > limit {
        return Err(too_long(wanted));
    }
    // Grows with what arrives: a length alone makes nobody allocate.
    let mut bytes = Vec::new();
    let read = stream
        .take(u64::from(length))
        .read_to_end(&mut bytes)
        .await?;
    if read < wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn too_long(length: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a part of a frame has {length} bytes, which is more than fits"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_comes_out_as_it_went_in_and_an_end_between_two_is_no_error() {
        let (mut near, mut far) = tokio::io::duplex(7);
        let frame = Frame {
            message: Message::Release { object: 7 },
            body: vec![0, 255, 10],
        };
        let writer = tokio::spawn(async move {
            frame.write(&mut near).await.unwrap();
            frame.write(&mut near).await.unwrap();
        });
        for _ in 0..2 {
            let read = Frame::read(&mut far).await.unwrap().unwrap();
            assert!(matches!(read.message, Message::Release { object: 7 }));
            assert_eq!(read.body, [0, 255, 10]);
        }
        assert!(Frame::read(&mut far).await.unwrap().is_none());
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused_without_being_allocated() {
        for garbage in [
            &[0xff_u8; 8][..],
            &[0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, b'{', b'}'],
            &[0, 0, 0, 9, 0, 0, 0, 0, b'{'],
            &[0, 0, 0, 2, 0, 0, 0, 0, b'{', b'}'],
        ] {
            let mut bytes = garbage;
            assert!(Frame::read(&mut bytes).await.is_err(), "{garbage:?}");
        }
    }
}
