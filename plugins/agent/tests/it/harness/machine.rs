//! The machine that a test runs on: its file systems, its users, and what goes on meanwhile.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// A file system of its own, gone with this.
#[derive(Debug)]
pub(crate) struct Mount(pub(crate) PathBuf);

impl Mount {
    /// Mounts a small one in memory on a directory that it makes; only root can.
    pub(crate) fn tmpfs(on: PathBuf, options: &str) -> Self {
        fs::create_dir(&on).unwrap();
        run_on_host("mount", &["-t", "tmpfs", "-o", options, "none"], &on);
        Self(on)
    }

    /// Mounts a file on one that it makes; only root can.
    pub(crate) fn file(file: &Path, on: PathBuf) -> Self {
        fs::write(&on, "").unwrap();
        run_on_host("mount", &["--bind", file.to_str().unwrap()], &on);
        Self(on)
    }

    /// Makes it read-only.
    pub(crate) fn make_read_only(&self) {
        run_on_host("mount", &["-o", "remount,ro"], &self.0);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run_on_host("umount", &["-l"], &self.0);
    }
}

fn run_on_host(program: &str, arguments: &[&str], path: &Path) {
    let status = Command::new(program).args(arguments).arg(path).status();
    assert!(status.unwrap().success(), "{program} {}", path.display());
}

/// A thread of the test that does something over and over until this is gone.
#[derive(Debug)]
pub(crate) struct Meanwhile {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Meanwhile {
    pub(crate) fn repeat(mut work: impl FnMut() + Send + 'static) -> Self {
        let done = Arc::<AtomicBool>::default();
        let is_done = done.clone();
        let thread = std::thread::spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                work();
            }
        });
        Self {
            done,
            thread: Some(thread),
        }
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        // A test that panics already says more.
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Whether we are root; where not, says which promise is not looked at.
pub(crate) fn is_root(promise: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("BOXYARD_REQUIRE_ALL").is_none_or(|value| value != "1"),
            "needs root: {promise}"
        );
        // Past the capture of the test harness; nobody is left to tell if this fails.
        let _ = writeln!(io::stderr(), "SKIPPED {promise}: it needs root");
    }
    root
}
