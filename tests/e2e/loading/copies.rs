//! The private copies: what is opened is what was inspected.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use boxyard_conformance::{Library, Yard};
use boxyard_host::{PluginStatus, plugin::inspect};

use super::{GOOD, assert_refused, set_mode, works};

/// Puts bytes where a host finds the private copy of a plugin, before it ever makes one.
fn put_copy(yard: &Yard, plugin: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let cache = yard.config.cache_dir.as_ref().context("yards have one")?;
    let directory = cache.join("plugins");
    fs::create_dir_all(&directory)?;
    set_mode(cache, 0o700)?;
    set_mode(&directory, 0o700)?;
    let copy = directory.join(format!("{}.so", inspect(plugin)?.sha256));
    fs::write(&copy, bytes)?;
    Ok(copy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_copy_is_made_anew() -> Result<()> {
    let good = Library::example("good")?;
    let length = good.bytes().len();
    let zeros = vec![0; length];
    let longer = [good.bytes(), b"more"].concat();
    // As whole a plugin as any other, under a name that is not its own.
    let other = good.with("version", "7.0.0")?;
    for damaged in [
        &good.bytes()[..length / 2],
        b"",
        &zeros,
        &longer,
        other.bytes(),
    ] {
        let yard = Yard::new()?;
        let path = yard.put(GOOD, &good)?;
        let copy = put_copy(&yard, &path, damaged)?;
        let host = yard.host().await?;
        let report = yard.report(&host, GOOD)?;
        assert_eq!(report.status, PluginStatus::Loaded, "{report:?}");
        works(&host, "good").await?;
        assert!(fs::read(copy)? == good.bytes());
        host.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_opened_from_a_cache_that_others_can_write() -> Result<()> {
    let yard = Yard::new()?;
    let good = Library::example("good")?;
    let path = yard.put(GOOD, &good)?;
    let copy = put_copy(&yard, &path, good.with("version", "7.0.0")?.bytes())?;
    set_mode(copy.parent().context("it is in the cache")?, 0o777)?;
    let host = yard.host().await?;
    let report = yard.report(&host, GOOD)?;
    assert_refused(&report, &["cannot be copied to", "plugins"]);
    // Nor is it believed.
    assert_ne!(report.version.as_deref(), Some("7.0.0"));
    host.shutdown().await;
    Ok(())
}
