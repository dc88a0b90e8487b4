//! Bytes flow both ways, while the command runs, and in whatever volume.

use boxyard_host::{ByteSink, ByteSource, Command, CommandIo, Controls, ErrorCode, pipe};
use serde_json::json;
use tokio::task::JoinSet;

use crate::world::{At, World, at_both, run};

at_both! {
    fifty_commands_run_at_once_in_one_sandbox,
    output_arrives_while_the_command_runs,
    input_reaches_the_command_piece_by_piece,
    input_that_is_there_already_reaches_the_command_whole,
    output_that_is_too_long_keeps_its_head_and_its_tail_and_says_so,
    a_reader_that_leaves_is_told_to_the_writer,
    a_writer_that_leaves_is_told_to_the_reader,
}

fn byte_at(at: usize) -> u8 {
    at.to_le_bytes()[0]
}

async fn fifty_commands_run_at_once_in_one_sandbox(at: At) {
    let world = World::new(at).await;
    let sandbox = world
        .sandbox(json!({ "wait_in": ["execute_command"] }))
        .await;
    let mut commands = JoinSet::new();
    for number in 0..50 {
        let sandbox = sandbox.clone();
        commands.spawn(async move {
            let word = number.to_string();
            let result = run(&sandbox, &["echo", &word]).await.unwrap();
            assert_eq!(result.stdout_text(), word);
        });
    }
    let all = || world.count("execute_command") == 50;
    crate::world::eventually("all run at once", all).await;
    world.open_gate("execute_command");
    while let Some(done) = commands.join_next().await {
        done.unwrap();
    }
    assert_eq!(sandbox.status(), boxyard_host::Status::Running);
}

async fn output_arrives_while_the_command_runs(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let (stdout, output) = pipe();
    let io = CommandIo {
        stdin: ByteSource::empty(),
        stdout,
        stderr: ByteSink::null(),
        controls: Controls::none(),
    };
    let command = Command::argv(["wait", "go"]);
    let reads = async {
        let first = output.read(1000).await.unwrap().unwrap();
        assert_eq!(&*first, b"waiting\n");
        world.open_gate("go");
        assert_eq!(output.read_to_end(1000).await.unwrap(), b"done\n");
    };
    let (exit, ()) = tokio::join!(sandbox.execute_command(&command, io), reads);
    assert_eq!(exit.unwrap().exit_code, 0);
}

async fn input_reaches_the_command_piece_by_piece(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let ((input, stdin), (stdout, output)) = (pipe(), pipe());
    let io = CommandIo {
        stdin,
        stdout,
        stderr: ByteSink::null(),
        controls: Controls::none(),
    };
    let mut command = Command::argv(["cat"]);
    command.stdin = true;
    let talks = async {
        for word in ["one", "two", "three"] {
            input.write(word.as_bytes()).await.unwrap();
            let echo = output.read(1000).await.unwrap().unwrap();
            assert_eq!(&*echo, word.as_bytes());
        }
        input.finish().await.unwrap();
        assert!(output.read(1).await.unwrap().is_none());
    };
    let (exit, ()) = tokio::join!(sandbox.execute_command(&command, io), talks);
    assert_eq!(exit.unwrap().exit_code, 0);
}

async fn input_that_is_there_already_reaches_the_command_whole(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let input: Vec<u8> = (0..300_000).map(byte_at).collect();
    let result = sandbox
        .run(Command::argv(["cat"]), Some(input.clone()))
        .await
        .unwrap();
    assert!(result.stdout == input);
    assert!(!result.truncated);
}

async fn output_that_is_too_long_keeps_its_head_and_its_tail_and_says_so(at: At) {
    let world = World::with(at, |config| config.max_output_bytes = 100_000).await;
    let sandbox = world.sandbox(json!({})).await;
    let result = run(&sandbox, &["print", "3000001"]).await.unwrap();
    assert!(result.truncated);
    let note = b"\n[boxyard: 2900001 bytes cut]\n";
    assert_eq!(result.stdout.len(), 100_000 + note.len());
    let (head, rest) = result.stdout.split_at(50_000);
    let (cut, tail) = rest.split_at(note.len());
    assert!(head.iter().copied().eq((0..50_000).map(byte_at)));
    assert_eq!(cut, note);
    assert!(tail.iter().copied().eq((2_950_001..3_000_001).map(byte_at)));

    let result = run(&sandbox, &["print", "100000"]).await.unwrap();
    assert!(!result.truncated);
    assert_eq!(result.stdout.len(), 100_000);
}

async fn a_reader_that_leaves_is_told_to_the_writer(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let (stdout, output) = pipe();
    drop(output);
    let io = CommandIo {
        stdin: ByteSource::empty(),
        stdout,
        stderr: ByteSink::null(),
        controls: Controls::none(),
    };
    let exit = sandbox
        .execute_command(&Command::argv(["print", "10000000"]), io)
        .await;
    assert_eq!(exit.unwrap_err().code(), ErrorCode::CLOSED);
}

async fn a_writer_that_leaves_is_told_to_the_reader(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let (input, stdin) = pipe();
    input.write(b"half a ".as_slice()).await.unwrap();
    drop(input);
    let mut command = Command::argv(["cat"]);
    command.stdin = true;
    let result = sandbox.run_with(command, stdin, Controls::none()).await;
    assert_eq!(result.unwrap_err().code(), ErrorCode::ABORTED);
}
