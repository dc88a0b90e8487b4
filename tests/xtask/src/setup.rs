//! What the tests need beside Rust: installed where that is allowed, named where it is not.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::step::{built, run};

/// The client that the server's routes are for, from PyPI.
const MS_ENCLAVE: &str = "ms-enclave[docker]==0.0.8";

/// The oldest compiler that plugins may be built with, and Debian's packages of it.
const OLDEST_RUST: &str = "1.85";
const OLDEST_RUST_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev"];

/// The compiler and cargo of [`OLDEST_RUST`], where the system has them.
pub(crate) const OLDEST_RUSTC: &str = "/usr/bin/rustc";
pub(crate) const OLDEST_CARGO: &str = "/usr/bin/cargo";

/// Makes sure that the oldest compiler is there; returns whether it is.
pub(crate) fn oldest_rust() -> bool {
    if has_oldest_rust() {
        return true;
    }
    println!("\n== installing Rust {OLDEST_RUST}, the oldest that plugins may use");
    if let Err(reason) = install_oldest_rust() {
        println!("!! SKIPPED: what needs Rust {OLDEST_RUST} at {OLDEST_RUSTC}: {reason}");
        return false;
    }
    has_oldest_rust()
}

fn has_oldest_rust() -> bool {
    let version = Command::new(OLDEST_RUSTC)
        .arg("--version")
        .stderr(Stdio::null())
        .output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    version.is_ok_and(|text| text.starts_with(&format!("rustc {OLDEST_RUST}")))
        && Path::new(OLDEST_CARGO).exists()
}

fn install_oldest_rust() -> Result<(), String> {
    apt_update()?;
    let listed = Command::new("apt-cache")
        .args(["madison", "rustc-web"])
        .output();
    let listed = listed.map_err(|error| format!("cannot start apt-cache: {error}"))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let version = listed
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(|version| version.starts_with(OLDEST_RUST))
        .ok_or_else(|| format!("no Debian package of it is offered; apt-cache says: {listed}"))?;
    let packages = OLDEST_RUST_PACKAGES.map(|package| format!("{package}={version}"));
    run(apt_get_install().arg("--allow-downgrades").args(packages))
}

/// Makes sure that there is a Python with ms-enclave's client; returns it.
pub(crate) fn ms_enclave() -> Option<PathBuf> {
    let directory = built("ms-enclave");
    let python = directory.join("bin/python");
    let works = |python: &Path| {
        let asked = Command::new(python)
            .args(["-c", "import docker, ms_enclave"])
            .stderr(Stdio::null())
            .status();
        asked.is_ok_and(|status| status.success())
    };
    if works(&python) {
        return Some(python);
    }
    println!("\n== installing {MS_ENCLAVE}");
    let made = run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&directory))
    .and_then(|()| {
        let pip = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            MS_ENCLAVE,
        ];
        run(Command::new(&python).args(pip))
    });
    match made {
        Ok(()) if works(&python) => Some(python),
        made => {
            let reason = made.err().unwrap_or_else(|| "it cannot be imported".into());
            println!("!! SKIPPED: the test with ms-enclave's own client: {reason}");
            None
        }
    }
}

/// Installs Debian's packages, where apt may be used.
pub(crate) fn apt_install(packages: &[&str]) -> Result<(), String> {
    apt_update()?;
    run(apt_get_install().args(packages))
}

/// Has apt learn what there is today.
pub(crate) fn apt_update() -> Result<(), String> {
    if !is_root() {
        return Err("only root can install packages".into());
    }
    run(Command::new("apt-get").args(["update", "-qq"]))
}

fn apt_get_install() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
    ]);
    command
}

/// Whether this user may install packages and start daemons.
pub(crate) fn is_root() -> bool {
    let asked = Command::new("id").arg("-u").output();
    asked.is_ok_and(|output| output.stdout == b"0\n")
}
