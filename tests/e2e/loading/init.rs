//! Code that misbehaves while it is loaded, and code that must not run at all.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use boxyard_conformance::{Library, Yard};
use boxyard_host::{PluginConfig, PluginStatus};

use super::{BAD, GOOD, assert_refused, beside_good, set_mode, works};

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_to_open_is_refused_with_its_words() -> Result<()> {
    for (fixture, words) in [
        (
            "open_fails",
            ["failed to initialise", "the licence server said no"],
        ),
        ("open_panics", ["failed to initialise", "the ice is thin"]),
    ] {
        super::check_refused(&Library::example(fixture)?, &words).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_hangs_in_open_is_left_behind() -> Result<()> {
    let mut yard = Yard::new()?;
    yard.config.timeouts.load = Duration::from_secs(3);
    yard.put(BAD, &Library::example("open_hangs")?)?;
    let report = tokio::time::timeout(Duration::from_secs(60), beside_good(&yard)).await??;
    let words = [
        "did not finish loading within 3s",
        "the host goes on without it",
    ];
    assert_refused(&report, &words);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_failed_to_open_is_not_run_again_by_a_rescan() -> Result<()> {
    for fixture in ["open_fails", "open_panics", "open_hangs"] {
        let mut yard = Yard::new()?;
        yard.config.timeouts.load = Duration::from_secs(3);
        yard.put(BAD, &Library::example(fixture)?)?;
        yard.put(GOOD, &Library::example("good")?)?;
        let host = yard.host().await?;
        let first = yard.report(&host, BAD)?;
        host.rescan().await;
        let second = yard.report(&host, BAD)?;
        assert_eq!(second.status, PluginStatus::Quarantined);
        assert_eq!(first.reason, second.reason);
        works(&host, "good").await?;
        host.shutdown().await;
    }
    Ok(())
}

/// Returns a plugin whose constructor writes a file, and the file.
pub(crate) fn with_witness(yard: &Yard) -> Result<(Library, PathBuf)> {
    const PLACE: &[u8] = b"witness-file-goes-here..........................................\
................................................................\
................................................................";
    let witness = yard.root().join("witness");
    let mut path = witness.to_string_lossy().into_owned().into_bytes();
    ensure!(
        path.len() <= PLACE.len(),
        "the temporary directory's path is too long"
    );
    path.resize(PLACE.len(), b' ');
    let library = Library::example("constructor")?.replacing(PLACE, &path)?;
    Ok((library, witness))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_code_of_a_refused_plugin_runs() -> Result<()> {
    type Refuse = fn(&mut Yard, &Library) -> Result<()>;
    let refusals: [(&str, Refuse); 6] = [
        ("can be changed by others", |yard, library| {
            set_mode(&yard.put(BAD, library)?, 0o666)
        }),
        ("has SHA-256", |yard, library| {
            let wrong = PluginConfig {
                sha256: vec!["0".repeat(64)],
                ..PluginConfig::default()
            };
            yard.config.plugins.insert("constructor".into(), wrong);
            yard.put(BAD, library).map(drop)
        }),
        ("is switched off", |yard, library| {
            let off = PluginConfig {
                enabled: false,
                ..PluginConfig::default()
            };
            yard.config.plugins.insert("constructor".into(), off);
            yard.put(BAD, library).map(drop)
        }),
        ("plugin API 2.0.0", |yard, library| {
            let newer = library.with("api_version", "2.0.0");
            yard.put(BAD, &newer?).map(drop)
        }),
        ("panic=abort", |yard, library| {
            let aborting = library.with("panic_abort", true);
            yard.put(BAD, &aborting?).map(drop)
        }),
        ("malformed manifest", |yard, library| {
            yard.put(BAD, &library.with_manifest("?")?).map(drop)
        }),
    ];
    for (word, refuse) in refusals {
        let mut yard = Yard::new()?;
        let (library, witness) = with_witness(&yard)?;
        refuse(&mut yard, &library)?;
        assert_refused(&beside_good(&yard).await?, &[word]);
        assert!(!witness.exists(), "{word}: the constructor ran");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn inspecting_runs_no_code_and_loading_does() -> Result<()> {
    let yard = Yard::new()?;
    let (library, witness) = with_witness(&yard)?;
    let path = yard.put(BAD, &library)?;
    let inspected = boxyard_host::plugin::inspect(&path)?;
    assert_eq!(inspected.manifest.name, "constructor");
    assert_eq!(inspected.manifest.tools, ["constructed"]);
    assert!(!witness.exists(), "the constructor ran");
    let report = beside_good(&yard).await?;
    assert_eq!(report.status, PluginStatus::Loaded, "{report:?}");
    assert_eq!(fs::read_to_string(witness)?, "the constructor ran");
    Ok(())
}
