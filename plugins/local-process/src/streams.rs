//! Bytes between a command's pipes and the caller's streams.

use boxyard_plugin_api::prelude::*;
use rustix::{
    buffer::spare_capacity,
    io::{Errno, ioctl_fionread, read},
};
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::watch};

/// What is read at first, and after reads that filled it.
const MIN_READ: usize = 8 * 1024;
const MAX_READ: usize = 64 * 1024;

/// The output pipes that somebody still holds after the command's end.
#[derive(Debug)]
pub(crate) struct Left {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

impl Left {
    /// Takes, in the background, what a child that was left behind still writes, so that it
    /// can live on.
    pub(crate) fn keep_draining(self, context: &SandboxContext) {
        if self.stdout.is_some() || self.stderr.is_some() {
            context.spawn(self.discard());
        }
    }

    /// Takes what is still written, up to the end.
    pub(crate) async fn discard(self) {
        tokio::join!(discard(self.stdout), discard(self.stderr));
    }
}

/// Passes on the output of a command, apart, until it ends or `ended` turns true.
pub(crate) async fn pass_on(
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    io: (ByteSink, ByteSink),
    ended: watch::Receiver<bool>,
) -> Left {
    let (stdout, stderr) = tokio::join!(
        output(stdout, io.0, ended.clone()),
        output(stderr, io.1, ended)
    );
    Left { stdout, stderr }
}

/// Passes on what a command is to read, up to the end or until it reads no more.
pub(crate) async fn input(source: ByteSource, mut pipe: pipe::Sender) {
    match source.copy_to(&mut pipe).await {
        Ok(_) => {}
        // The command closed its standard input, as `head` does.
        Err(error) if error.code() == ErrorCode::CLOSED => {}
        Err(error) => tracing::warn!(%error, "standard input broke off; the command sees its end"),
    }
}

/// Returns the pipe when the command ended and somebody else still holds it.
async fn output(
    mut pipe: pipe::Receiver,
    sink: ByteSink,
    mut ended: watch::Receiver<bool>,
) -> Option<pipe::Receiver> {
    let mut size = MIN_READ;
    loop {
        let mut buffer = Vec::with_capacity(size);
        let read = tokio::select! {
            biased;
            // First, for a child left behind may write for ever. That the sender is gone
            // means the same.
            _ = ended.wait_for(|ended| *ended) => break,
            read = pipe.read_buf(&mut buffer) => read,
        };
        match read {
            Ok(0) | Err(_) => {
                finish(&sink).await;
                return None;
            }
            Ok(read) if read == size => size = MAX_READ,
            Ok(_) => {}
        }
        if sink.write(buffer).await.is_err() {
            // Nobody reads: closing the pipe tells the command so.
            return None;
        }
    }
    let held = drain(pipe, &sink).await?;
    finish(&sink).await;
    held
}

/// Passes on what is in the pipe now, all of which the command wrote before it ended, and no
/// more. Returns `None` where nobody reads it, else whether somebody still holds the pipe.
async fn drain(pipe: pipe::Receiver, sink: &ByteSink) -> Option<Option<pipe::Receiver>> {
    let mut left = usize::try_from(ioctl_fionread(&pipe).unwrap_or(0)).unwrap_or(0);
    while left > 0 {
        let mut buffer = Vec::with_capacity(left.min(MAX_READ));
        match read(&pipe, spare_capacity(&mut buffer)) {
            Ok(0) => return Some(None),
            Ok(read) => left = left.saturating_sub(read),
            Err(Errno::INTR) => continue,
            Err(_) => break,
        }
        sink.write(buffer).await.ok()?;
    }
    // What comes from here on is another's.
    match read(&pipe, &mut [0]) {
        Ok(0) => Some(None),
        _ => Some(Some(pipe)),
    }
}

async fn finish(sink: &ByteSink) {
    if let Err(error) = sink.finish().await {
        tracing::debug!(%error, "nobody waits for the end of the output");
    }
}

async fn discard(pipe: Option<pipe::Receiver>) {
    if let Some(mut pipe) = pipe {
        // A pipe that cannot be read any more is at its end too.
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
}
