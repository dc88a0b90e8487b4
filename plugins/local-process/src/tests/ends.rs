//! How a command ends: by itself, by a signal, by its timeout, by its caller, by `stop`.

use std::time::Duration;

use boxyard_plugin_api::{CallController, Controls, prelude::*};

use super::harness::{call, eventually, io, is_there, lives, pid_in, sandbox, within};

/// Leaves the group and the session, and is nobody's child any more.
const DAEMON: &str =
    "setsid sh -c 'echo $$ > daemon; exec sleep 1000' </dev/null >/dev/null 2>&1 &";

#[tokio::test]
async fn a_signal_is_128_and_its_number() {
    let sandbox = sandbox(json!({})).await;
    for number in [9, 15, 6] {
        let output = sandbox
            .run(Command::shell(format!("kill -{number} $$")))
            .await;
        assert_eq!(output.exit.exit_code, 128 + number);
        assert_eq!(output.exit.signal, Some(number));
        assert!(!output.exit.timed_out && !output.exit.out_of_memory);
    }
    sandbox.close().await;
}

#[tokio::test]
async fn timeout_kills_the_group() {
    let sandbox = sandbox(json!({})).await;
    let script = "trap '' TERM INT HUP; sleep 1000 & echo $! > child; echo $$ > leader; \
                  echo so far; wait";
    let command = Command::shell(script).timeout(Duration::from_millis(500));
    let output = sandbox.run(command).await;
    assert_eq!(output.exit.exit_code, CommandExit::TIMED_OUT);
    assert!(output.exit.timed_out);
    assert!(output.exit.duration_ms >= 500, "{output:?}");
    assert_eq!(output.out(), "so far\n");
    let leader = pid_in(&sandbox.directory.join("leader")).await;
    assert!(!is_there(leader), "the leader was reaped");
    assert!(!lives(pid_in(&sandbox.directory.join("child")).await));
    sandbox.close().await;
}

#[tokio::test]
async fn timeout_kills_what_left_the_group_and_nothing_else() {
    let sandbox = sandbox(json!({"timeout": 0.8})).await;
    sandbox
        .run(Command::shell(
            "sleep 1000 >/dev/null 2>&1 & echo $! > other",
        ))
        .await;
    let other = pid_in(&sandbox.directory.join("other")).await;
    let output = sandbox
        .run(Command::shell(format!("{DAEMON} sleep 1000")))
        .await;
    assert!(output.exit.timed_out);
    let daemon = pid_in(&sandbox.directory.join("daemon")).await;
    assert!(!lives(daemon));
    assert!(lives(other), "another command's child is not touched");
    sandbox.close().await;
    assert!(!lives(other));
}

#[tokio::test]
async fn a_commands_own_timeout_goes_before_the_sandboxs() {
    let sandbox = sandbox(json!({"timeout": 0.05})).await;
    let command = Command::shell("sleep 0.3; echo done").timeout(Duration::from_secs(60));
    assert_eq!(sandbox.run(command).await.out(), "done\n");
    let output = sandbox.run(Command::shell("sleep 1000")).await;
    assert!(output.exit.timed_out);
    sandbox.close().await;
}

#[tokio::test]
async fn cancelling_kills_the_command_and_its_daemons() {
    let sandbox = sandbox(json!({})).await;
    let controller = CallController::new(0);
    let (io, _stdout, _stderr) = io(ByteSource::empty(), Controls::none());
    let command = Command::shell(format!("{DAEMON} echo $$ > leader; sleep 1000"));
    let run = sandbox
        .handle
        .execute_command(&command, io, controller.call());
    let cancel = async {
        let leader = pid_in(&sandbox.directory.join("leader")).await;
        let daemon = pid_in(&sandbox.directory.join("daemon")).await;
        controller.cancel();
        (leader, daemon)
    };
    let (exit, (leader, daemon)) = within(async { tokio::join!(run, cancel) }).await;
    assert_eq!(exit.unwrap_err().code(), ErrorCode::CANCELLED);
    assert!(!is_there(leader) && !lives(daemon));
    sandbox.close().await;
}

#[tokio::test]
async fn dropping_the_call_kills_the_command_and_leaves_no_zombie() {
    let sandbox = sandbox(json!({})).await;
    let (io, _stdout, _stderr) = io(ByteSource::empty(), Controls::none());
    let command = Command::shell(format!("{DAEMON} echo $$ > leader; sleep 1000"));
    let run = sandbox.handle.execute_command(&command, io, call());
    let (leader, daemon) = {
        let look = async {
            let leader = pid_in(&sandbox.directory.join("leader")).await;
            (leader, pid_in(&sandbox.directory.join("daemon")).await)
        };
        tokio::select! {
            pids = within(look) => pids,
            exit = run => panic!("it ended: {exit:?}"),
        }
    };
    eventually("the leader is reaped", || !is_there(leader)).await;
    eventually("the daemon is dead", || !lives(daemon)).await;
    sandbox.close().await;
}

#[tokio::test]
async fn stop_ends_running_commands_and_refuses_more() {
    let sandbox = sandbox(json!({})).await;
    let (io, stdout, _stderr) = io(ByteSource::empty(), Controls::none());
    let command = Command::shell("echo so far; echo $$ > leader; sleep 1000");
    let run = sandbox.handle.execute_command(&command, io, call());
    let stop = async {
        let leader = pid_in(&sandbox.directory.join("leader")).await;
        sandbox.handle.stop(call()).await.unwrap();
        leader
    };
    let (exit, leader) = within(async { tokio::join!(run, stop) }).await;
    let exit = exit.unwrap();
    assert_eq!((exit.exit_code, exit.signal), (137, Some(9)));
    assert!(!is_there(leader));
    assert_eq!(stdout.read_to_end(1000).await.unwrap(), b"so far\n");
    let error = sandbox.try_run(Command::shell("true")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FAILED_PRECONDITION);
    within(sandbox.handle.stop(call())).await.unwrap();
    sandbox.close().await;
}

#[tokio::test]
async fn stop_finds_a_setsid_child() {
    let sandbox = sandbox(json!({})).await;
    let script = format!("{DAEMON} sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > child");
    let output = sandbox.run(Command::shell(script)).await;
    assert_eq!(output.exit.exit_code, 0);
    let daemon = pid_in(&sandbox.directory.join("daemon")).await;
    let child = pid_in(&sandbox.directory.join("child")).await;
    assert!(lives(daemon) && lives(child), "they live until stop");
    let stats = sandbox.handle.stats(call()).await.unwrap();
    assert_eq!(stats.processes, Some(2));
    assert!(stats.memory_bytes.unwrap() > 0);
    within(sandbox.handle.stop(call())).await.unwrap();
    assert!(!lives(daemon) && !lives(child));
    sandbox.close().await;
}

#[tokio::test]
async fn every_command_is_reaped() {
    let sandbox = sandbox(json!({})).await;
    for _ in 0..5 {
        let output = sandbox.run(Command::shell("echo $$")).await;
        let pid: u32 = output.out().trim().parse().unwrap();
        assert!(!is_there(pid));
    }
    sandbox.close().await;
}
