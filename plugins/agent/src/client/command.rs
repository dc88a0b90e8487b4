//! Running a command.

use std::{
    future::pending,
    pin::pin,
    time::{Duration, Instant},
};

use boxyard_plugin_api::{
    ByteSink, Call, Command, CommandExit, CommandIo, Control, Controls, Error, Result,
};
use tokio::time::sleep;

use super::{
    Client,
    request::{Input, Line, Output, Request},
    routes::Documents,
};

/// How long the caller may take to read the rest of a command that was cut off before the
/// answer goes ahead of it.
const FLUSH_GRACE: Duration = Duration::from_millis(250);

impl Client {
    /// Does [`Sandbox::execute_command`](boxyard_plugin_api::Sandbox::execute_command).
    ///
    /// When the caller gives up, or the future is dropped, the command is killed with all
    /// that it started.
    ///
    /// # Errors
    ///
    /// The command could not be tried, the caller gave up, or the agent is gone.
    pub async fn execute_command(
        &self,
        command: &Command,
        io: CommandIo,
        call: &Call,
    ) -> Result<CommandExit> {
        command.validate()?;
        let started = Instant::now();
        let deadline = command.timeout.and_then(|limit| started.checked_add(limit));
        let document = Documents::ExecuteCommand(command);
        let request = Request::open(&self.routes, &document)?;
        let (line, mut answer, [stdout, stderr], input) = request.split();
        let CommandIo {
            stdin,
            stdout: to_stdout,
            stderr: to_stderr,
            controls,
        } = io;
        let mut outputs = Box::pin(async {
            tokio::join!(output(stdout, to_stdout), output(stderr, to_stderr));
        });
        let has_input = command.stdin;
        let asides = async {
            let feeding = async {
                if has_input {
                    feed(&input, stdin).await;
                }
            };
            tokio::join!(feeding, obey(&line, controls));
            pending::<()>().await;
        };
        let mut passed = false;
        let exit = {
            let mut asides = pin!(asides);
            loop {
                tokio::select! {
                    biased;
                    () = call.cancelled() => break None,
                    () = &mut outputs, if !passed => passed = true,
                    exit = answer.wait::<CommandExit>() => break Some(exit?),
                    () = &mut asides => {}
                }
            }
        };
        let Some(mut exit) = exit else {
            line.cancel();
            answer.killed().await;
            return Err(Error::cancelled("the caller asked to stop"));
        };
        exit.duration_ms = exit.duration_ms.min(milliseconds(started.elapsed()));
        if passed {
            return Ok(exit);
        }
        let patience = match deadline {
            _ if exit.timed_out => FLUSH_GRACE,
            Some(deadline) => FLUSH_GRACE.max(deadline.saturating_duration_since(Instant::now())),
            None => Duration::MAX,
        };
        tokio::select! {
            biased;
            () = &mut outputs => return Ok(exit),
            () = call.cancelled() => {}
            () = sleep(patience) => {}
        }
        // The caller has its answer in time, and a reader that comes back gets the rest.
        tokio::spawn(async move {
            outputs.await;
            drop(line);
        });
        Ok(exit)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn output(from: Output, to: ByteSink) {
    // Whoever does not read any more, or whose agent is gone, hears of it by the answer.
    if from.pass(&to).await.is_ok() {
        let _ = to.finish().await;
    }
}

/// Gives the command its input; one that breaks off ends for it.
async fn feed(input: &Input, stdin: boxyard_plugin_api::ByteSource) {
    if input.feed(&stdin).await.is_err() {
        input.end();
    }
}

/// Passes signals and terminal sizes on.
async fn obey(line: &Line, mut controls: Controls) {
    while let Ok(Some(control)) = controls.next().await {
        match control {
            Control::Signal(number) => line.signal(number),
            Control::Resize(size) => line.resize(size.columns, size.rows),
            // Whatever else there is one day, the agent knows nothing of.
            _ => {}
        }
    }
}
