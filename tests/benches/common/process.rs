//! Processes that are measured: the floor of a command, which is spawning it on the host by a program
//! that does nothing else, and what a process takes.

use std::{
    env, fs,
    io::{BufRead, BufReader, Lines, Read, Write},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

/// The benchmark runs itself with this argument to be that program.
pub(crate) const ARGUMENT: &str = "--spawn";

/// The program, while it runs.
pub(crate) struct Spawner {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Spawner {
    pub(crate) fn new(at_once: usize) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args([ARGUMENT, &at_once.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, answers }
    }

    /// Has it spawn its shells once; returns how long that took.
    pub(crate) fn spawn(&mut self) -> Duration {
        let ask = self.child.stdin.as_mut().unwrap();
        ask.write_all(b"\n").unwrap();
        let answer = self.answers.next().unwrap().unwrap();
        Duration::from_nanos(answer.parse().unwrap())
    }

    /// Ends it, by the end of its input.
    pub(crate) fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

/// Is the program: each line that it reads has it spawn as many shells at once, drain them and
/// wait for them; it answers with the nanoseconds.
pub(crate) fn serve(at_once: &str) {
    let at_once: usize = at_once.parse().unwrap();
    for _ in std::io::stdin().lock().lines() {
        let began = Instant::now();
        let spawn = |_| {
            // By `posix_spawn`: nothing here asks for more than that can do.
            Command::new("/bin/sh")
                .args(["-c", "echo hi"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let children: Vec<Child> = (0..at_once).map(spawn).collect();
        for mut child in children {
            let mut text = Vec::new();
            child.stdout.take().unwrap().read_to_end(&mut text).unwrap();
            assert_eq!(text, b"hi\n");
            assert!(child.wait().unwrap().success());
        }
        println!("{}", began.elapsed().as_nanos());
    }
}

/// Returns a number of a process's status, in KiB.
pub(crate) fn status(pid: &str, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name));
    let number = line.unwrap().split_ascii_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}
