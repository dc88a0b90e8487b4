//! Who may have touched a file, and which contents are pinned.

use std::fs;

use anyhow::Result;
use boxyard_conformance::Yard;
use boxyard_host::{
    PluginConfig, PluginStatus,
    plugin::{inspect, pin},
};

use super::{BAD, assert_refused, beside_good, hello, set_mode};

const NAME: &str = "boxyard-plugin-hello";
/// What no content has.
const NO_HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Checks that a file is refused, and loads where the operator trusts the directories.
async fn check_distrusted(yard: &mut Yard, words: &[&str]) -> Result<()> {
    assert_refused(&beside_good(yard).await?, words);
    trusted(yard).await
}

async fn trusted(yard: &mut Yard) -> Result<()> {
    yard.config.trust_plugin_dirs = true;
    // Another cache: a library that is open in this process is not opened again.
    yard.config.cache_dir = Some(yard.root().join("cache-of-the-trusting"));
    let report = beside_good(yard).await?;
    assert_eq!(report.status, PluginStatus::Loaded, "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_others_can_write_is_refused() -> Result<()> {
    for mode in [0o666, 0o664, 0o602, 0o775] {
        let mut yard = Yard::new()?;
        set_mode(&yard.put(BAD, &hello()?)?, mode)?;
        let found = format!("can be changed by others (mode {mode:04o})");
        check_distrusted(&mut yard, &[&found, "chmod go-w", "--trust-plugin-dirs"]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_someone_elses_is_refused() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return crate::skip("files of other users", "only root can give files away");
    }
    let mut yard = Yard::new()?;
    let path = yard.put(BAD, &hello()?)?;
    std::os::unix::fs::chown(path, Some(65534), None)?;
    check_distrusted(&mut yard, &["belongs to user 65534", "change its owner"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_loaded_from_a_directory_that_others_can_write() -> Result<()> {
    for mode in [0o777, 0o770] {
        let mut yard = Yard::new()?;
        yard.put(BAD, &hello()?)?;
        set_mode(&yard.plugins(), mode)?;
        let host = yard.host().await?;
        assert_refused(
            &yard.report(&host, BAD)?,
            &[
                "is in a place that others can change",
                &yard.plugins().display().to_string(),
                "--trust-plugin-dirs",
            ],
        );
        host.shutdown().await;
        trusted(&mut yard).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_above_that_others_can_write_is_as_bad() -> Result<()> {
    let mut yard = Yard::new()?;
    let above = yard.root().join("above");
    let below = above.join("below");
    fs::create_dir_all(&below)?;
    let path = yard.put(BAD, &hello()?)?;
    fs::rename(path, below.join(BAD))?;
    set_mode(&above, 0o777)?;
    yard.config.plugin_dirs = Some(vec![below.clone(), yard.plugins()]);
    let host = yard.host().await?;
    let reports = host.plugins();
    let words = [
        "is in a place that others can change",
        &above.display().to_string(),
    ];
    assert_refused(&reports[0], &words);
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_contents_that_the_configuration_names_load() -> Result<()> {
    let mut yard = Yard::new()?;
    let path = yard.put(BAD, &hello()?)?;
    let real = inspect(&path)?.sha256;
    let pinned = |hashes: &[&str]| PluginConfig {
        sha256: hashes.iter().map(|hash| (*hash).to_owned()).collect(),
        ..PluginConfig::default()
    };
    yard.config.plugins.insert(NAME.into(), pinned(&[NO_HASH]));
    let words = [
        &format!("has SHA-256 {real}"),
        &format!("`plugins.{NAME}.sha256` pins {NO_HASH}"),
        "install it again",
    ];
    assert_refused(&beside_good(&yard).await?, &words);
    // Trust in a directory is no trust in a content that someone pinned.
    yard.config.trust_plugin_dirs = true;
    yard.config.cache_dir = Some(yard.root().join("cache-2"));
    assert_refused(&beside_good(&yard).await?, &words);
    let either = pinned(&[NO_HASH, &real.to_ascii_uppercase()]);
    yard.config.plugins.insert(NAME.into(), either);
    yard.config.cache_dir = Some(yard.root().join("cache-3"));
    let report = beside_good(&yard).await?;
    assert_eq!(report.status, PluginStatus::Loaded, "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_content_that_the_directory_pins_loads() -> Result<()> {
    let mut yard = Yard::new()?;
    let path = yard.put(BAD, &hello()?)?;
    let real = inspect(&path)?.sha256;
    pin(&path, NO_HASH)?;
    pin(&yard.plugins().join("another.so"), NO_HASH)?;
    let pins = yard.plugins().join("boxyard-pins.json");
    let words = [
        &format!("has SHA-256 {real}"),
        &format!("{} pins {NO_HASH}", pins.display()),
        "install it again",
    ];
    assert_refused(&beside_good(&yard).await?, &words);
    // A new pin takes the place of the old one, and the other file's stays.
    pin(&path, &real)?;
    let written: serde_json::Value = serde_json::from_slice(&fs::read(&pins)?)?;
    assert_eq!(written[BAD], real.as_str());
    assert_eq!(written["another.so"], NO_HASH);
    yard.config.cache_dir = Some(yard.root().join("cache-2"));
    let report = beside_good(&yard).await?;
    assert_eq!(report.status, PluginStatus::Loaded, "{report:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_that_cannot_be_read_are_no_permission() -> Result<()> {
    let yard = Yard::new()?;
    yard.put(BAD, &hello()?)?;
    let pins = yard.plugins().join("boxyard-pins.json");
    fs::write(&pins, "{")?;
    let host = yard.host().await?;
    let words = [
        "cannot be checked",
        &pins.display().to_string(),
        "is unreadable",
    ];
    assert_refused(&yard.report(&host, BAD)?, &words);
    host.shutdown().await;
    assert!(pin(&yard.plugins().join(BAD), NO_HASH).is_err());
    assert_eq!(fs::read_to_string(&pins)?, "{");
    Ok(())
}
