//! A Docker engine, a registry and the images that the tests run; and Podman.

use std::{
    env, fs,
    fs::File,
    os::unix::{net::UnixStream, process::CommandExt},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    setup::{apt_install, apt_update, is_root},
    step::{built, run, workspace},
};

/// Debian's packages of the engine and of a registry to pull from.
const PACKAGES: [&str; 3] = ["docker.io", "iptables", "docker-registry"];
/// Debian's packages of Podman. The engine's runtime is there for it too.
const PODMAN: [&str; 2] = ["podman", "crun"];
const SOCKET: &str = "/var/run/docker.sock";
/// How long an engine may take to start.
const START: Duration = Duration::from_secs(60);

/// Makes sure that there is an engine with the images of the tests, and a registry program;
/// returns whether all of it is there.
pub(crate) fn docker() -> bool {
    match provide() {
        Ok(()) => true,
        Err(reason) => {
            println!("!! SKIPPED: everything that needs a Docker engine: {reason}");
            false
        }
    }
}

/// Makes sure that there is a Podman; returns whether there is one. Its tests start and end its
/// service themselves.
pub(crate) fn podman() -> bool {
    if has("podman") {
        return true;
    }
    println!("\n== installing {}", PODMAN.join(", "));
    if let Err(reason) = apt_install(&PODMAN) {
        println!("!! SKIPPED: everything that needs Podman: {reason}");
        return false;
    }
    true
}

fn provide() -> Result<(), String> {
    if !has("docker-registry") || !(answers() || has("dockerd")) {
        println!("\n== installing {}", PACKAGES.join(", "));
        apt_install(&PACKAGES)?;
    }
    if !has("docker") {
        // From Debian 13 on it is a package of its own.
        apt_install(&["docker-cli"])?;
    }
    if !answers() {
        start()?;
    }
    println!("\n== images for the tests");
    let mut images = Command::new(workspace().join("tests/images/make"));
    run(&mut images).or_else(|reason| {
        println!("{reason}: once more, with apt's lists of today");
        apt_update()?;
        run(&mut images)
    })
}

/// Whether an engine answers, where docker's own tools look for it.
fn answers() -> bool {
    let asked = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success())
}

fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v -- \"$1\" >/dev/null", "sh", program])
        .status();
    found.is_ok_and(|status| status.success())
}

/// Starts an engine and leaves it running.
fn start() -> Result<(), String> {
    if let Ok(host) = env::var("DOCKER_HOST") {
        return Err(format!("no engine answers at DOCKER_HOST={host}"));
    }
    if !is_root() {
        return Err("no engine answers that this user may use, and only root can start one".into());
    }
    println!("\n== starting dockerd, which is left running");
    let directory = built("docker");
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let log = directory.join("dockerd.log");
    let file = |error| format!("{}: {error}", log.display());
    let output = File::create(&log).map_err(file)?;
    let errors = output.try_clone().map_err(file)?;
    let mut engine = Command::new("dockerd")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        // It outlives this program and its Ctrl-C.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start dockerd: {error}"))?;
    until_it_answers(&mut engine)
        .map_err(|reason| format!("dockerd {reason}; see {}", log.display()))
}

fn until_it_answers(engine: &mut Child) -> Result<(), String> {
    let began = Instant::now();
    while began.elapsed() < START {
        if UnixStream::connect(SOCKET).is_ok() && answers() {
            return Ok(());
        }
        let ended = engine.try_wait();
        if let Some(status) = ended.map_err(|error| error.to_string())? {
            return Err(format!("ended at once: {status}"));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(format!("did not answer within {} s", START.as_secs()))
}
