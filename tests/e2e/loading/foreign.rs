//! A plugin from elsewhere: another project, other versions of dependencies, another compiler.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use boxyard_conformance::{Library, Yard, cargo};
use boxyard_host::PluginStatus;
use tokio::task::spawn_blocking;

use super::{GOOD, works};

/// The oldest compiler that plugins may be built with, and where Debian has it.
const OLDEST: &str = "1.85.";
const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";

const NAME: &str = "outsider";

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_the_oldest_compiler_runs_beside_one_of_this_compiler() -> Result<()> {
    if let Err(error) = has_oldest() {
        let what = "a plugin of the oldest compiler";
        return crate::skip(what, &format!("{error:#}"));
    }
    let (outsider, good) = spawn_blocking(|| {
        let good = Library::example("good")?;
        anyhow::Ok((build_outsider()?, good))
    })
    .await??;
    let compilers = outsider.compilers();
    assert!(!compilers.is_empty() && compilers.iter().all(|version| version.starts_with(OLDEST)));
    assert!(
        compilers.is_disjoint(&good.compilers()),
        "both plugins are of {compilers:?}"
    );

    let yard = Yard::new()?;
    yard.put(GOOD, &good)?;
    yard.put("outsider.so", &outsider)?;
    let host = yard.host().await?;
    for name in [GOOD, "outsider.so"] {
        let report = yard.report(&host, name)?;
        assert_eq!(report.status, PluginStatus::Loaded, "{report:?}");
    }
    // Both at once, so that each is called while the other is.
    let (outside, inside) = tokio::join!(works(&host, NAME), works(&host, "good"));
    outside.and(inside)?;
    host.shutdown().await;
    Ok(())
}

/// Checks that the oldest compiler and its cargo are there.
fn has_oldest() -> Result<()> {
    for program in [RUSTC, CARGO] {
        let output = Command::new(program).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {program}"))?;
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            version
                .split(' ')
                .nth(1)
                .is_some_and(|version| version.starts_with(OLDEST)),
            "{program} is {version:?}, not {OLDEST}x"
        );
    }
    Ok(())
}

/// Makes a project in a directory of its own, and builds it as its author would.
fn build_outsider() -> Result<Library> {
    let project = tempfile::Builder::new().prefix("outsider-").tempdir()?;
    let directory = project.path().canonicalize()?;
    let workspace = cargo::workspace();
    fs::write(directory.join("Cargo.toml"), manifest(&workspace))?;
    fs::create_dir(directory.join("src"))?;
    let original = workspace.join("tests/fixtures/outside/plugin.rs");
    let source = directory.join("src/lib.rs");
    fs::copy(&original, &source)?;
    // With the time of the original, cargo knows it for what it compiled last time.
    let time = fs::metadata(&original)?.modified()?;
    File::options()
        .write(true)
        .open(&source)?
        .set_modified(time)?;

    let target = cargo::target_dir()?.join("outsider");
    fs::create_dir_all(&target)?;
    // That cargo chooses the versions of dependencies, from the registry. Once: later builds find
    // them compiled, and need no registry.
    let (lock, kept) = (directory.join("Cargo.lock"), target.join("Cargo.lock"));
    if kept.exists() {
        fs::copy(&kept, &lock)?;
    }
    let mut command = cargo::foreign_build(CARGO, &directory, &target);
    command.arg("--release").env("RUSTC", RUSTC);
    let built = cargo::build(command)?;
    // In one piece: another test run may be about to read it.
    let mut chosen = tempfile::NamedTempFile::new_in(&target)?;
    io::copy(&mut File::open(lock)?, &mut chosen)?;
    chosen.persist(kept)?;
    let library = built.get(NAME).context("the project builds no plugin")?;
    Library::read(library)
}

/// Returns the manifest of the project: a workspace of its own, whatever it lies in.
fn manifest(workspace: &Path) -> String {
    let api = workspace.join("plugin-api");
    format!(
        r#"[package]
name = "{NAME}"
version = "2.3.4"
edition = "2024"
rust-version = "1.85"

[workspace]

[lib]
crate-type = ["cdylib"]

[features]
newer = []

[dependencies]
boxyard-plugin-api = {{ path = {api:?} }}
schemars = "1"
serde = {{ version = "1", features = ["derive"] }}
"#
    )
}
