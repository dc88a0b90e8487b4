//! The work of a connection: what comes is given to the requests, what they say is sent.

use std::sync::Arc;

use boxyard_plugin_api::{Error, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::routes::Routes;
use crate::protocol::{Decoder, FromAgent};

/// What is read at a time while the agent says little: a sandbox that is idle holds no more.
pub(super) const FIRST_READ: usize = 4 * 1024;
/// How many bytes are put together into one write.
const WRITE: usize = 128 * 1024;

/// Works until the agent is gone, or says what no agent says; every request ends with it.
pub(super) async fn run<S>(
    stream: S,
    decoder: Decoder,
    routes: Arc<Routes>,
    outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    // Also where the work is dropped: nobody may wait for what does not come.
    let _closing = CloseOnDrop(&routes);
    let (reader, writer) = tokio::io::split(stream);
    let reason = tokio::select! {
        biased;
        reason = receive(reader, decoder, &routes) => reason,
        reason = send(writer, outgoing) => reason,
        reason = routes.closed() => Err(reason),
    };
    if let Err(reason) = reason {
        routes.close(reason);
    }
}

struct CloseOnDrop<'a>(&'a Routes);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close(super::routes::gone());
    }
}

async fn receive(
    mut reader: impl AsyncRead + Unpin,
    mut decoder: Decoder,
    routes: &Routes,
) -> Result<()> {
    let mut size = FIRST_READ;
    loop {
        while let Some(frame) = decoder.next_frame().map_err(broken)? {
            routes.take(FromAgent::parse(frame).map_err(broken)?)?;
        }
        let buffer = decoder.buffer();
        buffer.reserve(size);
        match reader.read_buf(buffer).await? {
            0 if decoder.is_partial() => {
                return Err(Error::unavailable(
                    "the agent's connection ended in the middle of a frame",
                ));
            }
            0 => return Err(Error::unavailable("the agent is gone")),
            read if read >= FIRST_READ => size = Decoder::READ,
            _ => {}
        }
    }
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(
        boxyard_plugin_api::ErrorCode::ABORTED,
        format_args!("the agent broke the protocol: {error}"),
    )
}

async fn send(
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
) -> Result<()> {
    while let Some(mut bytes) = outgoing.recv().await {
        while bytes.len() < WRITE {
            match outgoing.try_recv() {
                Ok(more) => bytes.extend_from_slice(&more),
                Err(_) => break,
            }
        }
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
    Ok(())
}
