//! The ABI grows at its ends and nowhere else: hosts and plugins of two ages, really built.
//!
//! The older API is this workspace's under the version 1.0.0; the newer one, 1.1.0, has an
//! entry more at the end of a sandbox's table and of both tables of the host's services. Two
//! more call themselves 1.0.0 and are not: one lacks an entry, one has two in each other's place.

mod variant;

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context, Result, ensure};
use boxyard_conformance::{Library, Yard};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use variant::Variant;

/// What a host of a variant says of a directory with a plugin of every variant, and of one of
/// the newer API that does without nothing.
async fn host_of(variant: Variant) -> Result<Value> {
    spawn_blocking(move || {
        let ours = Library::example("good")?.compilers();
        let yard = Yard::new()?;
        for plugin in Variant::ALL {
            let library = Library::read(&plugin.plugin()?)?;
            ensure!(
                library.compilers() == ours,
                "{plugin:?} is built by another compiler"
            );
            yard.put(&format!("{}.so", plugin.name()), &library)?;
        }
        let needy = Library::read(&Variant::Newer.plugin()?)?;
        let needy = needy.with("min_host_api", "1.1.0")?.with("name", "needy")?;
        yard.put("z-needy.so", &needy)?;
        let output = Command::new(variant.host()?).arg(yard.root()).output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut said: Value = serde_json::from_slice(&output.stdout)?;
        let opened = Variant::ALL.into_iter().filter(|plugin| {
            let data = yard.root().join("state/plugins").join(plugin.name());
            data.join("opened").exists()
        });
        let opened = opened.map(Variant::name).collect();
        let all = said.as_object_mut().context("the host wrote no object")?;
        all.insert("opened".into(), opened);
        Ok(said)
    })
    .await?
}

/// Returns what a host reports of a file: its status and the reason.
fn report(said: &Value, file: &str) -> Result<(String, String)> {
    let reports = said["reports"].as_array().context("no reports")?;
    let report = reports.iter().find(|report| {
        let path = report["path"].as_str().unwrap_or_default();
        path.ends_with(&format!("/{file}.so"))
    });
    let report = report.with_context(|| format!("no report of {file}"))?;
    let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("reason")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_plugin_runs_in_an_older_host_without_what_that_lacks() -> Result<()> {
    let said = host_of(Variant::Older).await?;
    assert_eq!(report(&said, "newer")?, ("loaded".into(), String::new()));
    assert_eq!(
        said["ran"]["newer"],
        "hello, services: UNIMPLEMENTED, host: Some(None)\n"
    );
    assert_eq!(report(&said, "older")?, ("loaded".into(), String::new()));
    assert_eq!(said["ran"]["older"], "hello\n");
    let (status, reason) = report(&said, "z-needy")?;
    assert_eq!(status, "quarantined");
    assert!(
        reason.contains("needs a host with plugin API 1.1.0 or newer, this one has 1.0.0"),
        "{reason}"
    );
    check_strangers(&said)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_plugin_runs_in_a_newer_host_that_sees_what_it_lacks() -> Result<()> {
    let said = host_of(Variant::Newer).await?;
    assert_eq!(report(&said, "older")?, ("loaded".into(), String::new()));
    assert_eq!(said["ran"]["older"], "hello\n");
    assert_eq!(said["generations"]["older"], Value::Null);
    // What both sides have, both use.
    assert_eq!(report(&said, "newer")?, ("loaded".into(), String::new()));
    assert_eq!(
        said["ran"]["newer"],
        "hello, services: 11, host: Some(Some(11))\n"
    );
    assert_eq!(said["generations"]["newer"], 11);
    // This host has what it needs; that it is `newer` once more is all that is wrong.
    let (_, reason) = report(&said, "z-needy")?;
    assert!(reason.contains("provides already"), "{reason}");
    check_strangers(&said)
}

/// Checks that what only calls itself 1.0.0 is refused, by its layout, before any of it is called.
fn check_strangers(said: &Value) -> Result<()> {
    assert_eq!(said["opened"], json!(["older", "newer"]));
    for (file, entries) in [
        ("removed", ["logs", "reset"]),
        ("swapped", ["cleanup", "stop"]),
    ] {
        let (status, reason) = report(said, file)?;
        assert_eq!(status, "quarantined");
        assert!(
            reason.starts_with("does not fit this host's plugin API: "),
            "{reason}"
        );
        assert_eq!(displaced(&reason), BTreeSet::from([entries]), "{reason}");
    }
    Ok(())
}

/// Returns the pairs of entries of which a layout error says that one is in the other's place.
fn displaced(reason: &str) -> BTreeSet<[&str; 2]> {
    let pairs = reason
        .split("unexpected field: expected `")
        .skip(1)
        .filter_map(|error| {
            let (expected, rest) = error.split_once("`, found `")?;
            let mut pair = [expected, rest.split_once('`')?.0];
            pair.sort_unstable();
            Some(pair)
        });
    pairs.collect()
}
