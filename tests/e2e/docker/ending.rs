//! Stopping is quick, whatever the commands think of it, and works for others than root.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, chown},
    process::{Command as Process, Stdio},
    time::{Duration, Instant},
};

use boxyard_host::Command;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{Dock, IMAGE, ended};
use crate::{skip, world::bounded};

/// How long a machine that does other things may take for what takes a tenth of a second.
const QUICK: Duration = Duration::from_secs(2);

const STUBBORN: &str = "trap '' TERM INT HUP; echo up; while :; do sleep 600; done";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_that_ignores_signals_is_deleted_at_once() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({})).await;
        for _ in 0..4 {
            let started = format!("({STUBBORN}) >/dev/null & true");
            sandbox.run(Command::shell(started), None).await.unwrap();
        }
        let busy = sandbox.clone();
        let busy = tokio::spawn(async move { busy.run(Command::shell(STUBBORN), None).await });
        let began = Instant::now();
        dock.delete(&sandbox).await;
        let took = began.elapsed();
        dock.is_clean();
        assert!(took < QUICK, "it took {took:?}");
        // It may have been told how it was killed.
        let ended = busy.await.unwrap();
        assert!(
            ended
                .as_ref()
                .map_or(true, |ended| ended.exit.signal == Some(9)),
            "{ended:?}"
        );
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_its_own_has_no_more_time_to_end_than_the_stop() {
    let Some(mut dock) = Dock::new(IMAGE) else {
        return;
    };
    dock.yard.config.timeouts.stop = Duration::from_secs(4);
    bounded(async {
        let dock = dock.start().await;
        let stubborn = format!("trap '' TERM; touch /up; {STUBBORN}");
        let sandbox = dock.sandbox(json!({ "command": stubborn, "stop_timeout": 25 }));
        let sandbox = sandbox.await;
        let up = Command::shell("until test -e /up; do sleep 0.01; done");
        sandbox.run(up, None).await.unwrap();
        let began = Instant::now();
        dock.delete(&sandbox).await;
        let took = began.elapsed();
        dock.is_clean();
        // The stop did not fail: there was time left for it when the command's was over.
        let failed = sandbox.events().iter().any(|event| event.kind == "error");
        assert!(!failed, "{:?}", sandbox.events());
        // It had its time, and no more.
        let least = Duration::from_secs(1);
        assert!((least..4 * QUICK).contains(&took), "it took {took:?}");
        let error = dock.create(json!({ "stop_timeout": 3600 })).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("stop_timeout"), "{error}");
        dock.end().await;
    })
    .await;
}

#[test]
fn a_run_that_is_terminated_leaves_nothing() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    let mut runs = Vec::new();
    for _ in 0..3 {
        let mut run = dock.run(&["--shell", STUBBORN]).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(run.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        runs.push((run, stdout));
    }
    assert_eq!(dock.containers().len(), 3);
    let began = Instant::now();
    for (run, _) in &runs {
        kill_process(Pid::from_child(run), Signal::TERM).unwrap();
    }
    for (run, _) in &mut runs {
        assert_eq!(run.wait().unwrap().code(), Some(143));
    }
    let took = began.elapsed();
    dock.is_clean();
    assert!(took < 2 * QUICK, "it took {took:?}");
}

#[test]
fn a_user_of_the_group_docker_needs_no_root() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    let group = Process::new("getent").args(["group", "docker"]).output();
    let group = group.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let group = group.unwrap_or_default();
    let Some(group) = group
        .split(':')
        .nth(2)
        .filter(|_| rustix::process::geteuid().is_root())
    else {
        skip(
            "a user of the group docker",
            "this needs root and that group",
        )
        .unwrap();
        return;
    };
    // The program is where only we may read.
    let home = tempfile::Builder::new()
        .prefix("boxyard-test-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let run = dock.run(&["--shell", "echo hi; id -u"]);
    let program = home.path().join("boxyard");
    fs::copy(run.get_program(), &program).unwrap();
    let plugins = home.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    for entry in fs::read_dir(dock.yard.plugins()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), plugins.join(entry.file_name())).unwrap();
    }
    let config = home.path().join("boxyard.toml");
    fs::copy(dock.yard.root().join("boxyard.toml"), config).unwrap();
    let state = home.path().join("state/boxyard");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("host-id"), &dock.id).unwrap();
    let nobody = Some(65534);
    for path in [
        "",
        "plugins",
        "state",
        "state/boxyard",
        "state/boxyard/host-id",
    ] {
        chown(home.path().join(path), nobody, nobody).unwrap();
    }
    for entry in fs::read_dir(&plugins).unwrap() {
        chown(entry.unwrap().path(), nobody, nobody).unwrap();
    }
    let here = dock.yard.root().to_str().unwrap().to_owned();
    let there = home.path().to_str().unwrap();
    let mut lowered = Process::new("setpriv");
    lowered
        .args([
            "--reuid",
            "65534",
            "--regid",
            group.trim(),
            "--clear-groups",
            "--",
        ])
        .arg(program)
        .args(
            run.get_args()
                .map(|word| word.to_str().unwrap().replace(&here, there)),
        )
        .env_clear()
        .current_dir(home.path())
        .stdin(Stdio::null());
    for (name, value) in run.get_envs() {
        let value = value.unwrap_or_default().to_str().unwrap();
        lowered.env(name, value.replace(&here, there));
    }
    let ended = ended(&lowered.output().unwrap());
    assert_eq!((ended.0, &*ended.1), (Some(0), "hi\n0\n"), "{}", ended.2);
    dock.is_clean();
    let meetings = state.join("plugins").join(super::PLUGIN).join("meetings");
    assert_eq!(fs::read_dir(meetings).unwrap().count(), 0);
}
