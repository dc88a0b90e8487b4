//! Calls that nobody waits for any longer.

use std::time::Duration;

use boxyard_plugin_api::{
    ByteSource, CallController, Command, Controls, ErrorCode, MakeDirectory, WriteFile, pipe,
};

use crate::{
    case::{Needs::Capability, cases},
    subject::{Subject, call, driven, streams, within},
    verdict::{Outcome, check, check_eq},
};

const SOON: Duration = Duration::from_secs(10);

cases! {
    "cancel-before-a-command-begins" "E14" Must Capability("commands") => before_a_command;
    "cancel-a-command-spares-the-sandbox" "E14" Must Capability("commands") => spares_the_sandbox;
    "cancel-a-write-leaves-nothing" "F11" Must Capability("files") => write;
}

async fn before_a_command(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let controller = CallController::new(0);
    controller.cancel();
    let (io, _stdout, _stderr) = streams(ByteSource::empty(), Controls::none());
    let command = Command::shell("sleep 300");
    let running = live.handle.execute_command(&command, io, controller.call());
    let ended = within(
        SOON,
        "a command that was cancelled before it began",
        running,
    )
    .await?;
    check_eq!(
        ended
            .map(|exit| exit.exit_code)
            .map_err(|error| error.code()),
        Err(ErrorCode::CANCELLED),
        "what it answered"
    );
    live.close().await
}

async fn spares_the_sandbox(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    for _ in 0..5 {
        let controller = CallController::new(0);
        let (io, stdout, _stderr) = streams(ByteSource::empty(), Controls::none());
        let command = Command::shell("echo ready; sleep 300");
        let running = live.handle.execute_command(&command, io, controller.call());
        let cancelling = async {
            within(SOON, "its first words", stdout.read(100)).await??;
            controller.cancel();
            Ok(())
        };
        let running = within(SOON * 2, "the end of the command", running);
        // What it answers is looked at elsewhere.
        let _ = driven(running, cancelling).await??;
    }
    check_eq!(
        live.sh("echo on").await?,
        "on\n",
        "a command after five were cancelled"
    );
    live.close().await
}

async fn write(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let directory = MakeDirectory::new("directory");
    live.handle.make_directory(&directory, call()).await?;
    let controller = CallController::new(0);
    let (sink, source) = pipe();
    let request = WriteFile::new("directory/file");
    let writing = live.handle.write_file(&request, source, controller.call());
    let cancelling = async {
        sink.write(&b"the beginning"[..]).await?;
        controller.cancel();
        Ok(())
    };
    let writing = within(SOON, "a write that was cancelled", writing);
    let written = driven(writing, cancelling).await??;
    check_eq!(
        written.map_err(|error| error.code()),
        Err(ErrorCode::CANCELLED),
        "what it answered"
    );
    let after = live.handle.list("directory", call()).await?;
    let names: Vec<_> = after.into_iter().map(|entry| entry.name).collect();
    check!(names.is_empty(), "it left {names:?}");
    live.close().await
}
