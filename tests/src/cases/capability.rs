//! What a type declares it does, and what it does not it refuses.

use boxyard_plugin_api::{Command, Control, Controls, ErrorCode, LogRequest, TerminalSize, pipe};

use crate::{
    case::{
        Needs::{Capability, NoCapability},
        cases,
    },
    subject::{Subject, call, collect},
    verdict::{Finding, Outcome, check, check_eq},
};

cases! {
    "capability-terminal" "K1" Must Capability("terminal") => terminal;
    "capability-terminal-is-resized" "K1" Must Capability("terminal") => resized;
    "capability-terminal-undeclared" "K2" Must NoCapability("terminal") => no_terminal;
    "capability-users" "K1" Must Capability("users") => users;
    "capability-users-unknown" "K1" Must Capability("users") => unknown_user;
    "capability-users-undeclared" "K2" Must NoCapability("users") => no_users;
    "capability-stats" "K1" Must Capability("stats") => stats;
    "capability-stats-undeclared" "K2" Must NoCapability("stats") => no_stats;
    "capability-logs-undeclared" "K2" Must NoCapability("logs") => no_logs;
    "capability-reset-undeclared" "K2" Must NoCapability("reset") => no_reset;
    "capability-reset" "K1" Must Capability("reset") => reset;
}

const SIZE: TerminalSize = TerminalSize {
    columns: 91,
    rows: 31,
};

async fn terminal(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let mut command = Command::shell("stty size; [ -t 0 ] && [ -t 1 ] && echo terminal");
    command.tty = Some(SIZE);
    let output = live.run(command).await?;
    check_eq!(
        output.out(),
        "31 91\r\nterminal\r\n",
        "what a command saw of its terminal"
    );
    live.close().await
}

async fn resized(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (keys, stdin) = pipe();
    let (controls, source) = pipe();
    let (io, stdout, _stderr) = crate::subject::streams(stdin, Controls::from_source(source));
    let mut command = Command::shell("stty -echo; echo ready; read line; stty size");
    command.stdin = true;
    command.tty = Some(SIZE);
    let driving = async {
        stdout.read(100).await?;
        let size = TerminalSize {
            columns: 100,
            rows: 40,
        };
        controls.write(Control::Resize(size).to_line()).await?;
        keys.write(&b"\n"[..]).await?;
        let rest = stdout.read_to_end(1000).await?;
        let rest = String::from_utf8_lossy(&rest).into_owned();
        check!(
            rest.contains("40 100"),
            "the size after a resize: expected `40 100` in {rest:?}"
        );
        Ok(())
    };
    let running = live.handle.execute_command(&command, io, call());
    let (exit, driven) = tokio::join!(running, driving);
    let driven: Outcome = driven;
    driven?;
    check_eq!(exit?.exit_code, 0, "its exit code");
    live.close().await
}

/// Expects a command to be refused as something that the type does not do.
async fn unsupported(subject: &Subject, command: Command, what: &str) -> Outcome {
    if !subject.declares("commands")? {
        return Err(Finding::Skipped(
            "the type does not run commands at all".into(),
        ));
    }
    let live = subject.sandbox().await?;
    let ran = live.run(command).await;
    let code = ran
        .map(|output| output.exit.exit_code)
        .map_err(|error| error.code());
    check_eq!(
        code,
        Err(ErrorCode::UNIMPLEMENTED),
        "{what}, which it does not declare"
    );
    live.close().await
}

async fn no_terminal(subject: Subject) -> Outcome {
    let mut command = Command::shell("true");
    command.tty = Some(SIZE);
    unsupported(&subject, command, "a terminal").await
}

async fn users(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let own = live.sh("id -u").await?;
    let mut command = Command::shell("id -u");
    command.user = Some(own.trim().into());
    check_eq!(
        live.run(command).await?.out(),
        own,
        "the user that it is already, by number"
    );
    if own.trim() == "0" {
        let mut command = Command::shell("id -u; id -g");
        command.user = Some("4711:4712".into());
        check_eq!(
            live.run(command).await?.out(),
            "4711\n4712\n",
            "a user and a group by number"
        );
    }
    live.close().await
}

async fn unknown_user(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let mut command = Command::shell("true");
    command.user = Some("no-such-user-anywhere".into());
    let ran = live.run(command).await;
    let code = ran
        .map(|output| output.exit.exit_code)
        .map_err(|error| error.code());
    check_eq!(
        code,
        Err(ErrorCode::INVALID_ARGUMENT),
        "a user that is not there"
    );
    live.close().await
}

async fn no_users(subject: Subject) -> Outcome {
    let mut command = Command::shell("true");
    command.user = Some("0:0".into());
    unsupported(&subject, command, "another user").await
}

async fn stats(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let before = live.handle.stats(call()).await?;
    let after = live.handle.stats(call()).await?;
    let said_something = after.cpu_us.is_some()
        || after.memory_bytes.is_some()
        || after.processes.is_some()
        || !after.other.is_empty();
    check!(said_something, "it declares stats, and measures nothing");
    if let (Some(before), Some(after)) = (before.cpu_us, after.cpu_us) {
        // Processes may have gone with what they used; they may not have used less than none.
        check!(
            before < 1 << 60 && after < 1 << 60,
            "processor time of {before} and {after} us"
        );
    }
    live.close().await
}

async fn no_stats(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let stats = live
        .handle
        .stats(call())
        .await
        .map_err(|error| error.code());
    check_eq!(
        stats.map(|_| ()),
        Err(ErrorCode::UNIMPLEMENTED),
        "stats, which it does not declare"
    );
    live.close().await
}

async fn no_logs(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let (sink, source) = pipe();
    let logs = live.handle.logs(&LogRequest::default(), sink, call());
    let code = collect(logs, source).await.map_err(|error| error.code());
    check_eq!(
        code,
        Err(ErrorCode::UNIMPLEMENTED),
        "logs, which it does not declare"
    );
    live.close().await
}

async fn no_reset(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let reset = live
        .handle
        .reset(call())
        .await
        .map_err(|error| error.code());
    check_eq!(
        reset,
        Err(ErrorCode::UNIMPLEMENTED),
        "a reset, which it does not declare"
    );
    live.close().await
}

async fn reset(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    if subject.declares("commands")? {
        live.sh("echo > left-over").await?;
    }
    live.handle.reset(call()).await?;
    if subject.declares("commands")? {
        let gone = live
            .sh("[ -e left-over ] && echo there || echo gone")
            .await?;
        check_eq!(gone, "gone\n", "what was written before the reset");
    }
    live.close().await
}
