//! Finds the fixtures: plugins that are built from `tests/fixtures`, one file each.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Returns the library of a fixture. The first call builds all of them.
///
/// # Errors
///
/// The build fails, or there is no such fixture.
pub fn fixture(name: &str) -> Result<&'static Path> {
    static BUILT: OnceLock<Result<BTreeMap<String, PathBuf>>> = OnceLock::new();
    let built = BUILT
        .get_or_init(build)
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let path = built.get(name);
    path.map(PathBuf::as_path)
        .with_context(|| format!("there is no fixture `{name}`"))
}

fn build() -> Result<BTreeMap<String, PathBuf>> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--package", "boxyard-conformance", "--examples"])
        .args(["--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    ensure!(output.status.success(), "the fixtures do not build");
    let mut built = BTreeMap::new();
    for line in output.stdout.split(|byte| *byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        let target = message.get("target");
        let is_fixture =
            target.and_then(|target| target.pointer("/kind/0")) == Some(&"example".into());
        let name = target
            .and_then(|target| target.get("name"))
            .and_then(Value::as_str);
        let file = message.pointer("/filenames/0").and_then(Value::as_str);
        if let (true, Some(name), Some(file)) = (is_fixture, name, file) {
            built.insert(name.to_owned(), PathBuf::from(file));
        }
    }
    Ok(built)
}
