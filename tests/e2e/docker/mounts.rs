//! A path that was allowed may lead elsewhere later, and is not mounted then.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;

use super::{Dock, IMAGE, PLUGIN, relay::Relay};
use crate::world::{self, bounded, run};

/// Makes a sandbox that mounts `job` of an allowed directory, which somebody replaces by a link to
/// elsewhere while the engine is asked for something.
async fn replaced_during(request: &'static str) {
    let Some(mut dock) = Dock::new(IMAGE) else {
        return;
    };
    let relay = Relay::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let (scratch, secret) = (root.join("scratch"), root.join("secret"));
    let job = scratch.join("job");
    for made in [&scratch, &secret, &job] {
        fs::create_dir(made).unwrap();
    }
    let dock = {
        let settings = json!({ "host": relay.address(), "allowed_mounts": [scratch] });
        let plugins = &mut dock.yard.config.plugins;
        plugins.entry(PLUGIN.into()).or_default().settings = world::object(settings);
        dock.start().await
    };
    let volumes = json!({ "volumes": { job.to_str().unwrap(): "/job" } });
    let there = dock.sandbox(volumes.clone()).await;
    assert_eq!(
        run(&there, &["ls", "/job"]).await.unwrap().stdout_text(),
        ""
    );
    dock.delete(&there).await;
    relay.hold(request);
    let replacing = async {
        relay.holds().await;
        fs::remove_dir(&job).unwrap();
        symlink(&secret, &job).unwrap();
        relay.release();
    };
    let (created, ()) = tokio::join!(dock.create(volumes), replacing);
    let error = created.map(drop).unwrap_err().to_string();
    assert!(error.contains("volumes"), "{request}: {error}");
    assert!(
        error.contains("not allowed") || error.contains("was replaced"),
        "{request}: {error}"
    );
    dock.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_replaced_while_the_image_is_looked_for_is_not_mounted() {
    bounded(replaced_during("/images/")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_replaced_while_the_container_starts_is_not_used() {
    bounded(replaced_during("/start ")).await;
}
