//! Bytes both ways through the boundary, and the controls of a running command.

use std::sync::atomic::{AtomicUsize, Ordering};

use boxyard_plugin_api::{
    ByteSink, ByteSource, Command, CommandExit, CommandIo, Control, Controls, ErrorCode,
    TerminalSize, pipe,
};
use serde_json::json;

use super::run;
use crate::{
    host::{self, plugin},
    methods::bounded,
};

const TOTAL: usize = 10 * 1024 * 1024;
const PIECE: usize = 100_000;
/// What may be under way: two pipes of 1 MiB, the chunk in the plugin's hands, and the pieces
/// that the writer and the reader have in theirs.
const UNDER_WAY: usize = 2 * 1024 * 1024 + 128 * 1024 + 2 * PIECE;

fn byte_at(position: usize) -> u8 {
    // 251 is prime: a piece that is lost or swapped shows.
    u8::try_from(position % 251).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_mebibytes_go_through_a_command_and_a_slow_reader_holds_the_writer_back() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    let (stdin, stdin_source) = pipe();
    let (stdout_sink, stdout) = pipe();
    let io = CommandIo {
        stdin: stdin_source,
        stdout: stdout_sink,
        stderr: ByteSink::null(),
        controls: Controls::none(),
    };
    let mut cat = Command::argv(["cat"]);
    cat.stdin = true;
    let exit = sandbox.execute_command(&cat, io, host::call());

    let written = AtomicUsize::new(0);
    let half_full = tokio::sync::Notify::new();
    let write = async {
        for start in (0..TOTAL).step_by(PIECE) {
            let end = TOTAL.min(start + PIECE);
            let piece: Vec<u8> = (start..end).map(byte_at).collect();
            stdin.write(piece).await.unwrap();
            // More than the first pipe takes: the plugin is passing bytes on.
            if written.fetch_add(end - start, Ordering::SeqCst) > 1024 * 1024 {
                half_full.notify_one();
            }
        }
        stdin.finish().await.unwrap();
    };
    let read = async {
        half_full.notified().await;
        let mut total = 0;
        while let Some(chunk) = stdout.read(30_000).await.unwrap() {
            assert!(chunk.len() <= 30_000);
            for byte in chunk.iter() {
                assert_eq!(*byte, byte_at(total));
                total += 1;
            }
            let under_way = written.load(Ordering::SeqCst).saturating_sub(total);
            assert!(under_way <= UNDER_WAY, "{under_way} at {total}");
            tokio::task::yield_now().await;
        }
        total
    };
    let all = async { tokio::join!(exit, write, read) };
    let (exit, (), total) = bounded("cat", all).await;
    assert_eq!(exit, Ok(CommandExit::exited(0)));
    assert_eq!(total, TOTAL);
}

#[tokio::test]
async fn a_command_obeys_each_control_as_it_comes() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    let (controls, controls_source) = pipe();
    let (stdout_sink, stdout) = pipe();
    let io = CommandIo {
        stdin: ByteSource::empty(),
        stdout: stdout_sink,
        stderr: ByteSink::null(),
        controls: Controls::from_source(controls_source),
    };
    let exit = sandbox.execute_command(&Command::argv(["obey"]), io, host::call());
    let resize = Control::Resize(TerminalSize {
        columns: 132,
        rows: 43,
    });
    let talk = async {
        for control in [Control::Signal(2), resize, Control::Signal(15)] {
            controls.write(control.to_line()).await.unwrap();
            // The answer comes while the command goes on.
            let line = stdout.read(1000).await.unwrap().unwrap();
            assert_eq!(&*line, format!("{control:?}\n").as_bytes());
        }
        controls.finish().await.unwrap();
        assert!(stdout.read(1).await.unwrap().is_none());
    };
    let (exit, ()) = bounded("obey", async { tokio::join!(exit, talk) }).await;
    assert_eq!(exit, Ok(CommandExit::exited(0)));
}

#[tokio::test]
async fn a_writer_learns_that_its_reader_is_gone() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    let (stdout_sink, stdout) = pipe();
    let io = CommandIo {
        stdout: stdout_sink,
        ..super::silent()
    };
    let exit = sandbox.execute_command(&Command::argv(["yes"]), io, host::call());
    stdout.read(10).await.unwrap().unwrap();
    drop(stdout);
    let error = bounded("yes", exit).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::CLOSED);
}

#[tokio::test]
async fn a_stream_that_is_not_finished_is_an_error_and_not_an_end() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    let (stdout_sink, stdout) = pipe();
    let io = CommandIo {
        stdout: stdout_sink,
        ..super::silent()
    };
    let exit = sandbox.execute_command(&Command::argv(["abandon"]), io, host::call());
    let exit = bounded("abandon", exit).await;
    assert_eq!(exit, Ok(CommandExit::exited(0)));
    assert_eq!(&*stdout.read(10).await.unwrap().unwrap(), b"half");
    let broken = bounded("read", stdout.read(10)).await.unwrap_err();
    assert_eq!(broken.code(), ErrorCode::ABORTED);
}

#[tokio::test]
async fn a_source_that_fails_in_the_host_fails_the_read_in_the_plugin() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    let (stdin, source) = pipe();
    // Nobody finishes it.
    drop(stdin);
    let io = CommandIo {
        stdin: source,
        ..super::silent()
    };
    let exit = sandbox.execute_command(&Command::argv(["cat"]), io, host::call());
    let error = bounded("cat", exit).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ABORTED);
    // And the sandbox is none the worse.
    run(&sandbox, &["cat"]).await.unwrap();
}
