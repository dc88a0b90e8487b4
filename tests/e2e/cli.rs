//! The `boxyard` program, as people and programs use it.
//!
//! Covers: the JSON that programs rely on, exit codes, streams as they come, signals, clean-up
//! after SIGKILL, configuration, installing, verbs of others.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use boxyard_conformance::{Library, Yard, cargo};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use crate::loading::init::with_witness;

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

#[test]
fn plugins_list_has_the_promised_keys() {
    let cli = Cli::new();
    fs::write(cli.yard.plugins().join("text.so"), "no library").unwrap();
    let list = cli.json(&["plugins", "list", "--json"]);
    let plugins = list["plugins"].as_array().unwrap();
    assert_eq!(plugins.len(), 3);
    for plugin in plugins {
        let plugin = plugin.as_object().unwrap();
        for key in [
            "path",
            "name",
            "version",
            "api_version",
            "status",
            "reason",
            "sandbox_types",
            "tools",
        ] {
            assert!(plugin.contains_key(key), "{key} is missing: {plugin:?}");
        }
    }
    let by_name = |name: &str| {
        plugins
            .iter()
            .find(|plugin| plugin["name"] == name)
            .unwrap()
    };
    assert_eq!(
        by_name(LOCAL_PROCESS)["sandbox_types"],
        json!(["local-process"])
    );
    assert_eq!(by_name(LOCAL_PROCESS)["status"], "loaded");
    assert_eq!(by_name(HELLO)["tools"], json!(["hello"]));
    let text = plugins
        .iter()
        .find(|plugin| plugin["name"].is_null())
        .unwrap();
    assert_eq!(text["status"], "quarantined");
    assert!(
        text["reason"]
            .as_str()
            .unwrap()
            .contains("not a shared library")
    );
}

#[test]
fn the_list_for_people_says_what_isolates_nothing_and_why_a_plugin_is_refused() {
    let cli = Cli::new();
    fs::write(cli.yard.plugins().join("text.so"), "no library").unwrap();
    let output = cli.output(&["plugins", "list"]);
    assert_eq!(code(&output), 0);
    let text = stdout(&output);
    assert!(text.contains("local-process (isolation: none)"), "{text}");
    assert!(
        text.contains("text.so") && text.contains("not a shared library"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "colours in a pipe: {text:?}");
}

#[test]
fn inspect_shows_the_manifest_and_runs_no_code() {
    let cli = Cli::empty();
    let (library, witness) = with_witness(&cli.yard).unwrap();
    let path = cli.yard.put("constructor.so", &library).unwrap();
    let manifest = cli.json(&["plugins", "inspect", "--json", path.to_str().unwrap()]);
    assert_eq!(manifest["name"], "constructor");
    assert_eq!(manifest["format"], 1);
    assert!(!witness.exists(), "the constructor ran");
    let output = cli.output(&["plugins", "inspect", "/etc/passwd"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("not a shared library"),
        "{output:?}"
    );
}

#[test]
fn types_has_the_promised_keys() {
    let types = Cli::new().json(&["types", "--json"]);
    let one = &types["types"][0];
    assert_eq!(one["name"], "local-process");
    assert_eq!(one["plugin"], LOCAL_PROCESS);
    assert_eq!(one["isolation"], "none");
    assert!(
        one["capabilities"]
            .as_array()
            .unwrap()
            .contains(&json!("commands"))
    );
    assert_eq!(one["health"]["status"], "healthy");
    assert_eq!(one["config_schema"]["type"], "object");
}

#[test]
fn run_json_has_the_promised_keys() {
    let cli = Cli::new();
    let output = cli.output(&[
        "run",
        "-t",
        "local_process",
        "--json",
        "--shell",
        "echo out; echo err >&2; exit 3",
    ]);
    assert_eq!(code(&output), 3);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["exit_code"], 3);
    assert_eq!(result["signal"], Value::Null);
    assert_eq!(result["stdout"], "out\n");
    assert_eq!(result["stderr"], "err\n");
    assert_eq!(result["timed_out"], false);
    assert_eq!(result["truncated"], false);
    assert!(result["duration_ms"].is_u64());
    assert_eq!(result["sandbox"]["type"], "local-process");
    assert_eq!(result["sandbox"]["status"], "running");
    assert_eq!(result["sandbox"]["available_tools"], json!(["hello"]));
    assert_eq!(cli.sandboxes(), 0);
}

#[test]
fn the_quick_verification_of_the_seed_is_true() {
    let cli = Cli::new();
    let tool = [
        "run",
        "-t",
        "local-process",
        "--tool",
        "hello",
        "--params",
        r#"{"name": "sandbox"}"#,
    ];
    let output = cli.output(&tool);
    assert_eq!(
        (code(&output), stdout(&output).as_str()),
        (0, "{\"message\": \"Hello, sandbox!\"}\n")
    );
    let output = cli.output(&["run", "-t", "local-process", "--", "echo", "hi"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "hi\n"));
    let result = cli.json(&[&tool[..], &["--json"]].concat());
    assert_eq!(result["tool"], "hello");
    assert_eq!(result["status"], "success");
    assert_eq!(result["output"], json!({ "message": "Hello, sandbox!" }));
    assert_eq!(result["error"], Value::Null);
}

#[test]
fn the_exit_code_is_the_commands_or_says_why_there_is_none() {
    let cli = Cli::new();
    let run = ["run", "-t", "local-process"];
    for (rest, expected) in [
        (&["--", "true"][..], 0),
        (&["--", "sh", "-c", "exit 42"], 42),
        (&["--timeout", "200ms", "--", "sleep", "60"], 124),
        (&["--", "/etc/passwd"], 126),
        (&["--", "no-such-program"], 127),
        (&["--", "sh", "-c", "kill -9 $$"], 137),
        (&["-c", "no_such_key=1", "--", "true"], 125),
        (&["-c", "timeout=soon", "--", "true"], 125),
        (&["--tool", "no_such_tool"], 125),
        (&["--tool", "hello", "--params", "{\"name\": 1}"], 125),
        (&["--tool", "hello", "--params", "no json"], 2),
        (&["--shell", "echo", "two words"], 2),
        (&["--timeout", "soon", "--", "true"], 2),
        (&[], 2),
    ] {
        let output = cli.output(&[&run[..], rest].concat());
        assert_eq!(code(&output), expected, "{rest:?}: {output:?}");
    }
    let output = cli.output(&["run", "-t", "no-such-type", "--", "true"]);
    assert_eq!(code(&output), 125);
    assert!(
        stderr(&output).contains("there are local-process"),
        "{output:?}"
    );
    assert_eq!((cli.sandboxes(), cli.leases()), (0, 0));
}

#[test]
fn without_a_type_an_isolating_one_is_needed_and_the_message_says_what_there_is() {
    let cli = Cli::new();
    let output = cli.output(&["run", "--", "true"]);
    assert_ne!(code(&output), 0);
    assert!(
        stderr(&output).contains("local-process (isolation: none)"),
        "{output:?}"
    );
    let mut command = cli.command(&["run", "--", "true"]);
    assert!(
        command
            .env("BOXYARD_TYPE", "local-process")
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn output_comes_as_it_is_printed_and_input_is_passed_on() {
    let cli = Cli::new();
    let mut run = cli.spawn(&[
        "run",
        "-t",
        "local-process",
        "--shell",
        "echo first; read line; echo got $line; cat",
    ]);
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

#[test]
fn ctrl_c_ends_the_command_and_deletes_the_sandbox() {
    let cli = Cli::new();
    for (signal, expected) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut run = cli.spawn(&[
            "run",
            "-t",
            "local-process",
            "--shell",
            "echo $$; exec sleep 600",
        ]);
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
    let mut run = cli.spawn(&[
        "run",
        "-t",
        "local-process",
        "--shell",
        "echo $$; exec sleep 600",
    ]);
    let command = Pid::from_raw(run.line().parse().unwrap()).unwrap();
    kill_process(run.pid(), Signal::KILL).unwrap();
    assert_eq!(run.child.wait().unwrap().signal(), Some(9));
    assert_eq!((cli.sandboxes(), cli.leases()), (1, 1));
    let config = cli.root().join("now.toml");
    fs::write(&config, "[timeouts]\nsweep_grace = '0s'\n").unwrap();
    let config = config.to_str().unwrap();
    let output = cli.output(&[
        "--config-file",
        config,
        "run",
        "-t",
        "local-process",
        "--",
        "true",
    ]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(!is_alive(command));
    assert_eq!((cli.sandboxes(), cli.leases()), (0, 0));
}

#[test]
fn a_living_run_is_left_alone_by_the_sweep_of_another() {
    let cli = Cli::new();
    let mut run = cli.spawn(&[
        "run",
        "-t",
        "local-process",
        "--shell",
        "echo up; read line; echo $line",
    ]);
    assert_eq!(run.line(), "up");
    let config = cli.root().join("now.toml");
    fs::write(&config, "[timeouts]\nsweep_grace = '0s'\n").unwrap();
    let config = config.to_str().unwrap();
    assert_eq!(
        code(&cli.output(&[
            "--config-file",
            config,
            "run",
            "-t",
            "local-process",
            "--",
            "true"
        ])),
        0
    );
    assert_eq!(cli.sandboxes(), 1);
    run.child
        .stdin
        .take()
        .unwrap()
        .write_all(b"still here\n")
        .unwrap();
    assert_eq!(run.line(), "still here");
}

#[test]
fn long_output_is_cut_in_json_and_whole_in_a_stream() {
    let cli = Cli::new();
    let run = [
        "run",
        "-t",
        "local-process",
        "--shell",
        "head -c 5000000 /dev/zero | tr '\\0' x; echo end",
    ];
    let result = cli.json(&[&["run", "--json"], &run[1..]].concat());
    assert_eq!(result["truncated"], true);
    let text = result["stdout"].as_str().unwrap();
    assert!(text.len() < 1_100_000 && text.ends_with("end\n") && text.contains("bytes cut"));
    assert_eq!(cli.output(&run).stdout.len(), 5_000_004);
}

#[test]
fn config_check_names_the_key_and_exits_with_78() {
    let cli = Cli::new();
    assert_eq!(code(&cli.output(&["config", "check"])), 0);
    let directory = cli.root().join("config/boxyard");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("boxyard.toml"), "plugin_dir = []\n").unwrap();
    for verb in [
        &["config", "check"][..],
        &["plugins", "list"],
        &["run", "-t", "local-process", "--", "true"],
    ] {
        let output = cli.output(verb);
        assert_eq!(code(&output), 78, "{output:?}");
        assert!(
            stderr(&output).contains("did you mean `plugin_dirs`?"),
            "{output:?}"
        );
    }
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let cli = Cli::new();
    let directory = cli.root().join("config/boxyard");
    fs::create_dir_all(&directory).unwrap();
    fs::write(
        directory.join("boxyard.toml"),
        "plugin_dirs = ['/nonexistent/file']\n",
    )
    .unwrap();
    let searched = |command: &mut Command| stderr(&command.output().unwrap());
    let list = ["plugins", "list"];
    assert_eq!(searched(&mut cli.command(&list)), "");
    let file = searched(cli.command(&list).env_remove("BOXYARD_PLUGIN_PATH"));
    assert!(file.contains("/nonexistent/file"), "{file}");
    let flag = searched(
        cli.command(&list)
            .args(["--plugin-dir", "/nonexistent/flag"]),
    );
    assert!(
        flag.contains("/nonexistent/flag") && !flag.contains("/nonexistent/file"),
        "{flag}"
    );
}

#[test]
fn install_copies_pins_and_guards_the_content() {
    let cli = Cli::empty();
    let source = cli.root().join("built.so");
    fs::write(&source, Library::package(HELLO).unwrap().bytes()).unwrap();
    let source = source.to_str().unwrap();
    let installed = cli
        .root()
        .join("data/boxyard/plugins")
        .join(format!("{HELLO}.so"));
    let mut install = cli.command(&["plugins", "install", source]);
    assert!(
        install
            .env_remove("BOXYARD_PLUGIN_PATH")
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        fs::metadata(&installed).unwrap().permissions().mode() & 0o777,
        0o644
    );
    let list = || -> Value {
        let mut list = cli.command(&["plugins", "list", "--json"]);
        let output = list.env_remove("BOXYARD_PLUGIN_PATH").output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["plugins"]
            .as_array()
            .unwrap()
            .iter()
            .find(|plugin| plugin["path"] == installed.to_str().unwrap())
            .unwrap()
            .clone()
    };
    // The build directory has the same plugin, and comes first.
    assert_ne!(list()["status"], "quarantined");
    let mut changed = fs::read(&installed).unwrap();
    changed.push(0);
    fs::write(&installed, changed).unwrap();
    let mut list = cli.command(&["plugins", "list", "--json", "--plugin-dir"]);
    let output = list.arg(installed.parent().unwrap()).output().unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["plugins"][0]["status"], "quarantined");
    assert!(
        list["plugins"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("SHA-256"),
        "{list}"
    );
    let output = cli.output(&["plugins", "install", "/etc/passwd"]);
    assert_eq!(code(&output), 1);
}

#[test]
fn verbs_of_others_are_found_on_path_and_misspelt_ones_are_corrected() {
    let cli = Cli::new();
    let program = cli.root().join("boxyard-greet");
    fs::write(&program, "#!/bin/sh\necho \"greetings, $*\"; exit 5\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", cli.root().display());
    let output = cli
        .command(&["greet", "you", "--all"])
        .env("PATH", path)
        .output()
        .unwrap();
    assert_eq!(
        (code(&output), stdout(&output).as_str()),
        (5, "greetings, you --all\n")
    );
    let output = cli.output(&["plugin", "list"]);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("did you mean `plugins`?"),
        "{output:?}"
    );
}

#[test]
fn completions_are_printed_and_an_unwritable_state_is_a_clear_error() {
    let cli = Cli::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = cli.output(&["completions", shell]);
        assert!(
            code(&output) == 0 && stdout(&output).contains("plugins"),
            "{shell}: {output:?}"
        );
    }
    let file = cli.root().join("a-file");
    fs::write(&file, "").unwrap();
    let mut command = cli.command(&["run", "-t", "local-process", "--", "true"]);
    let output = command.env("XDG_STATE_HOME", &file).output().unwrap();
    assert_eq!(code(&output), 125);
    assert!(stderr(&output).contains("state directory"), "{output:?}");
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
