//! A plugin from elsewhere: another project, other versions of dependencies, another compiler.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use boxyard_conformance::{Library, Yard, cargo};
use boxyard_host::{CreateRequest, PluginStatus};
use tokio::task::spawn_blocking;

use super::{GOOD, run, works};

/// The oldest compiler that plugins may be built with, and where Debian has it.
const OLDEST: &str = "1.85.";
const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";

/// A project outside of the workspace.
struct Project {
    name: &'static str,
    /// Its source, among the fixtures for outside.
    source: &'static str,
    /// What it depends on beside the plugin API.
    dependencies: &'static str,
}

/// A plugin with a backend of its own.
const OUTSIDER: Project = Project {
    name: "outsider",
    source: "plugin.rs",
    dependencies: "",
};
/// A plugin that carries the guest agent.
const AGENT: Project = Project {
    name: "outside-agent",
    source: "agent.rs",
    dependencies: r#"boxyard-agent = { path = "AGENT" }"#,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_the_oldest_compiler_runs_beside_one_of_this_compiler() -> Result<()> {
    if let Err(error) = has_oldest() {
        let what = "a plugin of the oldest compiler";
        return crate::skip(what, &format!("{error:#}"));
    }
    let (outsider, good) = spawn_blocking(|| {
        let good = Library::example("good")?;
        anyhow::Ok((build(&OUTSIDER)?, good))
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
    let (outside, inside) = tokio::join!(works(&host, OUTSIDER.name), works(&host, "good"));
    outside.and(inside)?;
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_of_the_oldest_compiler_carries_the_guest_agent() -> Result<()> {
    if let Err(error) = has_oldest() {
        let what = "a plugin of the oldest compiler with the guest agent";
        return crate::skip(what, &format!("{error:#}"));
    }
    let library = spawn_blocking(|| build(&AGENT)).await??;
    let yard = Yard::new()?;
    yard.put("outside-agent.so", &library)?;
    let host = yard.host().await?;
    let report = yard.report(&host, "outside-agent.so")?;
    assert_eq!(report.status, PluginStatus::Loaded, "{report:?}");
    let request = CreateRequest::new(AGENT.name);
    let sandbox = host.manager().create(request).await?;
    assert_eq!(run(&sandbox, &["echo", "hi"]).await?, "hi\n");
    host.manager().delete(sandbox.id()).await?;
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
fn build(project: &Project) -> Result<Library> {
    let place = tempfile::Builder::new().prefix("outsider-").tempdir()?;
    let directory = place.path().canonicalize()?;
    let workspace = cargo::workspace();
    fs::write(directory.join("Cargo.toml"), manifest(project, &workspace))?;
    fs::create_dir(directory.join("src"))?;
    let fixtures = workspace.join("tests/fixtures/outside");
    let original = fixtures.join(project.source);
    let source = directory.join("src/lib.rs");
    fs::copy(&original, &source)?;
    // With the time of the original, cargo knows it for what it compiled last time.
    let time = fs::metadata(&original)?.modified()?;
    File::options()
        .write(true)
        .open(&source)?
        .set_modified(time)?;

    let target = cargo::target_dir()?.join(OUTSIDER.name);
    fs::create_dir_all(&target)?;
    // That cargo chooses the versions of dependencies, from the registry. Once: later builds find
    // them compiled, and need no registry.
    let (lock, kept) = (
        directory.join("Cargo.lock"),
        target.join(format!("{}.lock", project.name)),
    );
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
    let name = project.name.replace('-', "_");
    let library = built.get(&name).context("the project builds no plugin")?;
    Library::read(library)
}

/// Returns the manifest of the project: a workspace of its own, whatever it lies in.
fn manifest(project: &Project, workspace: &Path) -> String {
    let api = workspace.join("plugin-api");
    let agent = workspace.join("plugins/agent");
    let name = project.name;
    let dependencies = project.dependencies;
    let dependencies = dependencies.replace("AGENT", &agent.to_string_lossy());
    format!(
        r#"[package]
name = "{name}"
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
{dependencies}"#
    )
}
