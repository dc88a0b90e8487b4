//! Finding an engine, and saying what is wrong with one.

use std::{os::unix::net::UnixListener, sync::Arc, time::Duration};

use boxyard_plugin_api::{CallController, HealthStatus, prelude::*};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    fake::{Fake, engine_of},
    harness::{engine, eventually, within},
};
use crate::{
    backend::Docker,
    engine::{Engine, Environment},
    settings::Settings,
};

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

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_an_engine_that_hangs_wait_for_the_same_attempt() {
    let hung = Fake::start(|_| None);
    let began = Instant::now();
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        let engine = Arc::clone(&hung.engine);
        waiting.spawn(async move { engine.connection().await });
    }
    // Whoever leaves takes the attempt from nobody else.
    let left = timeout(Duration::from_secs(5), hung.engine.connection()).await;
    left.unwrap_err();
    for answer in waiting.join_all().await {
        let error = answer.unwrap_err();
        assert_eq!(error.code(), ErrorCode::UNAVAILABLE, "{error}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    let asked = hung.asked();
    let asked = asked.iter().filter(|path| *path == "/version");
    assert_eq!(asked.count(), 1);
    // Whoever comes later asks anew.
    hung.engine.connection().await.unwrap_err();
    assert!(began.elapsed() > Duration::from_secs(18));
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_wait_for_an_engine_that_hangs() {
    let hung = Fake::start(|_| None);
    let data_dir = tempfile::tempdir().unwrap();
    let engine = Arc::clone(&hung.engine);
    let docker = Docker::new(engine, None, Settings::default(), data_dir.path()).unwrap();
    let controller = CallController::new(0);
    let call = controller.call();
    let giving_up = async {
        eventually(|| hung.asked() == ["/version"]).await;
        controller.cancel();
    };
    let began = Instant::now();
    let swept = docker.sweep(SweepRequest::new("host", ["lease"]), &call);
    let (swept, ()) = tokio::join!(swept, giving_up);
    assert_eq!(swept.unwrap_err().code(), ErrorCode::CANCELLED);
    let error = docker.probe(&call).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::CANCELLED);
    assert!(began.elapsed() < Duration::from_secs(5));
}
