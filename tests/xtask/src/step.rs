//! Running programs, one step after the other.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// Returns the workspace's directory.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Returns the directory of built programs and plugins of a profile.
pub(crate) fn built(profile: &str) -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    target.join(profile)
}

/// Returns cargo, as the one that started us is called.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Runs a step under a heading; it fails when its program does.
pub(crate) fn step(heading: &str, command: &mut Command) -> Result<(), String> {
    println!("\n== {heading}");
    let began = Instant::now();
    run(command)?;
    println!("== {heading}: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {status}"))
    }
}
