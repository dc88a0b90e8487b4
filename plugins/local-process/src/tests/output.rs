//! What a command reads and writes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use boxyard_plugin_api::{Chunk, Controls, Sink, pipe, prelude::*};
use tokio::sync::Semaphore;

use super::harness::{call, eventually, io, lives, pid_in, sandbox, within};

#[tokio::test]
async fn stdin_ends() {
    let sandbox = sandbox(json!({})).await;
    let mut cat = Command::argv(["cat"]);
    // Nothing to read is the end at once.
    assert_eq!(sandbox.run(cat.clone()).await.out(), "");
    let output = sandbox
        .run(Command::argv(["readlink", "/proc/self/fd/0"]))
        .await;
    assert_eq!(output.out(), "/dev/null\n");
    cat.stdin = true;
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let output = sandbox
        .run_with(cat, ByteSource::from_bytes(bytes.clone()), Controls::none())
        .await
        .unwrap();
    assert!(output.stdout == bytes);
    // A command that does not read all of it ends all the same.
    let mut head = Command::argv(["head", "-c", "3"]);
    head.stdin = true;
    let output = sandbox
        .run_with(head, ByteSource::from_bytes(bytes), Controls::none())
        .await
        .unwrap();
    assert_eq!((output.stdout.len(), output.exit.exit_code), (3, 0));
    sandbox.close().await;
}

#[tokio::test]
async fn stdin_is_streamed_and_output_answers_it() {
    let sandbox = sandbox(json!({})).await;
    let (sink, source) = pipe();
    let (io, stdout, _stderr) = io(source, Controls::none());
    let mut cat = Command::argv(["cat"]);
    cat.stdin = true;
    let run = sandbox.handle.execute_command(&cat, io, call());
    let talk = async {
        for word in ["one", "two", "three"] {
            sink.write(word.as_bytes()).await.unwrap();
            let answer = stdout.read(100).await.unwrap().unwrap();
            assert_eq!(&*answer, word.as_bytes());
        }
        sink.finish().await.unwrap();
        assert!(stdout.read(100).await.unwrap().is_none());
    };
    let (exit, ()) = within(async { tokio::join!(run, talk) }).await;
    assert_eq!(exit.unwrap().exit_code, 0);
    sandbox.close().await;
}

#[tokio::test]
async fn output_is_binary_safe_and_apart() {
    let sandbox = sandbox(json!({})).await;
    let script = r"printf '\000\377\r\n\033'; printf '\376\000' >&2";
    let output = sandbox.run(Command::shell(script)).await;
    assert_eq!(output.stdout, [0, 0xff, b'\r', b'\n', 0x1b]);
    assert_eq!(output.stderr, [0xfe, 0]);
    sandbox.close().await;
}

#[tokio::test]
async fn ten_thousand_lines_keep_their_order() {
    let sandbox = sandbox(json!({})).await;
    let script = "i=0; while [ $i -lt 10000 ]; do echo $i; echo $i >&2; i=$((i+1)); done";
    let output = sandbox.run(Command::shell(script)).await;
    let expected: String = (0..10_000).map(|n| format!("{n}\n")).collect();
    assert!(output.out() == expected && output.err() == expected);
    sandbox.close().await;
}

#[tokio::test]
async fn a_lot_of_output_arrives_whole() {
    let sandbox = sandbox(json!({})).await;
    let output = sandbox
        .run(Command::shell("head -c 20000000 /dev/zero; echo end"))
        .await;
    assert_eq!(output.stdout.len(), 20_000_004);
    assert!(output.stdout.ends_with(b"end\n"));
    sandbox.close().await;
}

#[tokio::test]
async fn a_background_child_does_not_hold_the_call() {
    let sandbox = sandbox(json!({})).await;
    // It goes on writing to the pipe that it holds: what it writes must neither hold the call
    // nor kill it, and nothing of the command's own may be lost.
    let script = "(i=0; while :; do echo noise; i=$((i+1)); \
                  [ $i = 100000 ] && : > far; done) & echo $! > child; \
                  head -c 60000 /dev/zero >&2; echo mine >&2";
    let output = sandbox.run(Command::shell(script)).await;
    assert_eq!(output.exit.exit_code, 0);
    assert_eq!(output.stderr.len(), 60_005);
    assert!(output.stderr.ends_with(b"mine\n"));
    let child = pid_in(&sandbox.directory.join("child")).await;
    eventually("the child writes on", || {
        sandbox.directory.join("far").exists()
    })
    .await;
    assert!(lives(child));
    within(sandbox.handle.stop(call())).await.unwrap();
    assert!(!lives(child));
    sandbox.close().await;
}

#[tokio::test]
async fn a_reader_that_left_closes_the_pipe() {
    let sandbox = sandbox(json!({})).await;
    let (io, stdout, stderr) = io(ByteSource::empty(), Controls::none());
    drop(stdout);
    let command = Command::argv(["cat", "/dev/zero"]);
    let exit = within(sandbox.handle.execute_command(&command, io, call()))
        .await
        .unwrap();
    assert_eq!((exit.exit_code, exit.signal), (141, Some(13)));
    assert_eq!(stderr.read_to_end(1000).await.unwrap(), b"");
    sandbox.close().await;
}

#[tokio::test]
async fn a_reader_that_stops_makes_the_command_wait_and_the_timeout_still_fires() {
    let sandbox = sandbox(json!({})).await;
    let (io, stdout, _stderr) = io(ByteSource::empty(), Controls::none());
    let script = "i=0; while :; do head -c 100000 /dev/zero; i=$((i+1)); echo $i > written; done";
    let command = Command::shell(script).timeout(Duration::from_millis(800));
    let exit = within(sandbox.handle.execute_command(&command, io, call()))
        .await
        .unwrap();
    assert_eq!((exit.exit_code, exit.timed_out), (124, true));
    let written = std::fs::read_to_string(sandbox.directory.join("written")).unwrap();
    let written: usize = written.trim().parse().unwrap();
    assert!(written < 20, "it wrote {written} pieces that nobody read");
    // A reader that comes back gets everything that was written, and the end.
    let rest = within(stdout.read_to_end(usize::MAX)).await.unwrap();
    assert!(
        rest.len() >= written * 100_000,
        "{} of {written}",
        rest.len()
    );
    sandbox.close().await;
}

/// Takes nothing before it is told to.
struct Shut {
    gate: Arc<Semaphore>,
    /// What it took, and whether that was all.
    taken: Arc<Mutex<(Vec<u8>, bool)>>,
}

impl Sink for Shut {
    async fn write(&self, chunk: Chunk) -> Result<()> {
        let _open = self.gate.acquire().await.unwrap();
        self.taken.lock().unwrap().0.extend_from_slice(&chunk);
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        let _open = self.gate.acquire().await.unwrap();
        self.taken.lock().unwrap().1 = true;
        Ok(())
    }
}

#[tokio::test]
async fn a_command_that_ended_keeps_its_exit_code_though_its_reader_is_slow() {
    let sandbox = sandbox(json!({"timeout": 0.5})).await;
    let gate = Arc::new(Semaphore::new(0));
    let taken = Arc::<Mutex<(Vec<u8>, bool)>>::default();
    let (mut io, _stdout, _stderr) = io(ByteSource::empty(), Controls::none());
    io.stdout = ByteSink::new(Shut {
        gate: gate.clone(),
        taken: taken.clone(),
    });
    let command = Command::shell("head -c 30000 /dev/zero; exit 5");
    let exit = within(sandbox.handle.execute_command(&command, io, call()))
        .await
        .unwrap();
    assert_eq!((exit.exit_code, exit.timed_out), (5, false));
    gate.add_permits(1);
    eventually("the end of the output", || taken.lock().unwrap().1).await;
    assert_eq!(taken.lock().unwrap().0.len(), 30_000);
    sandbox.close().await;
}

#[tokio::test]
async fn text_that_is_cut_anywhere_arrives_whole() {
    let sandbox = sandbox(json!({})).await;
    // Three bytes a character, so that no piece of any size ends where one does.
    let script = "i=0; while [ $i -lt 60000 ]; do printf '\\342\\202\\254'; i=$((i+1)); done";
    let output = sandbox.run(Command::shell(script)).await;
    assert!(output.out() == "\u{20ac}".repeat(60_000));
    sandbox.close().await;
}

#[tokio::test]
async fn ten_gigabytes_of_output_take_no_memory() {
    const TOTAL: u64 = 10 << 30;
    let sandbox = sandbox(json!({})).await;
    let (io, stdout, _stderr) = io(ByteSource::empty(), Controls::none());
    let command = Command::argv(["head", "-c", &TOTAL.to_string(), "/dev/zero"]);
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_ascii_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap()
    };
    let before = resident();
    let run = sandbox.handle.execute_command(&command, io, call());
    let count = async {
        let (mut count, mut most) = (0, before);
        while let Some(bytes) = stdout.read(1 << 20).await.unwrap() {
            let so_far = count + bytes.len() as u64;
            if so_far >> 28 != count >> 28 {
                most = most.max(resident());
            }
            count = so_far;
        }
        (count, most)
    };
    let all = async { tokio::join!(run, count) };
    let (exit, (count, most)) = tokio::time::timeout(Duration::from_secs(300), all)
        .await
        .unwrap();
    assert_eq!((exit.unwrap().exit_code, count), (0, TOTAL));
    // Other tests run beside this one.
    assert!(
        most - before < 256 * 1024,
        "it grew by {} KiB",
        most - before
    );
    sandbox.close().await;
}
