//! Many at once.

use std::time::{Duration, Instant};

use boxyard_plugin_api::{ByteSource, Command, Controls, ReadFile, WriteFile, pipe};
use futures_util::future::{join_all, try_join_all};

use crate::{
    case::{
        Needs::{Capability, SandboxType},
        cases,
    },
    subject::{Live, Subject, call, collect, driven, streams, within},
    verdict::{Finding, Outcome, check, check_eq},
};

/// How long a thing may take that must happen soon.
const SOON: Duration = Duration::from_secs(10);

cases! {
    "concurrency-sandboxes-side-by-side" "P1" Must SandboxType => sandboxes { leaves_nothing: true };
    "concurrency-ids-are-the-hosts" "P1" Must Capability("commands") => apart;
    "concurrency-stop-comes-twice-at-once" "P2" Must SandboxType => stops { leaves_nothing: true };
    "concurrency-cleanup-while-a-command-runs" "P2" Must Capability("commands") => cleanup { leaves_nothing: true };
    "concurrency-commands-do-not-hold-each-other-up" "P3" Must Capability("commands") => many_commands;
    "concurrency-a-long-command-holds-nothing-up" "P3" Must Capability("commands") => long_command;
    "concurrency-writes-of-one-file-are-whole" "P4" Must Capability("files") => writes;
}

async fn sandboxes(subject: Subject) -> Outcome {
    const SANDBOXES: usize = 6;
    let lives = try_join_all((0..SANDBOXES).map(|_| subject.sandbox())).await?;
    let ended = join_all(lives.iter().map(Live::close)).await;
    ended.into_iter().collect()
}

async fn apart(subject: Subject) -> Outcome {
    let lives = try_join_all((0..4).map(|_| subject.sandbox())).await?;
    let mark = async |number: usize, live: &Live| {
        let line = format!("[ -e mark ] && echo taken; echo {number} > mark");
        live.sh(&line).await
    };
    let marking = lives.iter().enumerate();
    let marking = marking.map(|(number, live)| mark(number, live));
    for said in try_join_all(marking).await? {
        check_eq!(said, "", "what was in a new sandbox's directory");
    }
    for (number, live) in lives.iter().enumerate() {
        check_eq!(
            live.sh("cat mark").await?,
            format!("{number}\n"),
            "what a sandbox of several wrote"
        );
        live.close().await?;
    }
    Ok(())
}

async fn stops(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (one, other) = tokio::join!(live.handle.stop(call()), live.handle.stop(call()));
    one?;
    other?;
    let (one, other) = tokio::join!(live.handle.cleanup(call()), live.handle.cleanup(call()));
    one?;
    other?;
    Ok(())
}

async fn cleanup(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (io, stdout, _stderr) = streams(ByteSource::empty(), Controls::none());
    let command = Command::shell("echo ready; sleep 300");
    let running = live.handle.execute_command(&command, io, call());
    let cleaning = async {
        within(SOON, "its first words", stdout.read(100)).await??;
        within(
            SOON,
            "cleanup while a command runs",
            live.handle.cleanup(call()),
        )
        .await??;
        Ok(())
    };
    let running = within(SOON * 2, "the end of the command", running);
    // How it ended is the plugin's to say; that it did is what counts.
    let _ = driven(running, cleaning).await??;
    Ok(())
}

async fn many_commands(subject: Subject) -> Outcome {
    const COMMANDS: usize = 24;
    let live = subject.sandbox().await?;
    let began = Instant::now();
    let all = (0..COMMANDS).map(|_| live.code(Command::shell("sleep 0.4").timeout(SOON)));
    for code in join_all(all).await {
        check_eq!(code, Ok(0), "the end of one of {COMMANDS} commands");
    }
    let took = began.elapsed();
    // One after the other they take as long as this; four at once a quarter of it.
    let limit = Duration::from_millis(400) * 24 / 4;
    check!(
        took < limit,
        "{COMMANDS} commands that sleep took {took:?}: they wait for each other"
    );
    live.close().await
}

async fn long_command(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (io, stdout, _stderr) = streams(ByteSource::empty(), Controls::none());
    let mut commands = Vec::new();
    for _ in 0..4 {
        let (io, stdout, stderr) = streams(ByteSource::empty(), Controls::none());
        let command = Command::shell("sleep 300");
        commands.push((
            live.handle.execute_command(&command, io, call()),
            stdout,
            stderr,
        ));
    }
    let command = Command::shell("echo ready; sleep 300");
    let running = live.handle.execute_command(&command, io, call());
    let others = async {
        within(SOON, "its first words", stdout.read(100)).await??;
        within(
            SOON,
            "information while commands run",
            live.handle.info(call()),
        )
        .await??;
        let said = within(SOON, "another command", live.sh("echo on")).await??;
        check_eq!(said, "on\n", "the output of another command");
        Ok(())
    };
    tokio::select! {
        found = others => found?,
        ended = running => return Err(Finding::Failed(format!("it ended by itself: {ended:?}"))),
    }
    drop(commands);
    live.close().await
}

async fn writes(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let content = |number: u8| vec![b'a' + number; 200_000];
    let request = WriteFile::new("file");
    let write = |number| {
        let from = ByteSource::from_bytes(content(number));
        live.handle.write_file(&request, from, call())
    };
    try_join_all((0..6).map(write)).await?;
    let request = ReadFile::new("file");
    let (sink, source) = pipe();
    let found = collect(live.handle.read_file(&request, sink, call()), source).await?;
    check!(
        (0..6).any(|number| found == content(number)),
        "a file of {} bytes that nobody wrote as it is",
        found.len()
    );
    live.close().await
}
