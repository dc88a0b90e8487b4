//! Finding, killing and measuring the processes of a sandbox, wherever they went.
//!
//! A process that left its command's process group, or its session, still has the environment
//! that it was started with. That is where sandboxes leave their marks.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::fd::OwnedFd,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use boxyard_plugin_api::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal},
};

/// How long killing goes on while something marked still turns up.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a process may take to get through its `execve` before we look again.
const RECHECK: Duration = Duration::from_millis(1);

/// The variables in the environment of every process of a sandbox, or of one command of it.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    sandbox: String,
    command: Option<String>,
}

impl Mark {
    const SANDBOX: &'static str = "BOXYARD_SANDBOX";
    const COMMAND: &'static str = "BOXYARD_COMMAND";

    /// Marks whatever belongs to a sandbox.
    pub(crate) fn sandbox(id: &str) -> Self {
        Self {
            sandbox: id.into(),
            command: None,
        }
    }

    /// Marks what one command of a sandbox started.
    pub(crate) fn command(id: &str, number: u64) -> Self {
        Self {
            sandbox: id.into(),
            command: Some(number.to_string()),
        }
    }

    /// Returns the mark as environment variables.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let command = self.command.as_deref();
        [(Self::SANDBOX, self.sandbox.as_str())]
            .into_iter()
            .chain(command.map(|number| (Self::COMMAND, number)))
    }

    fn is_in(&self, environment: &[u8]) -> bool {
        self.variables().all(|(name, value)| {
            environment.split(|byte| *byte == 0).any(|entry| {
                let entry = entry.strip_prefix(name.as_bytes());
                let entry = entry.and_then(|rest| rest.strip_prefix(b"="));
                entry == Some(value.as_bytes())
            })
        })
    }
}

/// Kills every marked process, until none is found; returns when they are dead.
///
/// # Errors
///
/// `PERMISSION_DENIED` for a process that may not be killed, `UNAVAILABLE` when some turned up
/// for as long as we looked.
pub(crate) async fn kill(mark: Mark) -> Result<()> {
    blocking(move || kill_until_none(&mark)).await
}

/// Measures every marked process.
pub(crate) async fn measure(mark: Mark) -> Result<Stats> {
    blocking(move || {
        let mut sum = Usage::default();
        for (pid, _pidfd) in find(&mark)?.processes {
            // One that ended meanwhile uses nothing.
            sum.add(usage_of(pid).unwrap_or_default());
        }
        Ok(Stats {
            processes: Some(sum.processes),
            memory_bytes: Some(sum.memory_bytes),
            // Those that ended are not in it, so it is not what `Stats::cpu_us` promises.
            other: BTreeMap::from([("live_cpu_seconds".into(), sum.cpu_seconds)]),
            ..Stats::default()
        })
    })
    .await
}

/// Looks whether this machine has what finding and killing stand on.
pub(crate) fn check() -> Result<()> {
    let missing = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Error::from(error).context(what)
    };
    pidfd_open(getpid(), PidfdFlags::empty())
        .map_err(io::Error::from)
        .map_err(missing("opening a pidfd, which needs Linux 5.3"))?;
    fs::read("/proc/self/environ").map_err(missing("reading /proc, which must be mounted"))?;
    Ok(())
}

/// Runs work that reads /proc or waits where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(error) => Err(Error::internal(format_args!("a blocking task: {error}"))),
    }
}

fn kill_until_none(mark: &Mark) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Found {
            processes: found,
            unsettled,
        } = find(mark)?;
        if found.is_empty() {
            if !unsettled || Instant::now() >= deadline {
                return Ok(());
            }
            thread::sleep(RECHECK);
        }
        for (pid, pidfd) in &found {
            match pidfd_send_signal(pidfd, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => {
                    return Err(Error::from(io::Error::from(errno))
                        .context(format_args!("killing process {pid}")));
                }
            }
        }
        for (pid, pidfd) in &found {
            let left = deadline.saturating_duration_since(Instant::now());
            if !ends_within(pidfd, left)? {
                return Err(Error::unavailable(format_args!(
                    "process {pid} is still there {} seconds after SIGKILL",
                    PATIENCE.as_secs()
                ))
                .retryable());
            }
        }
    }
}

/// What one look at all processes found.
#[derive(Debug, Default)]
struct Found {
    /// Those that carry the mark, each held by a pidfd.
    processes: Vec<(Pid, OwnedFd)>,
    /// Whether there was one that could not be told yet.
    unsettled: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    Marked,
    /// Or not ours to look at, or gone.
    Unmarked,
    /// In the middle of `execve`, with no environment yet.
    Unsettled,
}

fn find(mark: &Mark) -> Result<Found> {
    let mut found = Found::default();
    let mut environment = Vec::new();
    let entries = fs::read_dir("/proc").map_err(|error| Error::from(error).context("/proc"))?;
    for entry in entries {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        if pid == getpid() {
            continue;
        }
        match look(pid, mark, &mut environment) {
            Look::Marked => {}
            Look::Unmarked => continue,
            Look::Unsettled => {
                found.unsettled = true;
                continue;
            }
        }
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH | Errno::INVAL) => continue,
            // More than we can hold at once: the rest comes with the next round.
            Err(Errno::MFILE | Errno::NFILE) if !found.processes.is_empty() => break,
            Err(errno) => return Err(io::Error::from(errno).into()),
        };
        // The number may have gone to another process by now; the pidfd's cannot.
        match look(pid, mark, &mut environment) {
            Look::Marked => found.processes.push((pid, pidfd)),
            Look::Unmarked => {}
            Look::Unsettled => found.unsettled = true,
        }
    }
    Ok(found)
}

fn look(pid: Pid, mark: &Mark, environment: &mut Vec<u8>) -> Look {
    environment.clear();
    let read = File::open(format!("/proc/{pid}/environ"))
        .and_then(|mut file| file.read_to_end(environment));
    match read {
        Ok(0) if is_between_programs(pid) => Look::Unsettled,
        Ok(_) if mark.is_in(environment) => Look::Marked,
        _ => Look::Unmarked,
    }
}

/// Whether a process without an environment is on its way to one: `execve` gives it a new
/// memory first and says where the environment is in it last.
fn is_between_programs(pid: Pid) -> bool {
    const EXITING_OR_KERNEL: u32 = 0x0000_0004 | 0x0020_0000;
    Stat::read(pid).is_some_and(|stat| {
        let flags: u32 = stat.number(9).unwrap_or(EXITING_OR_KERNEL);
        let lives = !matches!(stat.field(3), Some("Z" | "X") | None);
        lives && flags & EXITING_OR_KERNEL == 0 && stat.number(51) == Some(0_u64)
    })
}

fn ends_within(pidfd: &OwnedFd, left: Duration) -> Result<bool> {
    let left = Timespec::try_from(left).unwrap_or_default();
    loop {
        let mut waited = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut waited, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
}

#[derive(Default)]
struct Usage {
    processes: u64,
    memory_bytes: u64,
    cpu_seconds: f64,
}

impl Usage {
    fn add(&mut self, other: Self) {
        self.processes += other.processes;
        self.memory_bytes += other.memory_bytes;
        self.cpu_seconds += other.cpu_seconds;
    }
}

fn usage_of(pid: Pid) -> Option<Usage> {
    let stat = Stat::read(pid)?;
    let ticks = stat.number::<f64>(14)? + stat.number::<f64>(15)?;
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    Some(Usage {
        processes: 1,
        memory_bytes: stat.number::<u64>(24)? * page,
        cpu_seconds: ticks / f64::from(per_second),
    })
}

/// `/proc/<pid>/stat`, whose fields `proc(5)` numbers.
struct Stat(String);

impl Stat {
    fn read(pid: Pid) -> Option<Self> {
        let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Some(Self(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Returns a field after the second, which is a name and may hold anything.
    fn field(&self, number: usize) -> Option<&str> {
        let (_, rest) = self.0.rsplit_once(')')?;
        rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
    }

    fn number<T: FromStr>(&self, number: usize) -> Option<T> {
        self.field(number)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_whole_and_nowhere_else() {
        let sandbox = Mark::sandbox("ab");
        let command = Mark::command("ab", 12);
        for (environment, of_sandbox, of_command) in [
            (
                &b"A=1\0BOXYARD_COMMAND=12\0BOXYARD_SANDBOX=ab\0"[..],
                true,
                true,
            ),
            (b"BOXYARD_SANDBOX=ab\0BOXYARD_COMMAND=1\0", true, false),
            (b"BOXYARD_SANDBOX=abc\0BOXYARD_COMMAND=12\0", false, false),
            (b"XBOXYARD_SANDBOX=ab\0", false, false),
            (b"X=BOXYARD_SANDBOX=ab\0", false, false),
            (b"", false, false),
        ] {
            let shown = String::from_utf8_lossy(environment);
            assert_eq!(sandbox.is_in(environment), of_sandbox, "{shown}");
            assert_eq!(command.is_in(environment), of_command, "{shown}");
        }
    }

    #[test]
    fn an_empty_environment_is_settled() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("1000")
            .env_clear()
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let deadline = Instant::now() + PATIENCE;
        while look(pid, &Mark::sandbox("s"), &mut Vec::new()) != Look::Unmarked {
            assert!(Instant::now() < deadline, "it never settles");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn this_machine_has_what_it_takes_and_we_can_be_measured() {
        check().unwrap();
        assert!(usage_of(getpid()).unwrap().memory_bytes > 0);
        assert!(Stat::read(getpid()).unwrap().number::<u64>(51).unwrap() > 0);
    }
}
