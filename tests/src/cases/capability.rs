//! What a type declares it does, and what it does not it refuses.

use boxyard_plugin_api::{
    Command, Control, Controls, ErrorCode, Isolation, LogRequest, TerminalSize, pipe,
};

use super::exec::SOON;
use crate::{
    case::{
        Needs::{AtLeast, Capability, CommandsWithout, NoCapability},
        cases,
    },
    subject::{Subject, call, collect, driven, streams},
    verdict::{Outcome, check, check_eq},
};

cases! {
    "capability-terminal" "K1" Must Capability("terminal") => terminal;
    "capability-terminal-is-resized" "K1" Must Capability("terminal") => resized;
    "capability-terminal-undeclared" "K2" Must CommandsWithout("terminal") => no_terminal;
    "capability-users" "K1" Must Capability("users") => users;
    "capability-users-unknown" "K1" Must Capability("users") => unknown_user;
    "capability-users-undeclared" "K2" Must CommandsWithout("users") => no_users;
    "capability-limits-of-a-command" "K3" Must Capability("commands") => limits;
    "capability-limit-unknown" "K3" Must Capability("commands") => unknown_limit;
    "capability-isolation-hides-the-hosts-files" "K4" Must AtLeast(Isolation::Container) => hides_files;
    "capability-isolation-hides-the-hosts-processes" "K4" Must AtLeast(Isolation::Container) => hides_processes;
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
    let (_keys, stdin) = pipe();
    let (controls, source) = pipe();
    let (io, stdout, _stderr) = streams(stdin, Controls::from_source(source));
    // A size comes when it comes: nothing says that it is before what is typed after it.
    let line = "echo ready; until stty size | grep '40 100'; do sleep 0.05; done";
    let mut command = Command::shell(line).timeout(SOON);
    command.stdin = true;
    command.tty = Some(SIZE);
    let driving = async {
        stdout.read(100).await?;
        let size = TerminalSize {
            columns: 100,
            rows: 40,
        };
        controls.write(Control::Resize(size).to_line()).await?;
        let rest = stdout.read_to_end(1000).await?;
        let rest = String::from_utf8_lossy(&rest).into_owned();
        check!(
            rest.contains("40 100"),
            "the size after a resize: expected `40 100` in {rest:?}"
        );
        Ok(())
    };
    let running = live.handle.execute_command(&command, io, call());
    let exit = driven(running, driving).await?;
    check_eq!(exit?.exit_code, 0, "its exit code");
    live.close().await
}

/// Expects a command to be refused as something that the type does not do.
async fn unsupported(subject: &Subject, command: Command, what: &str) -> Outcome {
    let live = subject.sandbox().await?;
    check_eq!(
        live.code(command).await,
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
    check_eq!(
        live.code(command).await,
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

async fn limits(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let mut command = Command::shell("ulimit -n; ulimit -f");
    command.limits = [("nofile".into(), 63), ("fsize".into(), 1024 * 1024)].into();
    let out = live.run(command).await?.out();
    let mut lines = out.lines();
    check_eq!(lines.next(), Some("63"), "the limit of open files");
    check!(
        lines.next().is_some_and(|blocks| blocks != "unlimited"),
        "the limit of a file's size is not set"
    );
    live.close().await
}

async fn unknown_limit(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let mut command = Command::shell("true");
    command.limits = [("no-such-limit".into(), 1)].into();
    check_eq!(
        live.code(command).await,
        Err(ErrorCode::INVALID_ARGUMENT),
        "a limit that there is not"
    );
    live.close().await
}

async fn hides_files(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let secret = subject.root().join("hosts-own");
    std::fs::write(&secret, "of the host")?;
    let command = Command::argv(["cat".to_owned(), secret.to_string_lossy().into_owned()]);
    let output = live.run(command).await?;
    check!(
        !output.out().contains("of the host"),
        "it says that it isolates, and a command reads files of the host"
    );
    live.close().await
}

async fn hides_processes(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    // This process, which has the name of the case's assignment in its arguments.
    let own = std::fs::read_to_string("/proc/self/cmdline")?;
    let look = format!(
        "cat /proc/{}/cmdline 2>/dev/null || true",
        std::process::id()
    );
    check!(
        live.sh(&look).await? != own,
        "it says that it isolates, and a command sees processes of the host"
    );
    live.close().await
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
