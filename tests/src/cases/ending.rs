//! How commands end that do not end by themselves: timeouts, cancelled calls, stops.

use std::time::{Duration, Instant};

use boxyard_plugin_api::{ByteSource, CallController, Command, CommandExit, Controls, ErrorCode};

use super::exec::{COMMANDS, SOON};
use crate::{
    case::cases,
    subject::{Live, Subject, call, driven, streams, within},
    verdict::{Outcome, check, check_eq},
};

cases! {
    "exec-timeout-is-124" "E7" Must COMMANDS => timeout_is_124;
    "exec-timeout-keeps-the-output" "E7" Must COMMANDS => timeout_keeps_output;
    "exec-timeout-kills-what-is-deaf" "E7" Must COMMANDS => timeout_kills_deaf;
    "exec-timeout-kills-descendants" "E8" Must COMMANDS => timeout_kills_descendants { leaves_nothing: true };
    "exec-timeout-of-one-spares-others" "E8" Must COMMANDS => timeout_spares_others;
    "exec-background-child-does-not-hold-the-call" "E9" Must COMMANDS => background_child;
    "exec-stop-ends-what-was-left-behind" "E9" Must COMMANDS => stop_ends_left_overs { leaves_nothing: true };
    "exec-stop-ends-what-runs" "E9" Must COMMANDS => stop_ends_running { leaves_nothing: true };
    "exec-cancel-kills" "E14" Must COMMANDS => cancel_kills { leaves_nothing: true };
    "exec-drop-kills" "E14" Must COMMANDS => drop_kills { leaves_nothing: true };
}

async fn timeout_is_124(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let began = Instant::now();
    let command = Command::shell("sleep 300").timeout(Duration::from_millis(200));
    let exit = live.run(command).await?.exit;
    check_eq!(
        (exit.exit_code, exit.timed_out),
        (CommandExit::TIMED_OUT, true),
        "how it ended"
    );
    let took = began.elapsed();
    check!(
        took >= Duration::from_millis(200),
        "it was killed {took:?} after its start, too early"
    );
    check!(took < SOON, "it was killed {took:?} after its start");
    live.close().await
}

async fn timeout_keeps_output(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let line = "echo so far; echo and here >&2; sleep 300";
    let output = live
        .run(Command::shell(line).timeout(Duration::from_millis(400)))
        .await?;
    let found = (output.out(), output.err());
    let expected = ("so far\n".to_owned(), "and here\n".to_owned());
    check_eq!(found, expected, "the output until the timeout");
    live.close().await
}

async fn timeout_kills_deaf(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let line = "trap '' TERM INT HUP QUIT; while :; do sleep 1; done";
    let command = Command::shell(line).timeout(Duration::from_millis(300));
    let ran = within(
        Duration::from_secs(4),
        "killing what ignores signals",
        live.run(command),
    );
    check!(
        ran.await??.exit.timed_out,
        "it is not said to have timed out"
    );
    live.close().await
}

/// A line that writes its pids into files: a child, and a daemon that left the session.
const FAMILY: &str = "sleep 1000 & echo $! > child; \
    (setsid sh -c 'echo $$ > daemon; exec sleep 1000' </dev/null >/dev/null 2>&1 &); \
    while [ ! -s daemon ]; do sleep 0.01; done; echo ready; ";

/// Expects what [`FAMILY`] started to be dead, looked at from within the sandbox.
async fn family_is_dead(live: &Live) -> Outcome {
    for name in ["child", "daemon"] {
        // A zombie is dead: it waits for nobody but its parent.
        let look = format!(
            "pid=$(cat {name}); state=$(cut -d ' ' -f 3 /proc/$pid/stat 2>/dev/null); \
             case \"$state\" in ''|Z|X) echo dead;; *) echo lives;; esac"
        );
        let found = live.sh(&look).await?;
        check_eq!(
            found.trim(),
            "dead",
            "the {name} of a command that was killed"
        );
    }
    Ok(())
}

async fn timeout_kills_descendants(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let command = Command::shell(format!("{FAMILY} wait")).timeout(Duration::from_millis(800));
    let output = live.run(command).await?;
    check!(output.exit.timed_out, "it is not said to have timed out");
    family_is_dead(&live).await?;
    live.close().await
}

async fn timeout_spares_others(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let long = live.run(Command::shell("sleep 0.8; echo fine"));
    let short = live.run(Command::shell("sleep 300").timeout(Duration::from_millis(200)));
    let (long, short) = tokio::join!(long, short);
    check!(
        short?.exit.timed_out,
        "the other is not said to have timed out"
    );
    let long = long?;
    check_eq!(
        (long.out(), long.exit.exit_code),
        ("fine\n".to_owned(), 0),
        "the spared one"
    );
    live.close().await
}

async fn background_child(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let running = live.run(Command::shell("sleep 300 & echo mine"));
    let output = within(
        SOON,
        "the answer of a command that left a child behind",
        running,
    )
    .await??;
    check_eq!(output.out(), "mine\n", "its own output");
    live.close().await
}

async fn stop_ends_left_overs(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.sh(&format!("{FAMILY} exit 0")).await?;
    live.close().await
}

async fn stop_ends_running(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (io, stdout, _stderr) = streams(ByteSource::empty(), Controls::none());
    let command = Command::shell(format!("{FAMILY} wait"));
    let running = live.handle.execute_command(&command, io, call());
    let stopping = async {
        within(SOON, "its first words", stdout.read(100)).await??;
        within(SOON, "stop while a command runs", live.handle.stop(call())).await??;
        Ok(())
    };
    let running = within(SOON * 2, "the end of the command", running);
    let ended = driven(running, stopping).await?;
    // How it ended is the plugin's to say; that it did is what counts.
    let _ = ended?;
    live.handle.cleanup(call()).await?;
    Ok(())
}

async fn cancel_kills(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let controller = CallController::new(0);
    let (io, stdout, _stderr) = streams(ByteSource::empty(), Controls::none());
    let command = Command::shell(format!("{FAMILY} wait"));
    let running = live.handle.execute_command(&command, io, controller.call());
    let cancelling = async {
        within(SOON, "its first words", stdout.read(100)).await??;
        controller.cancel();
        Ok(())
    };
    let running = within(SOON * 2, "the end of the command", running);
    let ended = driven(running, cancelling).await?;
    let code = ended?
        .map(|exit| exit.exit_code)
        .map_err(|error| error.code());
    check_eq!(
        code,
        Err(ErrorCode::CANCELLED),
        "what a cancelled command answered"
    );
    family_is_dead(&live).await?;
    live.close().await
}

async fn drop_kills(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (io, stdout, _stderr) = streams(ByteSource::empty(), Controls::none());
    let command = Command::shell(format!("{FAMILY} wait"));
    let running = live.handle.execute_command(&command, io, call());
    tokio::select! {
        first = within(SOON, "its first words", stdout.read(100)) => drop(first??),
        ended = running => check!(false, "it ended by itself: {ended:?}"),
    }
    let began = Instant::now();
    loop {
        match family_is_dead(&live).await {
            Ok(()) => break,
            Err(finding) if began.elapsed() > SOON => return Err(finding),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    live.close().await
}
