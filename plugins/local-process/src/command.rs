//! One command, from its start to its end.

use std::{
    future::{Future, pending},
    os::unix::process::ExitStatusExt,
    pin::{Pin, pin},
    process::ExitStatus,
    time::{Duration, Instant},
};

use boxyard_plugin_api::{Control, Controls, prelude::*};
use rustix::process::Signal;
use tokio::{
    net::unix::pipe,
    sync::watch,
    time::{sleep, sleep_until, timeout},
};

use crate::{
    leader::{Group, Leader},
    processes::{self, Mark},
    program::Refusal,
    spawn::{Launch, Running},
    streams::{self, Left},
};

/// How long the caller may take to read the rest of a command that was cut off before the
/// answer goes ahead of it.
const FLUSH_GRACE: Duration = Duration::from_millis(250);
/// How long a process may take to end once SIGKILL was sent.
const DEATH_GRACE: Duration = Duration::from_secs(5);

/// What ends a command before its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    TimedOut,
    Cancelled,
    Stopped,
}

/// Runs a command to its end.
pub(crate) async fn run(
    launch: Launch<'_>,
    command: Command,
    limit: Option<Duration>,
    io: CommandIo,
    call: &Call,
) -> Result<CommandExit> {
    let started = Instant::now();
    let deadline = limit.and_then(|limit| started.checked_add(limit));
    let mut stopping = launch.alive.clone();
    let mut cut = pin!(async {
        tokio::select! {
            () = call.cancelled() => Cut::Cancelled,
            () = stopped(&mut stopping) => Cut::Stopped,
            () = passed(deadline) => Cut::TimedOut,
        }
    });
    let running = tokio::select! {
        biased;
        running = launch.start(&command) => running?,
        cut = &mut cut => return never_started(cut, io, started).await,
    };
    let Running {
        mut leader,
        stdin,
        stdout,
        stderr,
    } = match running {
        Ok(running) => running,
        Err(refusal) => return refused(refusal, io, started).await,
    };

    let (ended, seen) = watch::channel(false);
    let mut output = Box::pin(streams::pass_on(
        stdout,
        stderr,
        (io.stdout, io.stderr),
        seen,
    ));
    let mut left = None;
    let end = {
        let mut feed = pin!(feed(
            stdin.map(|pipe| (io.stdin, pipe)),
            io.controls,
            leader.group()
        ));
        let mut feeding = true;
        loop {
            tokio::select! {
                biased;
                status = leader.wait() => break Ok(status?),
                cut = &mut cut => break Err(cut),
                done = &mut output, if left.is_none() => left = Some(done),
                () = &mut feed, if feeding => feeding = false,
            }
        }
    };
    let mut exit = match end {
        Ok(status) => exit_of(status),
        Err(cut) => cut_off(&mut leader, cut, launch.mark).await?,
    };
    exit.duration_ms = milliseconds_since(started);

    ended.send_replace(true);
    match left {
        Some(left) => left.keep_draining(launch.context),
        None => {
            let cut = async {
                match end {
                    Ok(_) => cut.await,
                    Err(cut) => cut,
                }
            };
            flush(output, cut, launch.context).await?;
        }
    }
    Ok(exit)
}

/// Answers for a program that cannot be run, as a shell does.
async fn refused(refusal: Refusal, io: CommandIo, started: Instant) -> Result<CommandExit> {
    // Where nobody reads, the exit code says it all.
    let _ = io.stderr.write(refusal.message.into_bytes()).await;
    let _ = tokio::join!(io.stdout.finish(), io.stderr.finish());
    let mut exit = CommandExit::exited(refusal.exit_code);
    exit.duration_ms = milliseconds_since(started);
    Ok(exit)
}

/// Answers for a command that was cut off while it waited for its limits.
async fn never_started(cut: Cut, io: CommandIo, started: Instant) -> Result<CommandExit> {
    match cut {
        Cut::Cancelled => return Err(cancelled()),
        Cut::Stopped => return Err(Error::failed_precondition("the sandbox is stopped")),
        Cut::TimedOut => {}
    }
    // Where nobody reads, the exit code says it all.
    let _ = tokio::join!(io.stdout.finish(), io.stderr.finish());
    let mut exit = CommandExit::timed_out();
    exit.duration_ms = milliseconds_since(started);
    Ok(exit)
}

/// Gives a command its input and its signals; ends when there can be no more of either.
async fn feed(stdin: Option<(ByteSource, pipe::Sender)>, controls: Controls, group: Group) {
    let input = async {
        if let Some((source, pipe)) = stdin {
            streams::input(source, pipe).await;
        }
    };
    tokio::join!(input, obey(controls, group));
}

async fn obey(mut controls: Controls, group: Group) {
    loop {
        match controls.next().await {
            Ok(Some(Control::Signal(number))) => match Signal::from_named_raw(number) {
                Some(signal) => group.signal(signal),
                None => tracing::warn!(number, "no signal that can be passed on"),
            },
            // There is no terminal.
            Ok(Some(Control::Resize(_))) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "the controls broke off");
                return;
            }
        }
    }
}

/// Kills a command with all its descendants, and says how it ended.
async fn cut_off(leader: &mut Leader, cut: Cut, mark: Mark) -> Result<CommandExit> {
    leader.group().signal(Signal::KILL);
    let Ok(status) = timeout(DEATH_GRACE, leader.wait()).await else {
        return Err(Error::unavailable(format_args!(
            "process {} is still there {} seconds after SIGKILL",
            leader.pid(),
            DEATH_GRACE.as_secs()
        )));
    };
    let status = status?;
    if cut != Cut::Stopped {
        // `stop` looks for what left the group itself, for all commands at once.
        if let Err(error) = processes::kill(mark).await {
            tracing::warn!(%error, "the command left processes behind");
        }
    }
    match cut {
        Cut::TimedOut => Ok(CommandExit::timed_out()),
        Cut::Stopped => Ok(exit_of(status)),
        Cut::Cancelled => Err(cancelled()),
    }
}

/// Waits until the caller took all output of a command that ended. One who was cut off, or
/// would be by now, has a moment to read on; then the rest waits for it, in bounded memory
/// and for as long as it holds the streams.
async fn flush(
    mut output: Pin<Box<impl Future<Output = Left> + Send + 'static>>,
    cut: impl Future<Output = Cut>,
    context: &SandboxContext,
) -> Result<()> {
    let late = async {
        match cut.await {
            Cut::Cancelled => return Err(cancelled()),
            Cut::TimedOut | Cut::Stopped => sleep(FLUSH_GRACE).await,
        }
        Ok(())
    };
    tokio::select! {
        biased;
        left = &mut output => left.keep_draining(context),
        late = late => {
            late?;
            context.spawn(async move { output.await.discard().await });
        }
    }
    Ok(())
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A sandbox that is gone has stopped.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

fn exit_of(status: ExitStatus) -> CommandExit {
    match (status.code(), status.signal()) {
        (Some(code), _) => CommandExit::exited(code),
        (None, Some(signal)) => CommandExit::signalled(signal),
        // A process that was waited for without options ended one way or the other.
        (None, None) => CommandExit::exited(-1),
    }
}

fn cancelled() -> Error {
    Error::cancelled("the command was cancelled and killed")
}

fn milliseconds_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
