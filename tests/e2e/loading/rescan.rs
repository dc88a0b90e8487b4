//! Plugins that come, go and change under a running host.

use std::{fs, sync::Arc};

use anyhow::Result;
use boxyard_conformance::{Library, Yard};
use boxyard_host::{CreateError, CreateRequest, Host, PluginStatus, Status, plugin::Needed};
use serde_json::json;

use super::{GOOD, hello, run, works};

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_dropped_in_is_offered_without_disturbing_the_others() -> Result<()> {
    let yard = Yard::new()?;
    yard.put(GOOD, &Library::example("good")?)?;
    let host = yard.host().await?;
    let sandbox = host.manager().create(CreateRequest::new("good")).await?;
    let before = Arc::clone(host.registry().sandbox_type("good")?);

    yard.put("hello.so", &hello()?)?;
    assert!(host.registry().tool("hello", "good").is_err());
    let reports = host.rescan().await;
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert_eq!(yard.report(&host, "hello.so")?.status, PluginStatus::Loaded);

    let after = Arc::clone(host.registry().sandbox_type("good")?);
    assert!(
        Arc::ptr_eq(&before, &after),
        "the good plugin was loaded again"
    );
    assert_eq!(run(&sandbox, &["alive"]).await?, "alive\n");
    let newer = host.manager().create(CreateRequest::new("good")).await?;
    let answer = newer
        .execute_tool("hello", json!({ "name": "yard" }), None)
        .await?;
    assert_eq!(answer.output["message"], "Hello, yard!");
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_removed_is_offered_no_more_and_its_sandboxes_go_on() -> Result<()> {
    let yard = Yard::new()?;
    let path = yard.put(GOOD, &Library::example("good")?)?;
    let host = yard.host().await?;
    let sandbox = host.manager().create(CreateRequest::new("good")).await?;
    let before = Arc::clone(host.registry().sandbox_type("good")?);

    fs::remove_file(path)?;
    assert!(host.rescan().await.is_empty());
    let refused = host.manager().create(CreateRequest::new("good")).await;
    let Err(error @ CreateError::UnknownType(_)) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        error
            .to_string()
            .contains("no plugin that provides one is loaded")
    );
    assert_eq!(run(&sandbox, &["alive"]).await?, "alive\n");
    assert_eq!(sandbox.status(), Status::Running);

    // Put back, it is what it was: the library never went away.
    yard.put(GOOD, &Library::example("good")?)?;
    host.rescan().await;
    assert!(Arc::ptr_eq(&before, host.registry().sandbox_type("good")?));
    works(&host, "good").await?;
    host.manager().delete(sandbox.id()).await?;
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_loaded_beside_the_old_version() -> Result<()> {
    let yard = Yard::new()?;
    let old = Library::example("good")?;
    yard.put(GOOD, &old)?;
    let host = yard.host().await?;
    let first = host.manager().create(CreateRequest::new("good")).await?;
    assert_eq!(run(&first, &["generation"]).await?, "generation-one\n");

    let new = old.replacing(b"generation-one", b"generation-two")?;
    yard.put(GOOD, &new.with("version", "7.0.0")?)?;
    host.rescan().await;
    let report = yard.report(&host, GOOD)?;
    assert_eq!(report.status, PluginStatus::Loaded, "{report:?}");
    assert_eq!(report.version.as_deref(), Some("7.0.0"));

    let second = host.manager().create(CreateRequest::new("good")).await?;
    assert_eq!(run(&second, &["generation"]).await?, "generation-two\n");
    assert_eq!(run(&first, &["generation"]).await?, "generation-one\n");
    host.manager().delete(first.id()).await?;
    assert_eq!(run(&second, &["generation"]).await?, "generation-two\n");
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_overwritten_in_place_does_not_crash_the_host() -> Result<()> {
    let yard = Yard::new()?;
    let path = yard.put(GOOD, &Library::example("good")?)?;
    let host = yard.host().await?;
    let sandbox = host.manager().create(CreateRequest::new("good")).await?;
    // What is mapped is the host's private copy, so that this reaches no running code.
    fs::write(&path, vec![0; Library::example("good")?.bytes().len()])?;
    assert_eq!(run(&sandbox, &["alive"]).await?, "alive\n");
    host.rescan().await;
    assert_eq!(yard.report(&host, GOOD)?.status, PluginStatus::Quarantined);
    assert_eq!(run(&sandbox, &["alive"]).await?, "alive\n");
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_loads_only_what_it_is_started_for_until_it_searches_again() -> Result<()> {
    let yard = Yard::new()?;
    yard.put(GOOD, &Library::example("good")?)?;
    yard.put("hello.so", &hello()?)?;
    let host = Host::start_for(yard.config.clone(), Needed::new(["good"], [])).await?;
    assert_eq!(host.plugins().len(), 1, "{:?}", host.plugins());
    assert_eq!(yard.report(&host, GOOD)?.status, PluginStatus::Loaded);
    let before = Arc::clone(host.registry().sandbox_type("good")?);

    host.rescan().await;
    assert_eq!(yard.report(&host, "hello.so")?.status, PluginStatus::Loaded);
    let after = Arc::clone(host.registry().sandbox_type("good")?);
    assert!(Arc::ptr_eq(&before, &after), "it was loaded again");
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_find_what_it_is_started_for_loads_everything() -> Result<()> {
    let yard = Yard::new()?;
    yard.put(GOOD, &Library::example("good")?)?;
    yard.put("hello.so", &hello()?)?;
    for needed in [
        Needed::new(["goood"], []),
        Needed::new(["good"], ["no-such-tool"]),
    ] {
        let host = Host::start_for(yard.config.clone(), needed).await?;
        assert_eq!(host.plugins().len(), 2, "{:?}", host.plugins());
        host.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_not_needed_shadows_its_older_versions_all_the_same() -> Result<()> {
    let yard = Yard::new()?;
    let older = Library::example("good")?.with("version", "0.0.1")?;
    yard.put("older.so", &older)?;
    yard.put(GOOD, &Library::example("good")?)?;
    yard.put("hello.so", &hello()?)?;
    let host = Host::start_for(yard.config.clone(), Needed::new([], ["hello"])).await?;
    let older = yard.report(&host, "older.so")?;
    assert_eq!(older.status, PluginStatus::Shadowed, "{older:?}");
    assert_eq!(host.plugins().len(), 2, "{:?}", host.plugins());
    host.shutdown().await;
    Ok(())
}
