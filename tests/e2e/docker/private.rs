//! An engine of a test's own, to be stopped, killed and filled.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{IMAGE, WITHOUT, docker, engine, leave_out};

/// How long an engine may take to come or to go.
const BOUND: Duration = Duration::from_secs(60);

/// An engine whose files, socket and processes are apart from every other's. However the test
/// ends, nothing of it is left.
pub(super) struct Private {
    process: Option<Child>,
    options: &'static [&'static str],
    log: Arc<Mutex<Vec<String>>>,
    /// Everything that it has, and what its processes and mounts are known by.
    root: TempDir,
}

impl Drop for Private {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
        // What an engine that was killed leaves: its containers go on.
        for pid in self.processes() {
            for child in children(pid) {
                kill(child);
            }
            kill(pid);
        }
        let began = Instant::now();
        while !self.processes().is_empty() && began.elapsed() < BOUND {
            pause();
        }
        for mount in self.mounts().iter().rev() {
            // The directory's removal fails where this did, and the next run has another one.
            let _ = Command::new("umount").arg("--lazy").arg(mount).status();
        }
    }
}

impl Private {
    /// Starts one with the image of the tests in it; `None` where there can be none.
    pub(super) fn start(options: &'static [&'static str]) -> Option<Self> {
        Self::on_disk(options, None)
    }

    /// Starts one whose disk has no more than this many bytes.
    pub(super) fn small(bytes: u64) -> Option<Self> {
        Self::on_disk(&[], Some(bytes))
    }

    fn on_disk(options: &'static [&'static str], bytes: Option<u64>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            leave_out(WITHOUT, "an engine of its own", "this needs root");
            return None;
        }
        let found = engine(&["image", "inspect", "--format", "{{.Id}}", IMAGE]);
        if let Err(why) = found {
            leave_out(WITHOUT, "an engine of its own", &why);
            return None;
        }
        // Short: a socket's address is.
        let root = tempfile::Builder::new().prefix("boxyard-").tempdir();
        let mut private = Self {
            process: None,
            options,
            log: Arc::default(),
            root: root.unwrap(),
        };
        for directory in ["data", "run"] {
            fs::create_dir(private.path(directory)).unwrap();
        }
        if let Some(bytes) = bytes {
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=711")]);
            let mounted = mount.arg("boxyard-test").arg(private.disk()).status();
            assert!(mounted.unwrap().success(), "no small disk can be mounted");
        }
        if let Err(why) = private.run() {
            leave_out(WITHOUT, "an engine of its own", &why);
            return None;
        }
        let image = private.path("image.tar");
        let image = image.to_str().unwrap();
        engine(&["save", "-o", image, IMAGE]).unwrap();
        private.ask(&["load", "-i", image]).unwrap();
        Some(private)
    }

    /// Starts it again, on what it left.
    pub(super) fn start_again(&mut self) {
        self.run().unwrap();
    }

    /// Starts the daemon and waits until it answers.
    fn run(&mut self) -> Result<(), String> {
        assert!(self.process.is_none(), "it runs");
        let nothing = self.path("daemon.json");
        fs::write(&nothing, "{}").unwrap();
        // In a network of its own: an engine without a bridge removes that of another.
        let mut command = Command::new("unshare");
        command
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up; exec dockerd \"$@\"",
                "-",
            ])
            .arg("--config-file")
            .arg(nothing)
            .arg("--data-root")
            .arg(self.disk())
            .arg("--exec-root")
            .arg(self.path("run"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .args(["--host", &self.address()])
            .args(["--bridge=none", "--iptables=false", "--ip-masq=false"])
            .args(self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = command
            .spawn()
            .map_err(|error| format!("dockerd cannot be started: {error}"))?;
        let (listens, answer) = mpsc::channel();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let log = Arc::clone(&self.log);
        thread::spawn(move || read(stderr, &log, &listens));
        self.process = Some(process);
        self.listens(&answer).map_err(|why| {
            let log = self.log();
            let last = log.get(log.len().saturating_sub(60)..).unwrap_or_default();
            format!("dockerd {why}: {}", last.join("\n"))
        })
    }

    fn listens(&self, answer: &Receiver<()>) -> Result<(), String> {
        answer
            .recv_timeout(BOUND)
            .map_err(|error| error.to_string())?;
        self.ask(&["version"]).map(drop)
    }

    /// Ends it and waits until it is gone, its containerd included.
    pub(super) fn stop(&mut self, signal: Signal) {
        self.signal(signal);
        self.wait();
    }

    /// Sends it a signal, and waits for nothing.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            kill_process(Pid::from_child(process), signal).unwrap();
        }
    }

    /// Waits until it is gone, its containerd included.
    pub(super) fn wait(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let began = Instant::now();
        while process.try_wait().unwrap().is_none() {
            if began.elapsed() > BOUND {
                process.kill().unwrap();
            }
            pause();
        }
        // It goes with the daemon, and the next one would wait for it until then.
        while let Some(containerd) = self.containerd() {
            if began.elapsed() > BOUND / 4 {
                kill(containerd);
            }
            pause();
        }
        // And also where it is dead, and the system has yet to be told: there may be no such file.
        let _ = fs::remove_file(self.path("run/containerd/containerd.pid"));
    }

    /// Returns a command that runs in its network.
    pub(super) fn beside(&self, program: &str) -> Command {
        let pid = self.process.as_ref().map(Child::id).expect("it runs");
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg(program);
        command
    }

    /// Asks it with docker's own tool.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        docker(Some(&self.address()), arguments)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.path("socket").display())
    }

    /// The directory of its images and containers.
    pub(super) fn disk(&self) -> PathBuf {
        self.path("data")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn log(&self) -> MutexGuard<'_, Vec<String>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what runs of it beside the daemon: each is told where its files are.
    fn processes(&self) -> Vec<u32> {
        let root = format!("{}/", self.root.path().display());
        let pids = fs::read_dir("/proc").into_iter().flatten();
        let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid| command_line(*pid).contains(&root))
            .collect()
    }

    fn containerd(&self) -> Option<u32> {
        self.processes()
            .into_iter()
            .find(|pid| command_line(*pid).contains("containerd.toml"))
    }

    /// Returns what is mounted below its directory, those that are below others last.
    fn mounts(&self) -> Vec<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let mounts = mounts.map(PathBuf::from);
        mounts
            .filter(|path| path.starts_with(self.root.path()))
            .collect()
    }
}

/// Keeps what a daemon prints, and says when it listens.
fn read(lines: impl BufRead, log: &Mutex<Vec<String>>, listens: &Sender<()>) {
    for line in lines.lines().map_while(Result::ok) {
        if line.contains("API listen on") {
            // Nobody may wait any more.
            let _ = listens.send(());
        }
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(line);
    }
}

fn command_line(pid: u32) -> String {
    // It may be gone.
    let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    String::from_utf8_lossy(&line.unwrap_or_default()).replace('\0', " ")
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let lists = tasks.into_iter().flatten().filter_map(|task| {
        let task = task.ok()?.path();
        fs::read_to_string(task.join("children")).ok()
    });
    let pids = lists.flat_map(|list| {
        let pids = list.split_whitespace().map(str::parse);
        pids.filter_map(Result::ok).collect::<Vec<_>>()
    });
    pids.collect()
}

/// Kills a process that may be gone.
pub(super) fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
}

fn pause() {
    thread::sleep(Duration::from_millis(5));
}
