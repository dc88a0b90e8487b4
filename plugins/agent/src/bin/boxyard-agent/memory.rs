//! How often the kernel killed for want of memory where the agent is.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The counter of the memory cgroup that the agent, and with it every command, is in.
#[derive(Debug, Default)]
pub(crate) struct KillCounter {
    file: Option<File>,
}

impl KillCounter {
    /// Finds the counter; where there is none it stays at 0.
    pub(crate) fn open() -> Self {
        let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let file = candidates(&cgroups).find_map(|path| File::open(path).ok());
        Self { file }
    }

    pub(crate) fn read(&self) -> u64 {
        let mut bytes = [0; 512];
        let read = match &self.file {
            Some(file) => file.read_at(&mut bytes, 0).unwrap_or(0),
            None => 0,
        };
        let text = bytes.get(..read).unwrap_or_default();
        parse(&String::from_utf8_lossy(text)).unwrap_or(0)
    }
}

/// Lists where the counter may be, by what `/proc/self/cgroup` says; within a container its
/// own cgroup is mounted as if it were the topmost.
fn candidates(cgroups: &str) -> impl Iterator<Item = PathBuf> {
    let line = |line: &str| -> Option<[PathBuf; 2]> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = path.trim_start_matches('/');
        let (mount, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.events")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.oom_control")
        } else {
            return None;
        };
        let mount = Path::new(mount);
        Some([mount.join(path).join(file), mount.join(file)])
    };
    let found: Vec<_> = cgroups.lines().filter_map(line).flatten().collect();
    found.into_iter()
}

fn parse(text: &str) -> Option<u64> {
    let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
    text.lines().find_map(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_in_both_hierarchies() {
        assert_eq!(
            parse("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"),
            Some(2)
        );
        assert_eq!(
            parse("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"),
            Some(7)
        );
        assert_eq!(parse("oom_kill_disable 0\n"), None);
        let all: Vec<_> = candidates("5:memory:/a/b\n3:cpu:/c\n0::/d\n").collect();
        let expected = [
            "/sys/fs/cgroup/memory/a/b/memory.oom_control",
            "/sys/fs/cgroup/memory/memory.oom_control",
            "/sys/fs/cgroup/d/memory.events",
            "/sys/fs/cgroup/memory.events",
        ];
        assert_eq!(all, expected.map(PathBuf::from));
    }
}
