//! Which processes the sandbox has, and what they use.

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::Pid,
};
use serde::Serialize;

use crate::tree::{self, Stat};

/// A process of the sandbox.
#[derive(Debug, Serialize)]
pub(crate) struct Process {
    pid: i32,
    parent: i32,
    name: String,
    cpu_us: u64,
    memory_bytes: u64,
    /// Whether the command that started it has ended.
    left_behind: bool,
}

/// Lists what descends from runners; `is_left` says which runners' commands have ended.
pub(crate) fn list(runners: &[(Pid, bool)]) -> Vec<Process> {
    let ticks = clock_ticks_per_second().max(1);
    let page = page_size() as u64;
    let mut found = Vec::<Process>::new();
    // Parents come first, so that what descends from a runner is known by its parent.
    for pid in tree::descendants(&[]).unwrap_or_default() {
        if runners.iter().any(|(runner, _)| *runner == pid) {
            continue;
        }
        let Some(stat) = Stat::read(pid).filter(Stat::is_alive) else {
            continue;
        };
        let runner = runners
            .iter()
            .find(|(runner, _)| runner.as_raw_pid() == stat.parent);
        let parent = found.iter().find(|process| process.pid == stat.parent);
        let left_behind = match (runner, parent) {
            (Some((_, is_left)), _) => *is_left,
            (None, Some(parent)) => parent.left_behind,
            (None, None) => true,
        };
        found.push(Process {
            pid: pid.as_raw_pid(),
            parent: stat.parent,
            name: stat.name,
            cpu_us: stat.cpu_ticks * 1_000_000 / ticks,
            memory_bytes: stat.resident_pages * page,
            left_behind,
        });
    }
    found
}
