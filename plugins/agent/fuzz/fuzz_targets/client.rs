//! An agent that says anything: no call panics, and every call ends when the agent is gone.
//!
//! The first byte says how large the pieces are that the client reads, the second whether its
//! calls are given up in the middle. After a greeting as it should be, the rest is what the
//! agent says; then it is gone.

#![no_main]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use boxyard_agent::{
    Client,
    protocol::{FromAgent, Hello, Setup, VERSION},
};
use boxyard_plugin_api::{
    ByteSink, ByteSource, CallController, Command, CommandIo, Controls, ReadFile, TerminalSize,
    WriteFile, pipe,
};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

fuzz_target!(|input: &[u8]| {
    let [step, manner, said @ ..] = input else {
        return;
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let agent = Agent::new(said, usize::from(*step).max(1));
    runtime.block_on(talk(agent, manner % 2 == 1));
});

async fn talk(agent: Agent, gives_up: bool) {
    let (client, work) = Client::connect(agent, Setup::default()).await.unwrap();
    let controller = CallController::new(0);
    let call = controller.call();
    let calls = async {
        let (to, from) = pipe();
        let io = |stdin| CommandIo {
            stdin,
            stdout: ByteSink::null(),
            stderr: ByteSink::null(),
            controls: Controls::none(),
        };
        let mut typed = Command::shell("x");
        typed.stdin = true;
        typed.tty = Some(TerminalSize {
            columns: 80,
            rows: 24,
        });
        let plain = Command::shell("x");
        let read = ReadFile::new("x");
        let write = WriteFile::new("x");
        let content = || ByteSource::from_bytes(vec![0; 300_000]);
        let reading = async move { while let Ok(Some(_)) = from.read(1 << 16).await {} };
        // In this order, which is that of their channels.
        let _ = tokio::join!(
            client.execute_command(&plain, io(ByteSource::empty()), &call),
            client.execute_command(&typed, io(content()), &call),
            client.read_file(&read, to, &call),
            client.write_file(&write, content(), &call),
            client.list("x", &call),
            client.stat("x", &call),
            client.stats(&call),
            reading,
        );
    };
    // Giving up waits for the agent to say that it killed what ran: here it is soon gone.
    let giving_up = async {
        if gives_up {
            tokio::task::yield_now().await;
            controller.cancel();
        }
    };
    tokio::join!(calls, giving_up, work);
    let _ = client.closed().await;
    assert!(client.stat("x", &call).await.is_err());
}

/// What the agent says, a piece at a time; what it hears is nothing to it.
struct Agent {
    said: Vec<u8>,
    at: usize,
    step: usize,
    /// Whether the next read waits first, so that the calls see each piece by itself.
    waits: bool,
}

impl Agent {
    fn new(said: &[u8], step: usize) -> Self {
        let mut greeting = Vec::new();
        let hello = Hello {
            protocol: VERSION,
            pid: 1,
            secret: None,
        };
        FromAgent::Hello(hello).encode(&mut greeting).unwrap();
        greeting.extend_from_slice(said);
        Self {
            said: greeting,
            at: 0,
            step,
            waits: false,
        }
    }
}

impl AsyncRead for Agent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.waits = !self.waits;
        if self.waits {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = self.step.min(buffer.remaining());
        let end = self.said.len().min(self.at + count);
        buffer.put_slice(&self.said[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Agent {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
