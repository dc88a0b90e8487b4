//! The agent of a sandbox, and what becomes of the sandbox without it.

use boxyard_plugin_api::{Control, Controls, ExecutionContext, TerminalSize, pipe, prelude::*};
use rustix::process::{Pid, Signal, kill_process};

use super::harness::{TestSandbox, call, eventually, io, lives, pid_in, sandbox, within};

async fn agent_pid(sandbox: &TestSandbox) -> u32 {
    let context = sandbox.handle.execution_context(call()).await.unwrap();
    let Some(ExecutionContext::Process { pid }) = context else {
        panic!("{context:?}");
    };
    pid
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_sandbox_whose_agent_is_killed_says_so_and_nothing_of_it_is_left() {
    let sandbox = sandbox(json!({})).await;
    let script = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > child";
    sandbox.run(Command::shell(script)).await;
    let child = pid_in(&sandbox.directory.join("child")).await;
    let (io, _stdout, _stderr) = io(ByteSource::empty(), Controls::none());
    let command = Command::shell("echo $$ > leader; sleep 1000");
    let run = sandbox.handle.execute_command(&command, io, call());
    let killing = async {
        let leader = pid_in(&sandbox.directory.join("leader")).await;
        kill(agent_pid(&sandbox).await);
        leader
    };
    let (ended, leader) = within(async { tokio::join!(run, killing) }).await;
    assert_eq!(ended.unwrap_err().code(), ErrorCode::UNAVAILABLE);
    eventually("the host hears of it", || sandbox.exited().is_some()).await;
    let reason = sandbox.exited().unwrap();
    assert!(reason.contains("guest agent was killed"), "{reason}");
    assert!(!lives(leader) && !lives(child));
    let error = sandbox.try_run(Command::shell("true")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UNAVAILABLE, "{error}");
    sandbox.close().await;
}

#[tokio::test]
async fn a_sandbox_that_is_stopped_did_not_end_by_itself() {
    let sandbox = sandbox(json!({})).await;
    let agent = agent_pid(&sandbox).await;
    within(sandbox.handle.stop(call())).await.unwrap();
    assert!(!lives(agent));
    assert_eq!(sandbox.exited(), None);
    sandbox.close().await;
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_killed_by_stop() {
    let sandbox = sandbox(json!({})).await;
    let script = "sleep 1000 >/dev/null 2>&1 & echo $! > child";
    sandbox.run(Command::shell(script)).await;
    let child = pid_in(&sandbox.directory.join("child")).await;
    let agent = agent_pid(&sandbox).await;
    let pid = Pid::from_raw(i32::try_from(agent).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // Longer than anything else here: it is given its time first.
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        sandbox.handle.stop(call()).await
    });
    stopped.await.unwrap().unwrap();
    assert!(!lives(agent) && !lives(child));
    sandbox.close().await;
}

#[tokio::test]
async fn what_is_left_behind_is_shown() {
    let sandbox = sandbox(json!({})).await;
    let info = sandbox.handle.info(call()).await.unwrap();
    assert!(!info.contains_key("left_behind"), "{info:?}");
    let script = "exec sleep 1000 >/dev/null 2>&1 &";
    sandbox.run(Command::shell(script)).await;
    let info = sandbox.handle.info(call()).await.unwrap();
    let left = info["left_behind"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{info:?}");
    assert!(left[0]["pid"].as_u64().is_some_and(|pid| pid > 1));
    sandbox.close().await;
}

#[tokio::test]
async fn a_terminal_has_a_size_and_passes_keys_on() {
    let sandbox = sandbox(json!({})).await;
    let (keys, stdin) = pipe();
    let (controls, source) = pipe();
    let (io, stdout, _stderr) = io(stdin, Controls::from_source(source));
    let mut command = Command::shell(
        "stty -echo; stty size; echo ready; read line; echo got $line; stty size; tty >&2",
    );
    command.stdin = true;
    command.tty = Some(TerminalSize {
        columns: 90,
        rows: 30,
    });
    let run = sandbox.handle.execute_command(&command, io, call());
    let drive = async {
        let mut text = String::new();
        let mut until = async |what: &str| {
            while !text.contains(what) {
                let piece = stdout.read(4096).await.unwrap().unwrap();
                text.push_str(std::str::from_utf8(&piece).unwrap());
            }
        };
        until("30 90\r\nready\r\n").await;
        let size = TerminalSize {
            columns: 100,
            rows: 40,
        };
        controls
            .write(Control::Resize(size).to_line())
            .await
            .unwrap();
        keys.write(&b"one\n"[..]).await.unwrap();
        until("got one\r\n").await;
        until("/dev/pts/").await;
        assert!(text.contains("40 100\r\n"), "{text:?}");
    };
    let (exit, ()) = within(async { tokio::join!(run, drive) }).await;
    assert_eq!(exit.unwrap().exit_code, 0);
    sandbox.close().await;
}
