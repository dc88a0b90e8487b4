//! What is used is given back.

use std::{
    fs,
    time::{Duration, Instant},
};

use boxyard_plugin_api::Command;

use crate::{
    case::{
        Needs::{Capability, SandboxType},
        cases,
    },
    subject::{Live, Subject, within},
    verdict::{Finding, Outcome, check},
};

cases! {
    "hygiene-descriptors-of-commands" "H1" Must Capability("commands") => descriptors_of_commands;
    "hygiene-descriptors-of-sandboxes" "H1" Must SandboxType => descriptors_of_sandboxes;
    "hygiene-threads" "H2" Must Capability("commands") => threads;
    "hygiene-memory" "H3" Must Capability("commands") => memory { deadline: Duration::from_secs(60) };
    "hygiene-temporary-files" "H4" Must SandboxType => temporary_files;
    "hygiene-children-are-waited-for" "H5" Must SandboxType => zombies;
    "hygiene-shutdown-is-quick" "H6" Must SandboxType => shutdown;
}

/// How long what was used may take to be given back.
const SETTLED: Duration = Duration::from_secs(4);

/// Expects a number to come back to where it was, but for some.
async fn comes_back(
    what: &str,
    count: fn() -> std::io::Result<usize>,
    before: usize,
    slack: usize,
) -> Outcome {
    let began = Instant::now();
    loop {
        let now = count()?;
        if now <= before + slack {
            return Ok(());
        }
        check!(
            began.elapsed() < SETTLED,
            "{what}: expected {before} as before, found {now}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn descriptors() -> std::io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

fn thread_count() -> std::io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

async fn commands(live: &Live, number: usize) -> Outcome {
    for _ in 0..number {
        let code = live.code(Command::argv(["true"])).await;
        check!(code == Ok(0), "one of many commands: {code:?}");
    }
    Ok(())
}

async fn descriptors_of_commands(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    commands(&live, 10).await?;
    let before = descriptors()?;
    commands(&live, 40).await?;
    comes_back("open descriptors after 40 commands", descriptors, before, 2).await?;
    live.close().await
}

async fn descriptors_of_sandboxes(subject: Subject) -> Outcome {
    let cycles = async |number| {
        for _ in 0..number {
            subject.sandbox().await?.close().await?;
        }
        Ok::<_, Finding>(())
    };
    cycles(2).await?;
    let before = descriptors()?;
    cycles(8).await?;
    comes_back("open descriptors after 8 sandboxes", descriptors, before, 2).await
}

async fn threads(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    commands(&live, 10).await?;
    let before = thread_count()?;
    commands(&live, 40).await?;
    comes_back("threads after 40 commands", thread_count, before, 6).await?;
    live.close().await
}

/// The memory that this process holds, in KiB.
fn resident() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.unwrap_or_default().parse()?)
}

async fn memory(subject: Subject) -> Outcome {
    const LIMIT: u64 = 16 * 1024;
    let live = subject.sandbox().await?;
    commands(&live, 20).await?;
    let before = resident()?;
    commands(&live, 100).await?;
    let after = resident()?;
    check!(
        after < before + LIMIT,
        "100 commands took it from {before} KiB to {after} KiB: expected less than {LIMIT} more"
    );
    live.close().await
}

async fn temporary_files(subject: Subject) -> Outcome {
    for _ in 0..2 {
        subject.sandbox().await?.close().await?;
    }
    for entry in fs::read_dir(std::env::temp_dir())? {
        let path = entry?.path();
        check!(
            subject.root().starts_with(&path),
            "two sandboxes that are gone left {}",
            path.display()
        );
    }
    Ok(())
}

/// The children of this process that ended, and that nobody waited for.
fn dead_children() -> std::io::Result<usize> {
    let own = std::process::id().to_string();
    let mut dead = 0;
    for entry in fs::read_dir("/proc")? {
        let Ok(stat) = fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        // State and parent follow the name, which may have blanks itself.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        if (fields.next(), fields.next()) == (Some("Z"), Some(own.as_str())) {
            dead += 1;
        }
    }
    Ok(dead)
}

async fn zombies(subject: Subject) -> Outcome {
    subject.sandbox().await?.close().await?;
    drop(subject.sandbox().await?);
    comes_back("dead children that nobody waits for", dead_children, 0, 0).await
}

async fn shutdown(subject: Subject) -> Outcome {
    drop(subject.sandbox().await?);
    let limit = Duration::from_secs(5);
    within(limit, "the end of the plugin", subject.shut_down()).await
}
