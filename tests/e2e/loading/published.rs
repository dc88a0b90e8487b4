//! Plugins of every published version of the plugin API load, and all of theirs works.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use boxyard_conformance::{Library, Yard, cargo};
use boxyard_host::{CreateRequest, PluginStatus};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::world::object;

/// The versions that were published.
const VERSIONS: &[&str] = &["1.0.0"];

#[tokio::test(flavor = "multi_thread")]
async fn plugins_of_every_published_version_do_all_that_they_did() -> Result<()> {
    for version in VERSIONS {
        let library = spawn_blocking(|| build(version)).await??;
        let yard = Yard::new()?;
        yard.put("published.so", &library)?;
        let host = yard.host().await?;
        let report = yard.report(&host, "published.so")?;
        assert_eq!(report.status, PluginStatus::Loaded, "{report:?}");
        let registry = host.registry();
        let sandbox_type = registry.sandbox_type("published")?;
        let health = sandbox_type.probe().await;
        assert_eq!(health.message, "it has seen better days", "{version}");

        let config = object(json!({ "prefix": "> " }));
        let request = CreateRequest::new("published").config(config);
        let sandbox = host.manager().create(request).await?;
        let params = json!({ "input": "typed" });
        let result = sandbox
            .execute_tool("published_caller", params, None)
            .await?;
        assert_eq!(
            result.output,
            json!({
                "ran": [7, "typed", "> say it"],
                "packed": "packed",
                "read": "content",
                "listed": [["a", 6, 0o640], ["d", 0, 0o640], ["f", 7, 0o640]],
                "gone": "NOT_FOUND",
                "processes": 3,
                "type": "published",
            }),
            "{version}: {result:?}"
        );
        let info = sandbox.info().await;
        assert_eq!(info.metadata["files"], "in memory", "{version}");
        let events = sandbox.events();
        assert!(events.iter().any(|event| event.kind == "made"), "{version}");
        host.manager().delete(sandbox.id()).await?;

        // What it is asked without a sandbox.
        fs::write(yard.root().join("state/leases/dead"), "published\n")?;
        assert_eq!(host.manager().sweep().await, ["dead"], "{version}");
        host.shutdown().await;
    }
    Ok(())
}

/// Builds the plugin of a version against the package that was published.
fn build(version: &str) -> Result<Library> {
    let workspace = cargo::workspace();
    let published = workspace.join("tests/fixtures/published").join(version);
    let target = cargo::target_dir()?;
    let directory = target.join("published").join(version);
    fs::create_dir_all(&directory)?;
    let one_at_a_time = File::create(directory.join("building"))?;
    one_at_a_time.lock()?;
    let package = format!("boxyard-plugin-api-{version}");
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(published.join(format!("{package}.crate")))
        .current_dir(&directory)
        .output()
        .context("cannot run tar")?;
    let complaint = String::from_utf8_lossy(&unpacked.stderr);
    ensure!(unpacked.status.success(), "{package}: {complaint}");
    // What these need has been here already: it is in this workspace's lock.
    fs::copy(workspace.join("Cargo.lock"), directory.join("Cargo.lock"))?;
    fs::write(
        directory.join("Cargo.toml"),
        manifest(&package, &published.join("plugin.rs")),
    )?;
    let mut command = cargo::foreign_build(cargo::cargo(), &directory, &target);
    command.arg("--offline");
    let built = cargo::build(command)?;
    let library = built.get("published").context("no plugin was built")?;
    Library::read(library)
}

fn manifest(package: &str, source: &Path) -> String {
    format!(
        r#"[package]
name = "published"
version = "1.0.0"
edition = "2024"

[workspace]

[lib]
crate-type = ["cdylib"]
path = {source:?}

[dependencies]
boxyard-plugin-api = {{ path = {package:?} }}
schemars = "1"
serde = {{ version = "1", features = ["derive"] }}
"#
    )
}
