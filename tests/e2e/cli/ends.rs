//! Ends that nobody wished for: signals, a SIGKILL, and what the next run makes of it.

use std::{
    io::Write,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Cli, code, is_alive, wait_until};

#[test]
fn ctrl_c_ends_the_command_and_deletes_the_sandbox() {
    let cli = Cli::new();
    for (signal, expected) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut run = cli.spawn_shell("echo $$; exec sleep 600");
        let command = Pid::from_raw(run.line().parse().unwrap()).unwrap();
        assert!(is_alive(command));
        assert_eq!(cli.sandboxes(), 1);
        kill_process(run.pid(), signal).unwrap();
        assert_eq!(run.child.wait().unwrap().code(), Some(expected));
        assert!(!is_alive(command));
        assert_eq!((cli.sandboxes(), cli.leases()), (0, 0));
    }
}

#[test]
fn what_a_killed_run_leaves_behind_goes_with_the_next() {
    let cli = Cli::new();
    let mut run = cli.spawn_shell("echo $$; trap '' HUP TERM; while :; do setsid sleep 600; done");
    let command = Pid::from_raw(run.line().parse().unwrap()).unwrap();
    kill_process(run.pid(), Signal::KILL).unwrap();
    assert_eq!(run.child.wait().unwrap().signal(), Some(9));
    // Its guest agent hears of it by the end of their line, and kills everything.
    let killed = Instant::now();
    wait_until("what it ran is gone", || !is_alive(command));
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    assert_eq!((cli.sandboxes(), cli.leases()), (1, 1));
    let output = cli.sweep();
    assert_eq!(code(&output), 0, "{output:?}");
    assert_eq!((cli.sandboxes(), cli.leases()), (0, 0));
}

#[test]
fn a_living_run_is_left_alone_by_the_sweep_of_another() {
    let cli = Cli::new();
    let mut run = cli.spawn_shell("echo up; read line; echo $line");
    assert_eq!(run.line(), "up");
    assert_eq!(code(&cli.sweep()), 0);
    assert_eq!(cli.sandboxes(), 1);
    run.child
        .stdin
        .take()
        .unwrap()
        .write_all(b"still here\n")
        .unwrap();
    assert_eq!(run.line(), "still here");
}
