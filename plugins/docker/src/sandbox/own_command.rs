//! A command of the sandbox's own, which runs beside those that it is asked to run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use boxyard_agent::Client;
use boxyard_plugin_api::{CallController, Control, Controls, pipe, prelude::*};
use tokio::{sync::watch, time::timeout};

use crate::log::Log;

/// One that runs, or ran.
#[derive(Debug)]
pub(super) struct OwnCommand {
    controls: ByteSink,
    ended: watch::Receiver<bool>,
    /// Whether it was asked to end, and so has had the time that it gets.
    asked: AtomicBool,
}

impl OwnCommand {
    /// Runs it, and keeps what it prints.
    pub(super) fn run(
        context: SandboxContext,
        client: Arc<Client>,
        log: Arc<Log>,
        argv: Vec<String>,
    ) -> Self {
        let (controls, received) = pipe();
        let (ending, ended) = watch::channel(false);
        context.clone().spawn(async move {
            let command = Command::argv(argv);
            let io = CommandIo {
                stdin: ByteSource::empty(),
                stdout: ByteSink::new(log.writer()),
                stderr: ByteSink::new(log.writer()),
                controls: Controls::from_source(received),
            };
            let call = CallController::new(0).call();
            let ended = client.execute_command(&command, io, &call).await;
            log.end();
            let data = match ended {
                Ok(exit) => json!({ "exit_code": exit.exit_code, "signal": exit.signal }),
                Err(error) => json!({ "error": error.message() }),
            };
            context.event("own-command-ended", data);
            ending.send_replace(true);
        });
        Self {
            controls,
            ended,
            asked: AtomicBool::new(false),
        }
    }

    /// Asks it to end and gives it time, once: what does not end then is to be killed with the
    /// rest.
    ///
    /// It never gets more time than the call has, whose caller wants the sandbox ended by then;
    /// `reserve` of that is what ending the rest takes.
    pub(super) async fn end(&self, patience: Duration, reserve: Duration, call: &Call) {
        const TERM: i32 = 15;
        let patience = match call.remaining() {
            Some(remaining) => patience.min(remaining.saturating_sub(reserve)),
            None => patience,
        };
        if patience.is_zero() || self.asked.swap(true, Ordering::Relaxed) {
            return;
        }
        let ending = async {
            // One that ended hears nothing.
            let _ = self.controls.write(Control::Signal(TERM).to_line()).await;
            let mut ended = self.ended.clone();
            // Its sender is gone only when it ended.
            let _ = ended.wait_for(|ended| *ended).await;
        };
        tokio::select! {
            // Killed with the rest where it takes longer.
            _ = timeout(patience, ending) => {}
            () = call.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::time::{self, advance};

    use super::*;

    const RESERVE: Duration = Duration::from_secs(2);
    const PATIENCE: Duration = Duration::from_secs(1000);

    /// Makes one that never ends by itself; what is returned beside it keeps it from ending.
    fn stubborn() -> (OwnCommand, impl Sized) {
        let (controls, received) = pipe();
        let (ending, ended) = watch::channel(false);
        let own = OwnCommand {
            controls,
            ended,
            asked: AtomicBool::new(false),
        };
        (own, (ending, received))
    }

    #[tokio::test(start_paused = true)]
    async fn it_gets_no_more_time_than_the_call_has() {
        let (own, _running) = stubborn();
        let deadline = Instant::now() + Duration::from_secs(12);
        let call = CallController::new(0).deadline(deadline).call();
        let began = time::Instant::now();
        own.end(PATIENCE, RESERVE, &call).await;
        let took = began.elapsed();
        assert!(took <= Duration::from_secs(10), "{took:?}");
        assert!(took > Duration::from_secs(5), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_waited_for_when_the_caller_gives_up() {
        let (own, _running) = stubborn();
        let controller = CallController::new(0);
        let call = controller.call();
        let began = time::Instant::now();
        let giving_up = async {
            advance(Duration::from_secs(1)).await;
            controller.cancel();
        };
        tokio::join!(own.end(PATIENCE, RESERVE, &call), giving_up);
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn its_time_is_given_once_even_where_nobody_waited_for_all_of_it() {
        let (own, _running) = stubborn();
        let call = CallController::new(0).call();
        let dropped = timeout(Duration::from_secs(1), own.end(PATIENCE, RESERVE, &call)).await;
        dropped.unwrap_err();
        let began = time::Instant::now();
        own.end(PATIENCE, RESERVE, &call).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
