//! What a command is run with, and what is refused.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use boxyard_plugin_api::{Control, Controls, TerminalSize, pipe, prelude::*};
use tokio::{sync::Barrier, task::JoinSet};

use super::harness::{call, io, sandbox, within};

#[tokio::test]
async fn argv_is_never_joined() {
    let sandbox = sandbox(json!({})).await;
    let argv = ["printf", "<%s>", "a b", "", "*", "$HOME;exit 3", "-n"];
    let output = sandbox.run(Command::argv(argv)).await;
    assert_eq!(output.out(), "<a b><><*><$HOME;exit 3><-n>");
    assert_eq!(output.exit.exit_code, 0);
    let output = sandbox
        .run(Command::shell("echo $0 $#; exit $((40 + 2))"))
        .await;
    assert_eq!(
        (output.out(), output.exit.exit_code),
        ("sh 0\n", 42),
        "{output:?}"
    );
    sandbox.close().await;
}

#[tokio::test]
async fn the_environment_is_the_sandboxs_own() {
    let sandbox = sandbox(json!({"env": {"A": "config", "B": "config"}})).await;
    let output = sandbox
        .run(Command::argv(["env"]).env("B", "command"))
        .await;
    let directory = sandbox.directory.to_str().unwrap();
    let mut lines: Vec<&str> = output.out().lines().collect();
    lines.sort_unstable();
    let expected = [
        "A=config",
        "B=command",
        &format!("BOXYARD_SANDBOX={}", sandbox.id),
        &format!("HOME={directory}"),
        "LANG=C.UTF-8",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        &format!("PWD={directory}"),
        &format!("TMPDIR={directory}"),
    ];
    assert_eq!(lines, expected);
    let mut bare = Command::argv(["env"]).env("ONLY", "1");
    bare.clear_env = true;
    let output = sandbox.run(bare).await;
    assert_eq!(output.out(), "ONLY=1\n");
    sandbox.close().await;
}

#[tokio::test]
async fn a_command_runs_where_it_is_told() {
    let sandbox = sandbox(json!({})).await;
    let output = sandbox
        .run(Command::shell("mkdir sub; pwd").working_dir("."))
        .await;
    let directory = sandbox.directory.to_str().unwrap();
    assert_eq!(output.out(), format!("{directory}/.\n"));
    let output = sandbox
        .run(Command::argv(["pwd", "-P"]).working_dir("sub"))
        .await;
    assert_eq!(output.out(), format!("{directory}/sub\n"));
    let output = sandbox
        .run(Command::argv(["pwd", "-P"]).working_dir("/"))
        .await;
    assert_eq!(output.out(), "/\n");
    let info = sandbox.handle.info(call()).await.unwrap();
    assert_eq!(info["working_dir"], directory);
    sandbox.close().await;
}

#[tokio::test]
async fn a_missing_working_directory_is_no_missing_program() {
    let sandbox = sandbox(json!({})).await;
    for (directory, code) in [
        ("no/such", ErrorCode::NOT_FOUND),
        ("/etc/passwd", ErrorCode::INVALID_ARGUMENT),
    ] {
        let command = Command::argv(["true"]).working_dir(directory);
        let error = sandbox.try_run(command).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.message().contains(directory), "{error}");
    }
    fs::remove_dir(&sandbox.directory).unwrap();
    let error = sandbox.try_run(Command::shell("true")).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NOT_FOUND);
    sandbox.close().await;
}

#[tokio::test]
async fn missing_program_is_127() {
    let sandbox = sandbox(json!({})).await;
    fs::write(sandbox.directory.join("orphan"), "#!/no/such/interpreter\n").unwrap();
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(sandbox.directory.join("orphan"), all).unwrap();
    for name in [
        "no-such-program",
        "./no-such",
        "/no/such",
        "/etc/passwd/x",
        "./orphan",
        "",
    ] {
        for limits in [false, true] {
            let mut command = Command::argv([name]);
            if limits {
                command.limits.insert("nofile".into(), 64);
            }
            let output = sandbox.run(command).await;
            assert_eq!(output.exit.exit_code, 127, "{name}: {output:?}");
            assert_eq!(output.exit.signal, None);
            assert_eq!(output.stdout, b"");
            assert_eq!(output.err().lines().count(), 1, "{name}: {output:?}");
            assert!(
                output.err().contains("not found") || name.contains("passwd"),
                "{output:?}"
            );
        }
    }
    sandbox.close().await;
}

#[tokio::test]
async fn not_executable_is_126() {
    let sandbox = sandbox(json!({"env": {"PATH": ":/bin"}})).await;
    fs::write(sandbox.directory.join("plain"), "echo hi\n").unwrap();
    fs::write(sandbox.directory.join("broken"), "\x7fELF nonsense").unwrap();
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(sandbox.directory.join("broken"), all).unwrap();
    for (name, reason) in [
        ("plain", "sh: plain: Permission denied\n"),
        ("./plain", "sh: ./plain: Permission denied\n"),
        ("/", "sh: /: Is a directory\n"),
        ("..", "sh: ..: Is a directory\n"),
        ("./broken", "sh: ./broken: Exec format error\n"),
    ] {
        let output = sandbox.run(Command::argv([name])).await;
        assert_eq!((output.exit.exit_code, output.err()), (126, reason));
    }
    sandbox.close().await;
}

#[tokio::test]
async fn a_plain_name_is_found_on_the_commands_own_path() {
    let sandbox = sandbox(json!({})).await;
    let tool = sandbox.directory.join("bin/tool");
    fs::create_dir(sandbox.directory.join("bin")).unwrap();
    fs::write(&tool, "#!/bin/sh\necho \"$0\"\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let command = Command::argv(["tool"]).env("PATH", "bin");
    let output = sandbox.run(command).await;
    assert_eq!(output.out(), "bin/tool\n", "{output:?}");
    let output = sandbox.run(Command::argv(["tool"])).await;
    assert_eq!(output.exit.exit_code, 127);
    let output = sandbox
        .run(Command::argv(["./tool"]).working_dir("bin"))
        .await;
    assert_eq!(output.out(), "./tool\n");
    sandbox.close().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_an_error() {
    let sandbox = sandbox(json!({})).await;
    let mut other_user = Command::argv(["true"]);
    other_user.user = Some("no-such-user".into());
    let mut wrong_limit = Command::argv(["true"]);
    wrong_limit.limits.insert("nofiles".into(), 1);
    for (command, code, named) in [
        (other_user, ErrorCode::INVALID_ARGUMENT, "no-such-user"),
        (wrong_limit, ErrorCode::INVALID_ARGUMENT, "nofiles"),
        (
            Command::shell("x".repeat(3_000_000)),
            ErrorCode::INVALID_ARGUMENT,
            "longer",
        ),
        (
            Command::argv(Vec::<String>::new()),
            ErrorCode::INVALID_ARGUMENT,
            "empty",
        ),
    ] {
        let error = sandbox.try_run(command).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(named), "{error}");
    }
    sandbox.close().await;
}

#[tokio::test]
async fn signals_reach_the_whole_group() {
    let sandbox = sandbox(json!({})).await;
    let (controls, source) = pipe();
    let script = "trap 'echo got it; exit 7' USR1; (trap 'echo me too' USR1; echo ready; \
                  while :; do read x <&3; done 3<>fifo) & wait; wait";
    sandbox.run(Command::argv(["mkfifo", "fifo"])).await;
    let (io, stdout, stderr) = io(ByteSource::empty(), Controls::from_source(source));
    let command = Command::shell(script);
    let run = sandbox.handle.execute_command(&command, io, call());
    let drive = async {
        let mut text = Vec::new();
        while !text.ends_with(b"ready\n") {
            text.extend_from_slice(&stdout.read(4096).await.unwrap().unwrap());
        }
        let size = TerminalSize {
            columns: 1,
            rows: 1,
        };
        controls
            .write(Control::Resize(size).to_line())
            .await
            .unwrap();
        let signal = Control::Signal(10).to_line();
        controls.write(signal).await.unwrap();
        stdout.read_to_end(usize::MAX).await.unwrap()
    };
    let (exit, text) = within(async { tokio::join!(run, drive) }).await;
    assert_eq!(exit.unwrap().exit_code, 7);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("got it"), "{text}");
    drop(stderr);
    sandbox.close().await;
}

#[tokio::test]
async fn commands_run_side_by_side() {
    const COMMANDS: usize = 20;
    let sandbox = Arc::new(sandbox(json!({})).await);
    // None ends before all have begun.
    let barrier = Arc::new(Barrier::new(COMMANDS));
    let mut all = JoinSet::new();
    for number in 0..COMMANDS {
        let (sandbox, barrier) = (sandbox.clone(), barrier.clone());
        all.spawn(async move {
            let (sink, source) = pipe();
            let (io, stdout, _stderr) = io(source, Controls::none());
            let mut command = Command::shell(format!("echo begun; read word; echo {number} $word"));
            command.stdin = true;
            let run = sandbox.handle.execute_command(&command, io, call());
            let drive = async {
                assert_eq!(&*stdout.read(100).await.unwrap().unwrap(), b"begun\n");
                barrier.wait().await;
                sink.write(&b"on\n"[..]).await.unwrap();
                // A command that has its line may be gone before the end reaches it.
                let _ = sink.finish().await;
                stdout.read_to_end(1000).await.unwrap()
            };
            let (exit, text) = within(async { tokio::join!(run, drive) }).await;
            assert_eq!(exit.unwrap().exit_code, 0);
            assert_eq!(String::from_utf8(text).unwrap(), format!("{number} on\n"));
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    Arc::into_inner(sandbox).unwrap().close().await;
}

#[tokio::test]
async fn limits_hold_and_a_command_sets_its_own() {
    let sandbox = sandbox(json!({"limits": {"nofile": 77, "core": 0, "fsize": 1000}})).await;
    let show = Command::argv(["cat", "/proc/self/limits"]);
    let of = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        let values: Vec<String> = line[26..].split_whitespace().map(Into::into).collect();
        (values[0].clone(), values[1].clone())
    };
    let both = |value: &str| (value.to_owned(), value.to_owned());
    let output = sandbox.run(show.clone()).await;
    assert_eq!(of(output.out(), "Max open files"), both("77"));
    assert_eq!(of(output.out(), "Max core file size"), both("0"));
    assert_eq!(of(output.out(), "Max file size"), both("1000"));
    let mut own = show;
    own.limits.insert("nofile".into(), 55);
    own.limits.insert("stack".into(), 1 << 20);
    let output = sandbox.run(own).await;
    assert_eq!(of(output.out(), "Max open files"), both("55"));
    assert_eq!(of(output.out(), "Max stack size"), both("1048576"));
    let output = sandbox
        .run(Command::shell("head -c 2000 /dev/zero > big; wc -c < big"))
        .await;
    assert_eq!(output.out().trim(), "1000", "{output:?}");
    sandbox.close().await;
}

#[tokio::test]
async fn a_line_is_a_shells_with_a_timeout_and_without() {
    let sandbox = sandbox(json!({})).await;
    let line = Command::shell("x='a b'; echo \"$x\" | wc -w");
    let timed = line.clone().timeout(std::time::Duration::from_secs(20));
    for command in [line, timed] {
        assert_eq!(sandbox.run(command).await.out().trim(), "2");
    }
    sandbox.close().await;
}

#[tokio::test]
async fn what_the_system_cannot_take_is_refused() {
    let sandbox = sandbox(json!({})).await;
    // Longer than one argument may be, and longer than all may be together.
    for argv in [vec!["x".repeat(200_000)], vec!["y".repeat(1000); 3000]] {
        let command = Command::argv(["true".to_owned()].into_iter().chain(argv));
        let error = sandbox.try_run(command).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT, "{error}");
        assert!(error.message().contains("longer"), "{error}");
    }
    let error = sandbox.try_run(Command::argv(["a\0b"])).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT, "{error}");
    assert_eq!(sandbox.run(Command::shell("echo on")).await.out(), "on\n");
    sandbox.close().await;
}

#[tokio::test]
async fn a_thousand_commands_run_at_once() {
    const COMMANDS: usize = 1000;
    let sandbox = Arc::new(sandbox(json!({})).await);
    let mut all = JoinSet::new();
    fs::create_dir(sandbox.directory.join("begun")).unwrap();
    let mkfifo = sandbox.run(Command::argv(["mkfifo", "gate"])).await;
    assert_eq!(mkfifo.exit.exit_code, 0);
    for number in 0..COMMANDS {
        let sandbox = sandbox.clone();
        let line = format!(": > begun/{number}; read x < gate; echo {number}");
        all.spawn(async move {
            let output = sandbox.run(Command::shell(line)).await;
            assert_eq!(output.out(), format!("{number}\n"), "{output:?}");
        });
    }
    // None ends before the last has begun.
    let begun = sandbox.directory.join("begun");
    let have_begun = || fs::read_dir(&begun).unwrap().count() == COMMANDS;
    super::harness::eventually("all have begun", have_begun).await;
    // Whoever reads finds the end, as long as nobody writes.
    let opening = sandbox.directory.join("gate");
    let gate = tokio::task::spawn_blocking(move || {
        fs::OpenOptions::new().write(true).open(opening).unwrap()
    });
    drop(within(gate).await.unwrap());
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    Arc::into_inner(sandbox).unwrap().close().await;
}
