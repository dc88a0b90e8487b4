//! Who descends from this process, and killing all of them.
//!
//! This process is a subreaper, so whatever a command started stays below it, however often
//! it forked and whatever session it went to.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, pidfd_open, pidfd_send_signal,
        wait,
    },
};

/// How long killed processes may take to end.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often in a row what is new is stopped before all is killed.
const STOP_ROUNDS: usize = 100;

/// A process, told from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    pid: Pid,
    /// When it started, in the kernel's ticks.
    started: u64,
}

/// `/proc/<pid>/stat`, as far as it is of use here.
#[derive(Debug)]
pub(crate) struct Stat {
    pub(crate) name: String,
    pub(crate) state: u8,
    pub(crate) parent: i32,
    /// In the kernel's ticks.
    pub(crate) cpu_ticks: u64,
    started: u64,
    pub(crate) resident_pages: u64,
}

impl Stat {
    pub(crate) fn read(pid: Pid) -> Option<Self> {
        let bytes = fs::read(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name may hold anything, brackets included.
        let (head, rest) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Numbered as in proc(5), where the state is the third field.
        let field = |number: usize| fields.get(number.checked_sub(3)?).copied();
        let number = |at: usize| field(at)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            state: *field(3)?.as_bytes().first()?,
            parent: field(4)?.parse().ok()?,
            cpu_ticks: number(14)? + number(15)?,
            started: number(22)?,
            resident_pages: number(24)?,
        })
    }

    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }
}

/// Returns the descendants of this process, parents first, without those of `spare` and
/// themselves.
pub(crate) fn descendants(spare: &[Pid]) -> io::Result<Vec<Pid>> {
    let me = getpid();
    let mut found = vec![me];
    let mut next = 0;
    let mut all = None;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let children = match (&all, children_of(parent)) {
            (None, Some(children)) => children,
            // A kernel that keeps no such list.
            _ => {
                let all = match &mut all {
                    Some(all) => all,
                    None => all.insert(all_by_parent()?),
                };
                all.get(&parent.as_raw_pid()).cloned().unwrap_or_default()
            }
        };
        for child in children {
            if !spare.contains(&child) && !found.contains(&child) {
                found.push(child);
            }
        }
    }
    found.remove(0);
    Ok(found)
}

/// Returns the children of a process; `None` where the kernel does not say.
fn children_of(parent: Pid) -> Option<Vec<Pid>> {
    let parent = parent.as_raw_pid();
    let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else {
        // It is gone, and its children are ours now.
        return Some(Vec::new());
    };
    let mut children = Vec::new();
    for task in tasks.flatten() {
        match fs::read_to_string(task.path().join("children")) {
            Ok(text) => {
                let pids = text.split_ascii_whitespace();
                children.extend(pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
            }
            Err(_) if task.path().join("stat").exists() => return None,
            Err(_) => {}
        }
    }
    Some(children)
}

fn all_by_parent() -> io::Result<HashMap<i32, Vec<Pid>>> {
    let mut all = HashMap::<i32, Vec<Pid>>::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        if let Some(stat) = Stat::read(pid) {
            all.entry(stat.parent).or_default().push(pid);
        }
    }
    Ok(all)
}

/// Kills all descendants, however fast they fork: first everything is stopped, then killed.
///
/// A stopped process forks no more, and one that is killed while it forks leaves no child, so
/// each round leaves fewer.
#[derive(Debug, Default)]
pub(crate) struct Hunt {
    stopped: HashSet<Identity>,
    killed: HashSet<Identity>,
}

impl Hunt {
    /// Returns how many processes were sent their end.
    pub(crate) fn killed(&self) -> u32 {
        u32::try_from(self.killed.len()).unwrap_or(u32::MAX)
    }

    /// Stops and kills what descends from this process, `spare` and theirs apart; returns how
    /// many were found.
    pub(crate) fn round(&mut self, spare: &[Pid]) -> io::Result<usize> {
        let mut found = Vec::new();
        for _ in 0..STOP_ROUNDS {
            found = descendants(spare)?;
            let mut fresh = false;
            for pid in &found {
                fresh |= Self::signal(*pid, Signal::STOP, &found, &mut self.stopped);
            }
            if !fresh {
                break;
            }
        }
        for pid in &found {
            Self::signal(*pid, Signal::KILL, &found, &mut self.killed);
        }
        Ok(found.len())
    }

    /// Signals a process that was not signalled before; returns whether it was.
    fn signal(pid: Pid, signal: Signal, family: &[Pid], done: &mut HashSet<Identity>) -> bool {
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        // Held by its descriptor, it cannot become another; that it still is one of ours is
        // what this second look says.
        let Some(stat) = Stat::read(pid).filter(Stat::is_alive) else {
            return false;
        };
        let parent = Pid::from_raw(stat.parent);
        let is_ours = parent.is_some_and(|parent| parent == getpid() || family.contains(&parent));
        let identity = Identity {
            pid,
            started: stat.started,
        };
        is_ours && done.insert(identity) && pidfd_send_signal(pidfd, signal).is_ok()
    }
}

/// What [`reap`] found.
#[derive(Debug)]
pub(crate) enum Reaped {
    Child(Pid, WaitStatus),
    /// There are children, and none has ended.
    Nothing,
    NoChildren,
}

/// Reaps one child that ended, if there is one.
pub(crate) fn reap() -> Reaped {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => return Reaped::Child(pid, status),
            Ok(None) => return Reaped::Nothing,
            Err(Errno::INTR) => {}
            Err(_) => return Reaped::NoChildren,
        }
    }
}

/// Kills and reaps every descendant; tells `reaped` of each child. Returns how many were killed.
///
/// # Errors
///
/// `/proc` cannot be read, or some still live: those of a user whom we may not signal.
pub(crate) fn kill_all(mut reaped: impl FnMut(Pid, WaitStatus)) -> io::Result<u32> {
    let start = Instant::now();
    let mut hunt = Hunt::default();
    // Where nobody is left there is nobody to look for.
    let mut patience = Duration::ZERO;
    loop {
        let round = Instant::now();
        loop {
            match reap() {
                Reaped::Child(pid, status) => reaped(pid, status),
                Reaped::NoChildren => return Ok(hunt.killed()),
                Reaped::Nothing if round.elapsed() >= patience => break,
                Reaped::Nothing => std::thread::sleep(Duration::from_micros(200)),
            }
        }
        let found = hunt.round(&[])?;
        patience = Duration::from_millis(20);
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other(format!(
                "{found} processes still live {} seconds after they were killed",
                PATIENCE.as_secs()
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "17 (a) R (b) S 4 1 1 0 -1 0 0 0 0 0 5 6 0 0 20 0 1 0 999 4096 12 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.name, "a) R (b");
        assert_eq!((stat.state, stat.parent, stat.cpu_ticks), (b'S', 4, 11));
        assert_eq!((stat.started, stat.resident_pages), (999, 12));
        assert!(Stat::parse("17 (a) S").is_none());
        assert!(Stat::read(getpid()).unwrap().is_alive());
    }

    #[test]
    fn children_are_listed_and_theirs_too() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 1000 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let pid = Pid::from_child(&child);
        let inner =
            children_of(pid).unwrap_or_else(|| all_by_parent().unwrap()[&pid.as_raw_pid()].clone());
        assert_eq!(inner.len(), 1);
        assert!(descendants(&[]).unwrap().contains(&inner[0]));
        assert!(!descendants(&[pid]).unwrap().contains(&inner[0]));
        assert!(all_by_parent().unwrap()[&pid.as_raw_pid()].contains(&inner[0]));
        rustix::process::kill_process(inner[0], Signal::KILL).unwrap();
        child.wait().unwrap();
    }
}
