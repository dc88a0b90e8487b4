//! Finding an engine, and saying what is wrong with one.

use std::os::unix::net::UnixListener;

use boxyard_plugin_api::{HealthStatus, prelude::*};

use super::{
    fake::{Fake, engine_of},
    harness::{engine, within},
};
use crate::engine::{Engine, Environment};

async fn unhealthy(engine: &Engine, named: &[&str]) {
    let health = within(engine.probe()).await;
    assert_eq!(health.status, HealthStatus::Unhealthy, "{health:?}");
    for named in named {
        assert!(health.message.contains(named), "{named}: {health:?}");
    }
}

fn at(path: &std::path::Path) -> Engine {
    let host = format!("unix://{}", path.display());
    Engine::connect(Some(&host), Environment::default())
}

#[tokio::test]
async fn a_real_engine_is_healthy_and_says_what_it_is() {
    let Some(engine) = engine().await else { return };
    let health = within(engine.probe()).await;
    assert_ne!(health.status, HealthStatus::Unhealthy, "{health:?}");
    let connection = within(engine.connection()).await.unwrap();
    let facts = &connection.facts;
    assert_eq!(facts.os, "linux");
    assert!(facts.cpus > 0 && facts.memory > 0, "{facts:?}");
    assert!(
        !facts.arch.is_empty() && !facts.version.is_empty(),
        "{facts:?}"
    );
    assert!(facts.runtimes.contains(&facts.default_runtime), "{facts:?}");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("engine.sock");
    let missing = at(&socket);
    unhealthy(
        &missing,
        &[
            "there is no socket",
            "engine.sock",
            "start",
            "plugin setting",
        ],
    )
    .await;
    let error = missing.docker().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UNAVAILABLE);
    assert!(error.is_retryable());
    // A daemon that was killed leaves its socket behind.
    drop(UnixListener::bind(&socket).unwrap());
    unhealthy(&at(&socket), &["daemon is down", "systemctl start"]).await;
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    unhealthy(&at(&file), &["is no socket"]).await;
    let nobody = Engine::connect(Some("tcp://127.0.0.1:1"), Environment::default());
    unhealthy(&nobody, &["127.0.0.1:1", "nobody listens"]).await;
    let remote = Environment {
        host: Some("ssh://there".into()),
        ..Environment::default()
    };
    unhealthy(
        &Engine::connect(None, remote),
        &["DOCKER_HOST", "ssh://there", "forward"],
    )
    .await;
}

#[tokio::test]
async fn what_answers_may_be_no_engine_or_too_old() {
    let old = Fake::start(|path| engine_of(path, "1.40"));
    unhealthy(&old.engine, &["too old", "1.40", "1.41"]).await;
    let other = Fake::start(|_| Some((200, "<html>".into())));
    unhealthy(&other.engine, &["no Docker engine"]).await;
    let other = Fake::start(|_| Some((404, "nothing here".into())));
    unhealthy(&other.engine, &["no Docker engine", "nothing here"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_not_waited_for() {
    let hung = Fake::start(|_| None);
    let health = hung.engine.probe().await;
    assert_eq!(health.status, HealthStatus::Unhealthy);
    assert!(
        health.message.contains("did not answer within 10 s"),
        "{health:?}"
    );
}

#[tokio::test]
async fn every_request_names_the_version_that_was_agreed_on() {
    let fake = Fake::start(|path| engine_of(path, "1.47"));
    let docker = within(fake.engine.docker()).await.unwrap();
    within(docker.info()).await.unwrap();
    assert_eq!(fake.asked(), ["/version", "/v1.47/info", "/v1.47/info"]);
    let newer = Fake::start(|path| engine_of(path, "1.99"));
    within(newer.engine.docker()).await.unwrap();
    assert_eq!(newer.asked(), ["/version", "/v1.53/info"]);
}

#[tokio::test]
async fn an_engine_is_asked_once_who_it_is() {
    let fake = Fake::start(|path| engine_of(path, "1.41"));
    let (one, other) = tokio::join!(fake.engine.connection(), fake.engine.connection());
    assert_eq!(one.unwrap().facts, other.unwrap().facts);
    assert_eq!(fake.asked().len(), 2);
    within(fake.engine.probe()).await;
    assert_eq!(fake.asked().len(), 4);
}
