//! A command of the sandbox's own, which runs beside those that it is asked to run.

use std::{sync::Arc, time::Duration};

use boxyard_agent::Client;
use boxyard_plugin_api::{CallController, Control, Controls, pipe, prelude::*};
use tokio::{sync::watch, time::timeout};

use crate::journal::Journal;

/// One that runs, or ran.
#[derive(Debug)]
pub(super) struct OwnCommand {
    controls: ByteSink,
    ended: watch::Receiver<bool>,
}

impl OwnCommand {
    /// Runs it, and keeps what it prints.
    pub(super) fn run(
        context: SandboxContext,
        client: Arc<Client>,
        journal: Arc<Journal>,
        argv: Vec<String>,
    ) -> Self {
        let (controls, received) = pipe();
        let (ending, ended) = watch::channel(false);
        context.clone().spawn(async move {
            let command = Command::argv(argv);
            let io = CommandIo {
                stdin: ByteSource::empty(),
                stdout: ByteSink::new(journal.writer()),
                stderr: ByteSink::new(journal.writer()),
                controls: Controls::from_source(received),
            };
            let call = CallController::new(0).call();
            let ended = client.execute_command(&command, io, &call).await;
            journal.end();
            let data = match ended {
                Ok(exit) => json!({ "exit_code": exit.exit_code, "signal": exit.signal }),
                Err(error) => json!({ "error": error.message() }),
            };
            context.event("own-command-ended", data);
            ending.send_replace(true);
        });
        Self { controls, ended }
    }

    /// Asks it to end, and gives it time.
    pub(super) async fn end(&self, patience: Duration) {
        const TERM: i32 = 15;
        if patience.is_zero() {
            return;
        }
        // One that ended hears nothing.
        let _ = self.controls.write(Control::Signal(TERM).to_line()).await;
        let mut ended = self.ended.clone();
        // What does not end in time is killed with the rest.
        let _ = timeout(patience, ended.wait_for(|ended| *ended)).await;
    }
}
