//! This program's own streams, joined to a command's.

use std::{
    io::{self, Read},
    sync::Arc,
    thread,
};

use boxyard_plugin_api::{ByteSource, Command, CommandExit, CommandIo, Controls, Result, pipe};
use tokio::{io::AsyncWriteExt, runtime::Handle};

use crate::sandbox::Sandbox;

/// Runs a command whose output goes to this program's as it comes.
pub(super) async fn run(sandbox: &Arc<Sandbox>, command: &Command) -> Result<CommandExit> {
    let (stdout_sink, stdout) = pipe();
    let (stderr_sink, stderr) = pipe();
    let io = CommandIo {
        stdin: stdin(),
        stdout: stdout_sink,
        stderr: stderr_sink,
        controls: Controls::none(),
    };
    let (exit, (), ()) = tokio::join!(
        sandbox.execute_command(command, io),
        show(stdout, tokio::io::stdout()),
        show(stderr, tokio::io::stderr()),
    );
    exit
}

/// Copies a stream; once nobody reads ours, the command's is closed, and it gets its SIGPIPE.
async fn show(source: ByteSource, mut writer: impl tokio::io::AsyncWrite + Unpin) {
    while let Ok(Some(chunk)) = source.read(64 * 1024).await {
        if writer.write_all(&chunk).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

/// Returns this program's standard input.
///
/// A thread of its own reads it: a read that never returns keeps nothing from ending.
pub(super) fn stdin() -> ByteSource {
    let (sink, source) = pipe();
    let runtime = Handle::current();
    let pump = move || {
        let mut input = io::stdin().lock();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = match input.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A stream that breaks off is no end: the command must not take it for one.
                Err(_) => return,
            };
            let Some(bytes) = buffer.get(..read) else {
                return;
            };
            let sent = if bytes.is_empty() {
                runtime.block_on(sink.finish())
            } else {
                runtime.block_on(sink.write(bytes))
            };
            if bytes.is_empty() || sent.is_err() {
                return;
            }
        }
    };
    // Without a thread there is no input: dropping the sink breaks the stream off.
    let _ = thread::Builder::new().name("stdin".into()).spawn(pump);
    source
}
