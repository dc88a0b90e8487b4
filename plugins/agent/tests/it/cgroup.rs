//! Bounds for what would take the machine down.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command as HostCommand,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::harness::{eventually, is_root};

/// A cgroup of one's own, in either hierarchy.
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes one with this controller; `None`, and a word about it, where that cannot be.
    pub(crate) fn new(controller: &str, name: &str) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if !is_root(&format!("a bound by the {controller} cgroup ({name})")) {
            return None;
        }
        let old = Path::new("/sys/fs/cgroup").join(controller);
        let parent = if old.is_dir() {
            old
        } else {
            PathBuf::from("/sys/fs/cgroup")
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("boxyard-{name}-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Some(Self { path })
    }

    /// Sets one of its files.
    pub(crate) fn set(&self, file: &str, value: &str) {
        let file = self.path.join(file);
        fs::write(&file, value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// Bounds memory, swap included, in bytes.
    pub(crate) fn limit_memory(&self, bytes: u64) {
        if self.path.join("memory.max").exists() {
            self.set("memory.max", &bytes.to_string());
            self.set("memory.swap.max", "0");
        } else {
            self.set("memory.limit_in_bytes", &bytes.to_string());
        }
    }

    /// Makes a program start in it.
    pub(crate) fn enter(&self, program: &HostCommand) -> HostCommand {
        let mut entering = HostCommand::new("/bin/sh");
        entering
            .args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""])
            .arg(&self.path)
            .arg(program.get_program());
        entering
    }

    /// Removes it; nothing may run in it any more.
    pub(crate) async fn remove(self) {
        eventually("an empty cgroup", || fs::remove_dir(&self.path).is_ok()).await;
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Gone already, or a test failed and whoever looks for the reason finds it here.
        let _ = fs::remove_dir(&self.path);
    }
}
