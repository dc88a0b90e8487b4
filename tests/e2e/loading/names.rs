//! Who gets a name that several plugins want, and which of several versions is loaded.

use anyhow::Result;
use boxyard_conformance::{Library, Yard};
use boxyard_host::{PluginConfig, PluginStatus};

use super::{BAD, GOOD, assert_refused, hello, set_mode, works};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_plugins_with_one_sandbox_type_the_first_is_loaded() -> Result<()> {
    let yard = Yard::new()?;
    let good = yard.put(GOOD, &Library::example("good")?)?;
    yard.put("z.so", &Library::example("good")?.with("name", "usurper")?)?;
    let host = yard.host().await?;
    let words = [
        "provides the sandbox type `good`",
        &format!("good ({})", good.display()),
        "remove one of the two",
    ];
    assert_refused(&yard.report(&host, "z.so")?, &words);
    assert_eq!(host.registry().sandbox_type("good")?.plugin(), "good");
    works(&host, "good").await?;
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_plugins_with_one_tool_the_first_is_loaded() -> Result<()> {
    let yard = Yard::new()?;
    yard.put(GOOD, &Library::example("good")?)?;
    let hello_path = yard.put("hello.so", &hello()?)?;
    yard.put("z.so", &hello()?.with("name", "usurper")?)?;
    let host = yard.host().await?;
    let words = [
        "provides the tool `hello`",
        &hello_path.display().to_string(),
        "remove one of the two",
    ];
    assert_refused(&yard.report(&host, "z.so")?, &words);
    works(&host, "good").await?;
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_refused_plugin_is_free() -> Result<()> {
    let yard = Yard::new()?;
    yard.put(BAD, &Library::example("good")?.with("name", "bad")?)?;
    set_mode(&yard.plugins().join(BAD), 0o666)?;
    yard.put(GOOD, &Library::example("good")?)?;
    let host = yard.host().await?;
    assert_eq!(yard.report(&host, GOOD)?.status, PluginStatus::Loaded);
    works(&host, "good").await?;
    host.shutdown().await;
    Ok(())
}

/// The file names of three versions of one plugin; the order of names is not that of versions.
const VERSIONS: [(&str, &str); 3] = [("a.so", "1.10.0"), ("b.so", "1.9.0"), ("c.so", "2.0.0")];

fn three_versions() -> Result<Yard> {
    let yard = Yard::new()?;
    for (file, version) in VERSIONS {
        yard.put(file, &Library::example("good")?.with("version", version)?)?;
    }
    Ok(yard)
}

/// Checks what became of the three versions, and that the one that is loaded works.
async fn check_versions(yard: &Yard, expected: [PluginStatus; 3]) -> Result<[String; 3]> {
    let host = yard.host().await?;
    let reports = VERSIONS.map(|(file, _)| yard.report(&host, file));
    let mut reasons = [const { String::new() }; 3];
    for ((report, expected), reason) in reports.into_iter().zip(expected).zip(&mut reasons) {
        let report = report?;
        assert_eq!(report.status, expected, "{report:?}");
        *reason = report.reason.unwrap_or_default();
    }
    works(&host, "good").await?;
    host.shutdown().await;
    Ok(reasons)
}

use PluginStatus::{Loaded, Quarantined, Shadowed};

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_version_shadows_the_others() -> Result<()> {
    let yard = three_versions()?;
    let [a, b, _] = check_versions(&yard, [Shadowed, Shadowed, Loaded]).await?;
    let winner = yard.plugins().join("c.so");
    for reason in [a, b] {
        let expected = format!("is shadowed by version 2.0.0 in {}", winner.display());
        assert_eq!(reason, expected);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_chooses_among_versions() -> Result<()> {
    let mut yard = three_versions()?;
    for (requirement, expected) in [
        ("^1", [Loaded, Shadowed, Quarantined]),
        ("<1.10", [Quarantined, Loaded, Quarantined]),
    ] {
        let chosen = PluginConfig {
            version: Some(requirement.into()),
            ..PluginConfig::default()
        };
        yard.config.plugins.insert("good".into(), chosen);
        yard.config.cache_dir = Some(yard.root().join(requirement.replace('<', "below")));
        let [_, _, c] = check_versions(&yard, expected).await?;
        let words = format!("has version 2.0.0, but `plugins.good.version` asks for {requirement}");
        assert_eq!(c, words);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_version_stands_in_for_a_refused_one() -> Result<()> {
    let yard = three_versions()?;
    set_mode(&yard.plugins().join("c.so"), 0o666)?;
    let [_, _, c] = check_versions(&yard, [Loaded, Shadowed, Quarantined]).await?;
    assert!(c.contains("can be changed by others"), "{c}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_version_stands_in_for_one_that_does_not_open() -> Result<()> {
    let yard = three_versions()?;
    let failing = Library::example("open_fails")?.with("name", "good")?;
    yard.put("c.so", &failing.with("version", "2.0.0")?)?;
    let [_, _, c] = check_versions(&yard, [Loaded, Shadowed, Quarantined]).await?;
    assert!(c.contains("the licence server said no"), "{c}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_twice_is_loaded_once() -> Result<()> {
    let yard = Yard::new()?;
    let first = yard.put("a.so", &Library::example("good")?)?;
    yard.put("b.so", &Library::example("good")?)?;
    let host = yard.host().await?;
    assert_eq!(yard.report(&host, "a.so")?.status, Loaded);
    let second = yard.report(&host, "b.so")?;
    assert_eq!(second.status, Shadowed);
    let reason = second.reason.unwrap_or_default();
    assert!(reason.contains(&first.display().to_string()), "{reason}");
    works(&host, "good").await?;
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_directory_twice_is_searched_once() -> Result<()> {
    let mut yard = Yard::new()?;
    yard.put(GOOD, &Library::example("good")?)?;
    yard.config.plugin_dirs = Some(vec![yard.plugins(), yard.plugins()]);
    let host = yard.host().await?;
    let reports = host.plugins();
    assert_eq!(reports.len(), 1, "{reports:?}");
    works(&host, "good").await?;
    host.shutdown().await;
    Ok(())
}
