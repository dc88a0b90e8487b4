//! A `boxyard` that is killed at any moment leaves nothing that the next one does not remove.
//!
//! `BOXYARD_REPEAT` says how often it is killed in each stage of a sandbox's life.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{Dock, IMAGE, ended, engine};
use crate::world::{bounded, run};

/// How long anything may take that must come.
const BOUND: Duration = Duration::from_secs(30);

fn repeats() -> u32 {
    let text = env::var("BOXYARD_REPEAT").ok();
    text.map_or(20, |text| text.parse().unwrap())
}

/// What happens to the containers of a host, as the engine tells it.
struct Events {
    listener: Child,
    actions: Receiver<String>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.listener.kill().unwrap();
        self.listener.wait().unwrap();
    }
}

impl Events {
    fn of(dock: &Dock) -> Self {
        let label = format!("label=dev.boxyard.host={}", dock.id);
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let mut listener = Command::new("docker")
            .args(["events", "--filter", &label, "--format", "{{.Action}}"])
            // From now on, however long it takes to begin.
            .args(["--since", &now.as_secs().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(listener.stdout.take().unwrap()).lines();
        let (sender, actions) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { listener, actions }
    }

    /// Waits until something happens.
    fn wait(&self, action: &str) {
        loop {
            let next = self.actions.recv_timeout(BOUND);
            if next.unwrap_or_else(|_| panic!("no {action}")) == action {
                return;
            }
        }
    }

    fn forget(&self) {
        while self.actions.try_recv().is_ok() {}
    }
}

/// Where a `boxyard run` is when it is killed, at some moment until it is at the next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Create,
    Start,
    Exec,
    Stop,
    Remove,
}

impl Stage {
    const ALL: [Self; 5] = [
        Self::Create,
        Self::Start,
        Self::Exec,
        Self::Stop,
        Self::Remove,
    ];

    /// The line that the command runs, and how it shows that it does.
    fn line(self) -> &'static str {
        match self {
            Self::Exec => "while :; do echo up; sleep 0.01 & done",
            _ => "echo up",
        }
    }
}

/// Waits until the command runs.
fn wait_for_line(run: &mut Child) {
    let mut line = String::new();
    let mut stdout = BufReader::new(run.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    run.stdout = Some(stdout.into_inner());
}

impl Dock {
    fn meeting_names(&self) -> BTreeSet<OsString> {
        let names = fs::read_dir(self.meetings()).into_iter().flatten();
        names.map(|entry| entry.unwrap().file_name()).collect()
    }

    fn wait_for_meeting_beside(&self, before: &BTreeSet<OsString>) {
        let began = Instant::now();
        while self.meeting_names().is_subset(before) {
            assert!(began.elapsed() < BOUND, "no meeting place");
            thread::yield_now();
        }
    }

    /// Sweeps with one more run; returns how long that takes.
    pub(super) fn next_run_sweeps(&self) -> Duration {
        // An engine may still be making what was asked for by those who are dead.
        let mut quiet = (Instant::now(), self.containers());
        while quiet.0.elapsed() < Duration::from_millis(500) {
            let found = self.containers();
            if found != quiet.1 {
                quiet = (Instant::now(), found);
            }
        }
        let began = Instant::now();
        let next = self.run(&["--", "echo", "next"]).output().unwrap();
        let ended = ended(&next);
        assert_eq!((ended.0, &*ended.1), (Some(0), "next\n"), "{}", ended.2);
        self.is_clean();
        let leases = self.yard.root().join("state/boxyard/leases");
        assert_eq!(fs::read_dir(leases).unwrap().count(), 0);
        began.elapsed()
    }
}

#[test]
fn what_a_run_leaves_that_was_killed_at_any_moment_goes_with_the_next() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    // What is done once is done.
    dock.next_run_sweeps();
    let events = Events::of(&dock);
    for stage in Stage::ALL {
        let mut left = Vec::new();
        for moment in 0..repeats() {
            let before = dock.meeting_names();
            events.forget();
            let mut run = dock.run(&["--shell", stage.line()]).spawn().unwrap();
            match stage {
                Stage::Create => dock.wait_for_meeting_beside(&before),
                Stage::Start => events.wait("create"),
                Stage::Exec | Stage::Stop => wait_for_line(&mut run),
                Stage::Remove => events.wait("die"),
            }
            // Until the next stage, about: no step is as long as this, and most are shorter.
            let until = Instant::now() + Duration::from_millis(4) * moment;
            while Instant::now() < until {
                thread::yield_now();
            }
            run.kill().unwrap();
            run.wait().unwrap();
            left.push(dock.containers().len());
        }
        let took = dock.next_run_sweeps();
        assert!(took < BOUND, "{stage:?}: the sweep took {took:?}");
        // Or nothing was tried.
        let was_hit = left.iter().any(|count| *count > 0);
        let always_hit = matches!(stage, Stage::Start | Stage::Exec);
        assert!(was_hit || !always_hit, "{stage:?}: no kill left anything");
    }
}

#[test]
fn over_attach_a_killed_run_leaves_nothing_either_and_no_volume() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    dock.next_run_sweeps();
    let events = Events::of(&dock);
    let mut volumes = BTreeSet::new();
    for stage in [Stage::Start, Stage::Exec, Stage::Remove] {
        for moment in 0..repeats().div_ceil(4) {
            events.forget();
            let arguments = ["-c", "transport=attach", "-c", "read_only=true", "--shell"];
            let mut run = dock.run(&arguments);
            let mut run = run.arg(stage.line()).spawn().unwrap();
            match stage {
                Stage::Start => events.wait("create"),
                Stage::Remove => events.wait("die"),
                _ => wait_for_line(&mut run),
            }
            let until = Instant::now() + Duration::from_millis(10) * moment;
            while Instant::now() < until {
                thread::yield_now();
            }
            run.kill().unwrap();
            run.wait().unwrap();
            for container in dock.containers() {
                let format = "{{range .Mounts}}{{.Name}} {{end}}";
                // It may be swept at this moment.
                let mounts = engine(&["inspect", "--format", format, &container]);
                let names = mounts.unwrap_or_default();
                volumes.extend(names.split_whitespace().map(str::to_owned));
            }
        }
        dock.next_run_sweeps();
    }
    assert!(!volumes.is_empty(), "no run had a volume");
    for volume in volumes {
        let found = engine(&["volume", "inspect", &volume]);
        assert!(found.is_err(), "the volume {volume} is left");
    }
}

#[test]
fn a_run_that_is_terminated_at_any_moment_cleans_up_itself() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    let began = Instant::now();
    let whole = dock.run(&["--", "true"]).output().unwrap();
    assert!(whole.status.success(), "{whole:?}");
    let whole = began.elapsed();
    let moments = repeats();
    for moment in 1..=moments {
        let began = Instant::now();
        let mut run = dock.run(&["--", "true"]).spawn().unwrap();
        let until = began + whole * moment / moments;
        while Instant::now() < until {
            thread::yield_now();
        }
        // Its sandbox may be gone, and it with it.
        let _ = kill_process(Pid::from_child(&run), Signal::TERM);
        let ended = run.wait().unwrap();
        let is_known = ended.signal() == Some(15) || matches!(ended.code(), Some(0 | 143));
        assert!(
            is_known,
            "{ended:?} after {moment} of {moments} of {whole:?}"
        );
        dock.is_clean();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_container_of_a_living_host_is_left_alone_by_the_sweep_of_another() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({})).await;
        for _ in 0..3 {
            let next = dock.run(&["--", "echo", "next"]).output().unwrap();
            assert_eq!(next.status.code(), Some(0), "{next:?}");
            assert_eq!(dock.containers().len(), 1);
            assert!(dock.host().manager().sweep().await.is_empty());
        }
        let result = run(&sandbox, &["echo", "still", "here"]).await.unwrap();
        assert_eq!(result.stdout_text(), "still here\n");
        dock.end().await;
    })
    .await;
}
