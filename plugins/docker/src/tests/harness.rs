//! The engine that the tests use, and images to make and remove.

use std::{
    io::{Read, Write},
    sync::Arc,
    time::Duration,
};

use bollard::{
    Docker, body_full,
    query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder},
};
use boxyard_plugin_api::{HealthStatus, prelude::*};
use futures_util::TryStreamExt;
use tokio::time::{sleep, timeout};

use crate::engine::{Engine, Environment};

/// How long anything may take that must happen.
pub(super) const BOUND: Duration = Duration::from_secs(60);

/// What the images of the tests say of themselves.
const CHANGES: [&str; 4] = [
    "CMD [\"run\", \"it\"]",
    "ENV A=1 PATH=/bin",
    "WORKDIR /w",
    "USER 7",
];

/// Whether tests that need an engine are left out, as whoever runs them says.
pub(super) fn without_docker(reason: &str) -> bool {
    let left_out = std::env::var_os("BOXYARD_WITHOUT_DOCKER").is_some_and(|value| value == "1");
    if left_out {
        let mut stderr = std::io::stderr();
        let said = writeln!(stderr, "SKIPPED (BOXYARD_WITHOUT_DOCKER=1): {reason}");
        said.unwrap();
    }
    left_out
}

/// Returns the engine; `None` where the tests are to do without.
pub(super) async fn engine() -> Option<Arc<Engine>> {
    let engine = Arc::new(Engine::connect(None, Environment::of_process()));
    let health = within(engine.probe()).await;
    if health.status == HealthStatus::Unhealthy {
        let reason = format!("there is no engine: {}", health.message);
        assert!(
            without_docker(&reason),
            "{reason}\n`cargo verify` installs and starts one; BOXYARD_WITHOUT_DOCKER=1 leaves out \
             what needs it"
        );
        return None;
    }
    Some(engine)
}

pub(super) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(BOUND, work).await.expect("it takes too long")
}

/// Waits until a condition holds.
pub(super) async fn eventually(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// An image of one file, made for a test and removed with it.
pub(super) struct TestImage {
    pub(super) name: String,
    docker: Docker,
}

impl TestImage {
    /// Makes an image whose only layer has this many bytes that cannot be compressed.
    pub(super) async fn make(engine: &Engine, name: &str, bytes: usize) -> Self {
        let docker = engine.docker().await.unwrap();
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(name)
            .changes(CHANGES.map(str::to_owned).into())
            .build();
        let body = body_full(archive(bytes).into());
        let made = docker.create_image(Some(options), Some(body), None);
        within(made.try_collect::<Vec<_>>()).await.unwrap();
        Self {
            name: name.into(),
            docker,
        }
    }

    pub(super) async fn remove(self) {
        remove(&self.docker, &self.name).await;
    }
}

/// Removes a name and what only it named; that it is not there is no error.
pub(super) async fn remove(docker: &Docker, name: &str) {
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    let _ = docker.remove_image(name, Some(options), None).await;
}

fn archive(bytes: usize) -> Vec<u8> {
    // Different in each image, for the engine keeps a layer once, and nothing to compress.
    let mut content = Vec::new();
    let mut random = std::fs::File::open("/dev/urandom")
        .unwrap()
        .take(bytes as u64);
    random.read_to_end(&mut content).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append_data(&mut header, "content", content.as_slice())
        .unwrap();
    archive.into_inner().unwrap()
}

/// Returns a name that no other test or run has.
pub(super) fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("boxyard-test-{what}-{:x}-{number}", now.as_nanos())
}

/// Writes docker's own config with a login in it.
pub(super) fn config_with(registry: &str, login: &str) -> tempfile::TempDir {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let directory = tempfile::tempdir().unwrap();
    let config = json!({"auths": {registry: {"auth": STANDARD.encode(login)}}});
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    directory
}
