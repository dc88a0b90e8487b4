//! The `boxyard` program, as people and programs use it.
//!
//! Covers: the JSON that programs rely on, exit codes, streams as they come, signals, clean-up
//! after SIGKILL, configuration, installing, new projects, verbs of others.

mod config;
mod ends;
mod new;
mod plugins;
mod remote;
mod run;
mod streams;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use boxyard_conformance::{Library, Yard, cargo};
use rustix::process::{Pid, test_kill_process};
use serde_json::Value;

const LOCAL_PROCESS: &str = "boxyard-plugin-local-process";
const HELLO: &str = "boxyard-plugin-hello";

/// A home with the shipped plugins in it.
struct Cli {
    yard: Yard,
}

impl Cli {
    fn new() -> Self {
        let cli = Self::empty();
        for plugin in [LOCAL_PROCESS, HELLO] {
            cli.yard
                .put(&format!("{plugin}.so"), &Library::package(plugin).unwrap())
                .unwrap();
        }
        cli
    }

    fn empty() -> Self {
        Self {
            yard: Yard::new().unwrap(),
        }
    }

    fn root(&self) -> &Path {
        self.yard.root()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo::program("boxyard").unwrap());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.root())
            .env("XDG_STATE_HOME", self.root().join("state"))
            .env("XDG_CACHE_HOME", self.root().join("cache"))
            .env("XDG_DATA_HOME", self.root().join("data"))
            .env("XDG_CONFIG_HOME", self.root().join("config"))
            .env("BOXYARD_PLUGIN_PATH", self.yard.plugins())
            .stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.output(arguments);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    fn spawn(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Running { child, stdout }
    }

    /// Starts a line for `sh -c` in a `local-process` sandbox.
    fn spawn_shell(&self, line: &str) -> Running {
        self.spawn(&["run", "-t", "local-process", "--shell", line])
    }

    /// Runs a command that does nothing, and sweeps whatever a dead run left, however young.
    fn sweep(&self) -> Output {
        let config = self.root().join("now.toml");
        fs::write(&config, "[timeouts]\nsweep_grace = '0s'\n").unwrap();
        let config = config.to_str().unwrap();
        let run = ["run", "-t", "local-process", "--", "true"];
        self.output(&[&["--config-file", config], &run[..]].concat())
    }

    /// Counts the sandbox directories that are there.
    fn sandboxes(&self) -> usize {
        let directory = self
            .root()
            .join("state/boxyard/plugins")
            .join(LOCAL_PROCESS)
            .join("sandboxes");
        fs::read_dir(directory).map_or(0, Iterator::count)
    }

    fn leases(&self) -> usize {
        fs::read_dir(self.root().join("state/boxyard/leases")).map_or(0, Iterator::count)
    }
}

/// A `boxyard` that runs; killed when the test ends before it does.
struct Running {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended where the test passed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

/// Waits until something is true, for as long as a busy machine may take.
fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_true() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "timed out: {what}"
        );
        std::thread::yield_now();
    }
}

fn is_alive(pid: Pid) -> bool {
    // A zombie can still be signalled, so look whether it has memory left.
    test_kill_process(pid).is_ok()
        && fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
            .is_ok_and(|stat| !stat.contains(") Z "))
}

/// Returns a pipe that is at its end.
fn empty_pipe() -> std::process::ChildStdout {
    Command::new("true")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
        .stdout
        .take()
        .unwrap()
}
