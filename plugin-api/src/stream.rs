//! Bytes that flow: one source and one sink for input, output, archives and files.

use std::{fmt, future::Future, ops::Deref};

use abi_stable::std_types::RVec;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Mutex, mpsc},
};

use crate::{
    Error, Result,
    abi::{SinkObject, SourceObject},
};

/// The most bytes that [`pipe`] keeps in one piece; more are split.
const MAX_CHUNK: usize = 128 * 1024;
/// How many pieces [`pipe`] holds before a write waits.
const PIPE_CHUNKS: usize = 8;
/// What [`ByteSink::copy_from`] reads at first, and after full reads.
const COPY_MIN: usize = 8 * 1024;
const COPY_MAX: usize = 64 * 1024;

/// Bytes on their way, in the memory of whichever side made them.
#[derive(Clone, Default)]
pub struct Chunk {
    bytes: RVec<u8>,
    /// How many of `bytes` are taken off already.
    start: usize,
}

impl Chunk {
    /// Takes the first `at` bytes off; all of them where there are fewer.
    pub fn split_to(&mut self, at: usize) -> Self {
        match self.get(..at) {
            Some(head) if at < self.len() => {
                let head = Self::from(head);
                self.start += at;
                head
            }
            _ => std::mem::take(self),
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.into(),
            start: 0,
        }
    }
}

impl From<&[u8]> for Chunk {
    fn from(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            start: 0,
        }
    }
}

impl From<RVec<u8>> for Chunk {
    fn from(bytes: RVec<u8>) -> Self {
        Self { bytes, start: 0 }
    }
}

impl From<Chunk> for RVec<u8> {
    fn from(chunk: Chunk) -> Self {
        if chunk.start == 0 {
            chunk.bytes
        } else {
            (*chunk).into()
        }
    }
}

impl From<Chunk> for Vec<u8> {
    fn from(chunk: Chunk) -> Self {
        RVec::from(chunk).into_vec()
    }
}

/// Where a [`ByteSource`] gets its bytes.
///
/// The other side polls it from a thread of its own, where no runtime of this side is
/// entered: timers and sockets do not work in here. [`pipe`] brings bytes from a task that
/// has them.
pub trait Source: Send + Sync + 'static {
    /// Waits for 1 to `max` bytes; none at all means the end. Cancel-safe.
    fn read(&self, max: usize) -> impl Future<Output = Result<Chunk>> + Send;
}

/// Where a [`ByteSink`] puts its bytes; polled as a [`Source`] is.
pub trait Sink: Send + Sync + 'static {
    /// Waits until the bytes are taken.
    fn write(&self, chunk: Chunk) -> impl Future<Output = Result<()>> + Send;
    /// Marks the end.
    fn finish(&self) -> impl Future<Output = Result<()>> + Send;
}

/// Bytes to read, from this side or the other.
#[derive(Debug)]
pub struct ByteSource(SourceObject);

impl ByteSource {
    /// Makes a source of one's own.
    pub fn new(source: impl Source) -> Self {
        Self(SourceObject::from_source(source))
    }

    /// Makes a source that is at its end.
    pub fn empty() -> Self {
        Self::from_bytes(Vec::new())
    }

    /// Makes a source of bytes that are there already.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Bytes(Mutex::new(Chunk::from(bytes.into()))))
    }

    /// Waits for 1 to `max` bytes; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// What the other side answers, and [`ErrorCode::ABORTED`](crate::ErrorCode::ABORTED) for a
    /// stream that its writer left without finishing it.
    pub async fn read(&self, max: usize) -> Result<Option<Chunk>> {
        let chunk = self.0.read(max.max(1)).await?;
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// Reads to the end.
    ///
    /// # Errors
    ///
    /// As [`ByteSource::read`], and [`ErrorCode::RESOURCE_EXHAUSTED`](crate::ErrorCode::RESOURCE_EXHAUSTED)
    /// for more than `limit` bytes.
    pub async fn read_to_end(&self, limit: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.read(COPY_MAX).await? {
            if bytes.len() + chunk.len() > limit {
                return Err(Error::resource_exhausted(format_args!(
                    "the stream is longer than the {limit} bytes expected at the most"
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Writes everything to `writer`, then shuts it down; returns how many bytes it was.
    ///
    /// # Errors
    ///
    /// As [`ByteSource::read`], and what `writer` answers.
    pub async fn copy_to(&self, writer: &mut (impl AsyncWrite + Unpin)) -> Result<u64> {
        let mut total = 0;
        while let Some(chunk) = self.read(COPY_MAX).await? {
            writer.write_all(&chunk).await?;
            writer.flush().await?;
            total += chunk.len() as u64;
        }
        writer.shutdown().await?;
        Ok(total)
    }
}

impl From<SourceObject> for ByteSource {
    fn from(object: SourceObject) -> Self {
        Self(object)
    }
}

impl From<ByteSource> for SourceObject {
    fn from(source: ByteSource) -> Self {
        source.0
    }
}

/// A place for bytes, on this side or the other.
///
/// Dropping it without [`ByteSink::finish`] breaks the stream off: its reader sees an error,
/// not an end.
#[derive(Debug)]
pub struct ByteSink(SinkObject);

impl ByteSink {
    /// Makes a sink of one's own.
    pub fn new(sink: impl Sink) -> Self {
        Self(SinkObject::from_sink(sink))
    }

    /// Makes a sink that takes everything and keeps nothing.
    pub fn null() -> Self {
        Self::new(Null)
    }

    /// Waits until the bytes are taken.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::CLOSED`](crate::ErrorCode::CLOSED) when nobody reads any more, and what the other side answers.
    pub async fn write(&self, chunk: impl Into<Chunk>) -> Result<()> {
        let chunk = chunk.into();
        if chunk.is_empty() {
            return Ok(());
        }
        self.0.write(chunk).await
    }

    /// Says that the stream ends here.
    ///
    /// # Errors
    ///
    /// As [`ByteSink::write`].
    pub async fn finish(&self) -> Result<()> {
        self.0.finish().await
    }

    /// Writes everything that `reader` has; does not finish. Returns how many bytes it was.
    ///
    /// # Errors
    ///
    /// As [`ByteSink::write`], and what `reader` answers.
    pub async fn copy_from(&self, reader: &mut (impl AsyncRead + Unpin)) -> Result<u64> {
        let mut total = 0;
        let mut size = COPY_MIN;
        loop {
            let mut buffer = Vec::with_capacity(size);
            let read = reader.read_buf(&mut buffer).await?;
            if read == 0 {
                return Ok(total);
            }
            if read == size {
                size = COPY_MAX;
            }
            total += read as u64;
            self.write(buffer).await?;
        }
    }
}

impl From<SinkObject> for ByteSink {
    fn from(object: SinkObject) -> Self {
        Self(object)
    }
}

impl From<ByteSink> for SinkObject {
    fn from(sink: ByteSink) -> Self {
        sink.0
    }
}

/// Makes a pipe that holds at most 1 MiB: a write waits while it is full.
///
/// Works on any runtime and between two of them.
pub fn pipe() -> (ByteSink, ByteSource) {
    let (sender, receiver) = mpsc::channel(PIPE_CHUNKS);
    (
        ByteSink::new(PipeSink(sender)),
        ByteSource::new(PipeSource(Mutex::new(PipeState {
            receiver,
            rest: Chunk::default(),
            ended: false,
        }))),
    )
}

struct Bytes(Mutex<Chunk>);

impl Source for Bytes {
    async fn read(&self, max: usize) -> Result<Chunk> {
        Ok(self.0.lock().await.split_to(max))
    }
}

struct Null;

impl Sink for Null {
    async fn write(&self, _chunk: Chunk) -> Result<()> {
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// What goes through a pipe: bytes, or `None` for the end.
type Piece = Option<Chunk>;

struct PipeSink(mpsc::Sender<Piece>);

impl PipeSink {
    async fn send(&self, piece: Piece) -> Result<()> {
        self.0
            .send(piece)
            .await
            .map_err(|_| Error::closed("the reader of the stream is gone"))
    }
}

impl Sink for PipeSink {
    async fn write(&self, mut chunk: Chunk) -> Result<()> {
        while !chunk.is_empty() {
            let piece = chunk.split_to(MAX_CHUNK);
            self.send(Some(piece)).await?;
        }
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        self.send(None).await
    }
}

struct PipeSource(Mutex<PipeState>);

struct PipeState {
    receiver: mpsc::Receiver<Piece>,
    /// What a reader with a small `max` left of the last piece.
    rest: Chunk,
    ended: bool,
}

impl Source for PipeSource {
    async fn read(&self, max: usize) -> Result<Chunk> {
        let mut state = self.0.lock().await;
        if state.rest.is_empty() && !state.ended {
            match state.receiver.recv().await {
                Some(Some(piece)) => state.rest = piece,
                Some(None) => state.ended = true,
                None => {
                    return Err(Error::new(
                        crate::ErrorCode::ABORTED,
                        "the writer left the stream without finishing it",
                    ));
                }
            }
        }
        Ok(state.rest.split_to(max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[tokio::test]
    async fn a_pipe_keeps_bytes_in_order_and_ends_once_finished() {
        let (sink, source) = pipe();
        let written: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = written.clone();
        let writer = tokio::spawn(async move {
            sink.write(written).await.unwrap();
            sink.finish().await.unwrap();
        });
        assert_eq!(source.read(10).await.unwrap().unwrap().len(), 10);
        let rest = source.read_to_end(usize::MAX).await.unwrap();
        assert!(rest == expected[10..]);
        assert!(source.read(1).await.unwrap().is_none());
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_full_pipe_makes_the_writer_wait() {
        let (sink, source) = pipe();
        let mut written = 0;
        let chunk = vec![0_u8; MAX_CHUNK];
        while let Ok(done) = tokio::time::timeout(
            std::time::Duration::from_millis(50),
            sink.write(chunk.clone()),
        )
        .await
        {
            done.unwrap();
            written += MAX_CHUNK;
        }
        assert_eq!(written, PIPE_CHUNKS * MAX_CHUNK);
        source.read(usize::MAX).await.unwrap().unwrap();
        sink.write(chunk).await.unwrap();
    }

    #[tokio::test]
    async fn an_abandoned_stream_is_an_error_and_a_gone_reader_is_closed() {
        let (sink, source) = pipe();
        sink.write(vec![1]).await.unwrap();
        drop(sink);
        assert_eq!(source.read(9).await.unwrap().unwrap().len(), 1);
        assert_eq!(source.read(9).await.unwrap_err().code(), ErrorCode::ABORTED);

        let (sink, source) = pipe();
        drop(source);
        assert_eq!(
            sink.write(vec![1]).await.unwrap_err().code(),
            ErrorCode::CLOSED
        );
    }

    #[tokio::test]
    async fn copies_end_where_the_reader_ends() {
        let (sink, source) = pipe();
        let mut input: &[u8] = b"hello";
        assert_eq!(sink.copy_from(&mut input).await.unwrap(), 5);
        sink.finish().await.unwrap();
        let mut output = Vec::new();
        assert_eq!(source.copy_to(&mut output).await.unwrap(), 5);
        assert_eq!(output, b"hello");
        let long = ByteSource::from_bytes(vec![0; 11]);
        assert_eq!(
            long.read_to_end(10).await.unwrap_err().code(),
            ErrorCode::RESOURCE_EXHAUSTED
        );
    }
}
