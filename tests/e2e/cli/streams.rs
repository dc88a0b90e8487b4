//! Streams as they come, in both directions.

use std::io::{BufReader, Read, Write};

use super::{Cli, Running, empty_pipe, wait_until};

#[test]
fn output_comes_as_it_is_printed_and_input_is_passed_on() {
    let cli = Cli::new();
    let mut run = cli.spawn_shell("echo first; read line; echo got $line; cat");
    assert_eq!(run.line(), "first");
    let mut stdin = run.child.stdin.take().unwrap();
    stdin.write_all(b"second\nthird\n").unwrap();
    assert_eq!(run.line(), "got second");
    assert_eq!(run.line(), "third");
    drop(stdin);
    assert!(run.child.wait().unwrap().success());
}

#[test]
fn binary_input_and_output_survive() {
    let cli = Cli::new();
    let mut run = cli.spawn(&["run", "-t", "local-process", "--", "cat"]);
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let mut stdin = run.child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let mut received = Vec::new();
    run.stdout.read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert!(
        received == bytes,
        "{} bytes of {} came back, or others",
        received.len(),
        bytes.len()
    );
}

#[test]
fn a_reader_that_has_enough_ends_the_command() {
    let cli = Cli::new();
    let mut run = cli.spawn(&["run", "-t", "local-process", "--", "yes"]);
    assert_eq!(run.line(), "y");
    let Running { stdout, .. } = &mut run;
    let replaced = std::mem::replace(stdout, BufReader::new(empty_pipe()));
    drop(replaced);
    run.child.wait().unwrap();
    wait_until("the sandbox is gone", || cli.sandboxes() == 0);
}

#[test]
fn head_and_friends_may_leave_early() {
    let cli = Cli::new();
    let mut list = cli.spawn(&["plugins", "list", "--json"]);
    drop(std::mem::replace(
        &mut list.stdout,
        BufReader::new(empty_pipe()),
    ));
    let mut errors = String::new();
    list.child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert!(
        !errors.contains("panicked") && !errors.contains("error"),
        "{errors}"
    );
}
