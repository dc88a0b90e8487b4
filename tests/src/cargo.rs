//! Building with cargo from within a test.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What cargo built: shared libraries and programs, by the name of their target.
pub type Artifacts = BTreeMap<String, PathBuf>;

/// Returns the directory of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Returns the target directory that this test was built in.
///
/// # Errors
///
/// The test runs from somewhere else.
pub fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let target = program
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").exists());
    target
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is in no target directory of cargo's", program.display()))
}

/// Returns a cargo for a package that is no part of this build: the profile and the flags of this
/// build do not steer it.
///
/// What rustup was told stays: without `RUSTUP_TOOLCHAIN` its proxies choose a toolchain by
/// themselves, and may install or update the one that everybody on the machine shares. So does
/// what chooses a compiler: with [`cargo`] it is the one of this build.
pub fn foreign(program: impl Into<OsString>, directory: &Path, target: &Path) -> Command {
    let mut command = Command::new(program.into());
    for (name, _) in env::vars_os() {
        if steers(&name.to_string_lossy()) {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(directory)
        .env("CARGO_TARGET_DIR", target)
        .env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// Returns a `cargo build` as [`foreign`] has it, for [`build`].
pub fn foreign_build(program: impl Into<OsString>, directory: &Path, target: &Path) -> Command {
    let mut command = foreign(program, directory, target);
    command.args(["build", "--message-format=json"]);
    command
}

/// Whether a variable of the environment is about this build: its cargo, profile or flags.
fn steers(name: &str) -> bool {
    let flags = [
        "CARGO",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "RUSTFLAGS",
    ];
    flags.contains(&name) || name.starts_with("CARGO_PROFILE_")
}

/// Returns a `cargo build` that neither installs nor updates a toolchain, for [`build`].
fn building(program: impl Into<OsString>) -> Command {
    let mut command = Command::new(program.into());
    command
        .args(["build", "--message-format=json"])
        .env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// Returns the cargo that runs this test.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Returns a program of the workspace, built once for all tests.
///
/// # Errors
///
/// It does not build, or there is no such program.
pub fn program(name: &str) -> Result<PathBuf> {
    let program = build_workspace()?.get(name).cloned();
    program.with_context(|| format!("the workspace has no program `{name}`"))
}

/// Builds all of the workspace, once, in the profile of this test.
pub(crate) fn build_workspace() -> Result<&'static Artifacts> {
    static BUILT: OnceLock<Result<Artifacts, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let build = || {
            let mut command = building(cargo());
            command
                .args(["--workspace", "--lib", "--bins", "--examples"])
                .args(profile()?)
                .current_dir(workspace())
                .env("CARGO_TARGET_DIR", target_dir()?);
            build(command)
        };
        build().map_err(|error| format!("{error:#}"))
    });
    built.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

/// Returns the options for the profile that this test was built in.
fn profile() -> Result<Vec<String>> {
    let (target, program) = (target_dir()?, env::current_exe()?);
    let profile = program.strip_prefix(target)?.components().next();
    let name = profile.map(|name| name.as_os_str().to_string_lossy().into_owned());
    Ok(match name.as_deref() {
        None | Some("debug") => Vec::new(),
        Some(name) => vec!["--profile".into(), name.into()],
    })
}

/// Runs a `cargo build --message-format=json` and returns what it built.
///
/// # Errors
///
/// The build fails; the error holds what the compiler said.
pub fn build(mut command: Command) -> Result<Artifacts> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let messages: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    if !output.status.success() {
        let rendered: String = messages
            .iter()
            .filter(|message| text(message, "/message/level") == Some("error"))
            .filter_map(|message| text(message, "/message/rendered"))
            .collect();
        bail!(
            "{command:?} failed:\n{}{rendered}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let artifacts = messages
        .iter()
        .filter(|message| text(message, "/reason") == Some("compiler-artifact"));
    Ok(artifacts
        .filter_map(|artifact| {
            let name = text(artifact, "/target/name")?.to_owned();
            Some((name, file_of(artifact)?))
        })
        .collect())
}

/// Returns the program or the plugin that an artifact is.
fn file_of(artifact: &Value) -> Option<PathBuf> {
    if let Some(program) = text(artifact, "/executable") {
        return Some(program.into());
    }
    let kinds = artifact.pointer("/target/crate_types")?.as_array()?;
    if !kinds.iter().any(|kind| kind == "cdylib") {
        return None;
    }
    let files = artifact.pointer("/filenames")?.as_array()?;
    files
        .iter()
        .filter_map(Value::as_str)
        .find(|file| file.ends_with(env::consts::DLL_SUFFIX))
        .map(PathBuf::from)
}

fn text<'a>(message: &'a Value, pointer: &str) -> Option<&'a str> {
    message.pointer(pointer)?.as_str()
}
