//! What `run` answers: documents, exit codes, output that is cut.

use serde_json::{Value, json};

use super::{Cli, code, stderr, stdout};

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
    let tools = &result["sandbox"]["available_tools"];
    assert!(
        tools.as_array().unwrap().contains(&json!("hello")),
        "{tools}"
    );
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
fn a_tool_keeps_its_output_beside_what_it_writes_to_standard_error() {
    let cli = Cli::new();
    let tool = |command: &str| {
        let params = json!({ "command": command }).to_string();
        let run = ["run", "-t", "local-process", "--tool", "shell_executor"];
        cli.output(&[&run[..], &["--params", &params]].concat())
    };
    let output = tool("echo out; echo warn >&2");
    assert_eq!(
        (code(&output), stdout(&output).as_str()),
        (0, "out\n"),
        "{output:?}"
    );
    // The plugin's own warning is before it.
    let said = stderr(&output);
    assert!(
        said.ends_with("\nwarn\n") && !said.contains("error"),
        "{said}"
    );
    let output = tool("echo out; echo no >&2; exit 3");
    assert_eq!(
        (code(&output), stdout(&output).as_str()),
        (1, "out\n"),
        "{output:?}"
    );
    let said = stderr(&output);
    assert!(said.contains("error: tool `shell_executor`: no"), "{said}");
    let output = tool("true");
    assert_eq!((code(&output), output.stdout), (0, vec![]));
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
