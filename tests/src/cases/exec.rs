//! Commands: what runs, what it is given, what comes back.

use std::time::Duration;

use boxyard_plugin_api::{ByteSource, Command, CommandExit, Control, Controls, ErrorCode, pipe};

use crate::{
    case::{
        Needs::{Capability, NoCapability},
        cases,
    },
    subject::{Subject, call, driven, streams, within},
    verdict::{Outcome, check, check_eq},
};

pub(super) const COMMANDS: crate::case::Needs = Capability("commands");
/// How long a thing may take that must happen soon.
pub(super) const SOON: Duration = Duration::from_secs(10);

cases! {
    "exec-runs-an-argv-as-it-is" "E1" Must COMMANDS => argv;
    "exec-runs-a-line-under-a-shell" "E1" Must COMMANDS => line;
    "exec-exit-code" "E2" Must COMMANDS => exit_code;
    "exec-signal" "E2" Must COMMANDS => signal;
    "exec-missing-program-is-127" "E2" Must COMMANDS => missing;
    "exec-not-executable-is-126" "E2" Must COMMANDS => not_executable;
    "exec-streams-are-apart" "E3" Must COMMANDS => apart;
    "exec-output-is-binary-safe" "E3" Must COMMANDS => binary;
    "exec-output-is-whole" "E3" Must COMMANDS => whole;
    "exec-output-comes-as-it-is-printed" "E3" Must COMMANDS => incremental;
    "exec-stdin-is-streamed-and-ends" "E4" Must COMMANDS => stdin;
    "exec-stdin-that-is-not-given-is-at-its-end" "E4" Must COMMANDS => no_stdin;
    "exec-stdin-that-is-not-read" "E4" Must COMMANDS => unread_stdin;
    "exec-environment-is-added" "E5" Must COMMANDS => environment;
    "exec-environment-is-cleared" "E5" Must COMMANDS => cleared_environment;
    "exec-environment-of-the-host-is-not-passed-on" "E5" Should COMMANDS => host_environment;
    "exec-working-directory" "E6" Must COMMANDS => working_directory;
    "exec-missing-working-directory-is-an-error" "E6" Must COMMANDS => missing_directory;
    "exec-signals-reach-the-command" "E10" Must COMMANDS => controls;
    "exec-reader-that-leaves-closes-the-pipe" "E11" Must COMMANDS => reader_leaves;
    "exec-reader-that-stops-makes-it-wait" "E11" Must COMMANDS => reader_stops;
    "exec-refuses-what-cannot-be-run" "E12" Must COMMANDS => refuses;
    "exec-commands-run-side-by-side" "E13" Must COMMANDS => side_by_side;
    "exec-undeclared-is-unsupported" "E15" Must NoCapability("commands") => undeclared;
}

async fn argv(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let argv = ["printf", "<%s>", "a b", "", "*", "$HOME;exit 3", "-n"];
    let output = live.run(Command::argv(argv)).await?;
    check_eq!(
        output.out(),
        "<a b><><*><$HOME;exit 3><-n>",
        "the arguments that a program got"
    );
    live.close().await
}

async fn line(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    for timeout in [None, Some(Duration::from_secs(15))] {
        let mut command = Command::shell("x='a b'; echo \"$x\" | wc -w");
        command.timeout = timeout;
        let output = live.run(command).await?;
        check_eq!(output.out().trim(), "2", "what a shell made of the line");
    }
    live.close().await
}

async fn exit_code(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    for code in [0, 1, 42, 255] {
        let exit = live.run(Command::shell(format!("exit {code}"))).await?.exit;
        check_eq!(
            (exit.exit_code, exit.signal),
            (code, None),
            "how `exit {code}` ended"
        );
        check!(!exit.timed_out, "`exit {code}` is said to have timed out");
    }
    live.close().await
}

async fn signal(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    for number in [9, 15] {
        let exit = live
            .run(Command::shell(format!("kill -{number} $$")))
            .await?
            .exit;
        let found = (exit.exit_code, exit.signal);
        check_eq!(
            found,
            (128 + number, Some(number)),
            "how a command that a signal killed ended"
        );
    }
    live.close().await
}

async fn missing(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    for name in ["no-such-program-anywhere", "./no-such", "/no/such/program"] {
        let output = live.run(Command::argv([name])).await?;
        check_eq!(
            output.exit.exit_code,
            CommandExit::NOT_FOUND,
            "the exit code of `{name}`"
        );
        check_eq!(output.out(), "", "the standard output of `{name}`");
        check!(
            !output.err().is_empty(),
            "standard error does not say that `{name}` is missing"
        );
    }
    live.close().await
}

async fn not_executable(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.sh("echo text > plain; chmod 644 plain").await?;
    for name in ["./plain", "/"] {
        let output = live.run(Command::argv([name])).await?;
        check_eq!(
            output.exit.exit_code,
            CommandExit::NOT_EXECUTABLE,
            "the exit code of `{name}`"
        );
    }
    live.close().await
}

async fn apart(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let output = live.run(Command::shell("echo out; echo err >&2")).await?;
    check_eq!(output.out(), "out\n", "standard output");
    check_eq!(output.err(), "err\n", "standard error");
    live.close().await
}

async fn binary(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let output = live
        .run(Command::shell(r"printf '\000\377\r\n\033\342\202'"))
        .await?;
    check_eq!(
        output.stdout,
        [0, 0xff, b'\r', b'\n', 0x1b, 0xe2, 0x82],
        "bytes that are no text"
    );
    live.close().await
}

async fn whole(subject: Subject) -> Outcome {
    const SIZE: usize = 5_000_000;
    let live = subject.sandbox().await?;
    let line =
        format!("head -c {SIZE} /dev/zero; echo end; head -c {SIZE} /dev/zero >&2; echo end >&2");
    let output = live.run(Command::shell(line)).await?;
    for (what, bytes) in [("output", &output.stdout), ("error", &output.stderr)] {
        check_eq!(bytes.len(), SIZE + 4, "the length of standard {what}");
        check!(bytes.ends_with(b"end\n"), "standard {what} lost its tail");
    }
    live.close().await
}

async fn incremental(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (gate, stdin) = pipe();
    let (io, stdout, _stderr) = streams(stdin, Controls::none());
    let mut command = Command::shell("echo first; read line; echo $line");
    command.stdin = true;
    let talk = async {
        let first = within(SOON, "output while the command runs", stdout.read(100)).await??;
        check_eq!(first.as_deref(), Some(&b"first\n"[..]), "what came first");
        gate.write(&b"second\n"[..]).await?;
        let rest = within(SOON, "the rest of the output", stdout.read_to_end(100)).await??;
        check_eq!(rest, b"second\n", "what came then");
        Ok(())
    };
    let running = live.handle.execute_command(&command, io, call());
    let exit = driven(running, talk).await?;
    check_eq!(exit?.exit_code, 0, "its exit code");
    live.close().await
}

async fn stdin(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let mut cat = Command::argv(["cat"]);
    cat.stdin = true;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let source = ByteSource::from_bytes(bytes.clone());
    let output = live.run_with(cat, source, Controls::none()).await?;
    check!(
        output.stdout == bytes,
        "cat gave back {} bytes, or others",
        output.stdout.len()
    );
    live.close().await
}

async fn no_stdin(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let output = live.run(Command::argv(["cat"]).timeout(SOON)).await?;
    check_eq!(
        (output.out(), output.exit.exit_code),
        (String::new(), 0),
        "what cat read"
    );
    live.close().await
}

async fn unread_stdin(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let mut head = Command::argv(["head", "-c", "3"]).timeout(SOON);
    head.stdin = true;
    let source = ByteSource::from_bytes(vec![b'x'; 4_000_000]);
    let output = live.run_with(head, source, Controls::none()).await?;
    check_eq!(
        (output.out(), output.exit.exit_code),
        ("xxx".to_owned(), 0),
        "what head read"
    );
    live.close().await
}

async fn environment(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    // Not by the shell's word: it has a PATH of its own where it is given none.
    let command = Command::argv(["env"]).env("ONE", "a b=c");
    let out = live.run(command).await?.out();
    check!(
        out.lines().any(|entry| entry == "ONE=a b=c"),
        "expected the command's variable, found {out:?}"
    );
    check!(
        out.lines().any(|entry| entry.starts_with("PATH=")),
        "its own variable took all others' place"
    );
    live.close().await
}

async fn cleared_environment(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let mut command = Command::shell("env")
        .env("PATH", "/usr/bin:/bin")
        .env("ONE", "1");
    command.clear_env = true;
    let out = live.run(command).await?.out();
    // What a shell sets by itself is not the plugin's.
    let own = ["PATH=", "ONE=", "PWD=", "SHLVL=", "_=", "OLDPWD="];
    for entry in out.lines() {
        check!(
            own.iter().any(|name| entry.starts_with(name)),
            "a cleared environment has `{entry}`"
        );
    }
    check!(
        out.lines().any(|entry| entry == "ONE=1"),
        "the command's own variable is gone"
    );
    live.close().await
}

async fn host_environment(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let out = live.run(Command::shell("env")).await?.out();
    check!(
        !out.contains(&crate::secret()),
        "the environment of the host is passed on: a secret of it is in the command's"
    );
    live.close().await
}

async fn working_directory(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.sh("mkdir -p sub/dir").await?;
    let at = |place: &str| Command::argv(["pwd", "-P"]).working_dir(place);
    let home = live.run(Command::argv(["pwd", "-P"])).await?.out();
    let inner = live.run(at("sub/dir")).await?.out();
    let expected = format!("{}/sub/dir\n", home.trim_end().trim_end_matches('/'));
    check_eq!(
        inner,
        expected,
        "where a command with a relative directory ran"
    );
    check_eq!(
        live.run(at("/")).await?.out(),
        "/\n",
        "where a command ran that was told `/`"
    );
    live.close().await
}

async fn missing_directory(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let code = live
        .code(Command::argv(["true"]).working_dir("no/such/place"))
        .await;
    check_eq!(
        code,
        Err(ErrorCode::NOT_FOUND),
        "what came of a directory that is not there"
    );
    live.close().await
}

async fn controls(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (controls, source) = pipe();
    let (io, stdout, _stderr) = streams(ByteSource::empty(), Controls::from_source(source));
    // Without standard error: shells say there that the signal killed the `sleep` as well.
    let line = "exec 2>/dev/null; trap 'echo got it; exit 7' USR1; echo ready; while :; do sleep 0.02; done";
    let command = Command::shell(line).timeout(SOON);
    let driving = async {
        within(SOON, "its first words", stdout.read(100)).await??;
        controls.write(Control::Signal(10).to_line()).await?;
        let rest = within(SOON * 2, "the answer to a signal", stdout.read_to_end(100)).await??;
        check_eq!(
            String::from_utf8_lossy(&rest),
            "got it\n",
            "what the signal's handler said"
        );
        Ok(())
    };
    let running = live.handle.execute_command(&command, io, call());
    let exit = driven(running, driving).await?;
    check_eq!(exit?.exit_code, 7, "the exit code of the signal's handler");
    live.close().await
}

async fn reader_leaves(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (io, stdout, _stderr) = streams(ByteSource::empty(), Controls::none());
    drop(stdout);
    let command = Command::argv(["cat", "/dev/zero"]).timeout(SOON);
    let exit = live.handle.execute_command(&command, io, call()).await?;
    check!(
        !exit.timed_out,
        "it went on writing to a reader that had left"
    );
    live.close().await
}

async fn reader_stops(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (io, stdout, _stderr) = streams(ByteSource::empty(), Controls::none());
    let line = "i=0; while :; do head -c 1000000 /dev/zero; i=$((i+1)); echo $i > written; done";
    let command = Command::shell(line).timeout(Duration::from_secs(1));
    let running = live.handle.execute_command(&command, io, call());
    let exit = within(SOON, "the timeout of a command that nobody reads", running).await??;
    check!(exit.timed_out, "it is not said to have timed out");
    let written = live.sh("cat written 2>/dev/null || echo 0").await?;
    let written: u64 = written.trim().parse()?;
    check!(
        written < 64,
        "it wrote {written} MB that nobody read: memory must hold them"
    );
    drop(stdout);
    live.close().await
}

async fn refuses(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let refused = [
        Command::argv(Vec::<String>::new()),
        Command::argv(["a\0b"]),
        Command::shell("true").env("A=B", "c"),
    ];
    for command in refused {
        let shown = format!("{command:?}");
        let code = live.code(command).await;
        check_eq!(
            code,
            Err(ErrorCode::INVALID_ARGUMENT),
            "what came of {shown}"
        );
    }
    live.close().await
}

async fn side_by_side(subject: Subject) -> Outcome {
    const COMMANDS: usize = 8;
    let live = subject.sandbox().await?;
    live.sh("mkdir begun").await?;
    // None ends before all have begun.
    let line = |number: usize| {
        format!(
            ": > begun/{number}; while [ $(ls begun | wc -l) -lt {COMMANDS} ]; do sleep 0.02; \
             done; echo {number}"
        )
    };
    let all = (0..COMMANDS).map(|number| live.run(Command::shell(line(number)).timeout(SOON)));
    for (number, output) in futures_util::future::join_all(all)
        .await
        .into_iter()
        .enumerate()
    {
        let output = output?;
        check!(
            !output.exit.timed_out,
            "{COMMANDS} commands do not run at once"
        );
        check_eq!(
            output.out(),
            format!("{number}\n"),
            "the output of one of {COMMANDS}"
        );
    }
    live.close().await
}

async fn undeclared(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let code = live.code(Command::shell("true")).await;
    check_eq!(
        code,
        Err(ErrorCode::UNIMPLEMENTED),
        "a command in a type without commands"
    );
    live.close().await
}
