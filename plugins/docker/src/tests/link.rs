//! Agents that do not connect, and whose fault that is.

use tokio::net::UnixListener;

use super::fake::{Answer, Fake, engine_of};
use crate::link::{self, Ended, Unconnected};

/// Starts a container whose agent does not connect.
async fn unconnected(answer: fn(&str) -> Option<Answer>) -> Unconnected {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
    let fake = Fake::start(answer);
    let docker = fake.engine.docker().await.unwrap();
    let line = link::over_socket(&docker, "box", &listener).await;
    line.err().unwrap()
}

/// Answers as an engine whose containers end with an exit code.
fn ends_with(path: &str, code: &str) -> Option<Answer> {
    match path.rsplit('/').next().unwrap_or_default() {
        "start" => Some((204, String::new())),
        wait if wait.starts_with("wait") => Some((200, format!(r#"{{"StatusCode": {code}}}"#))),
        _ => engine_of(path, "1.41"),
    }
}

#[tokio::test]
async fn an_agent_that_cannot_connect_is_reached_otherwise() {
    let why = unconnected(|path| ends_with(path, "1")).await;
    assert!(
        matches!(why, Unconnected::Ended(Ended::With(1))) && why.is_of_the_socket(),
        "{why:?}"
    );
}

#[tokio::test]
async fn a_container_that_was_killed_is_no_fault_of_the_socket() {
    let why = unconnected(|path| ends_with(path, "137")).await;
    assert!(
        matches!(why, Unconnected::Ended(Ended::With(137))) && !why.is_of_the_socket(),
        "{why:?}"
    );
    let why = unconnected(|path| match path.contains("/wait") {
        true => Some((404, r#"{"message": "No such container: box"}"#.into())),
        false => ends_with(path, "0"),
    });
    let why = why.await;
    assert!(
        matches!(why, Unconnected::Ended(Ended::Gone)) && !why.is_of_the_socket(),
        "{why:?}"
    );
}

#[tokio::test]
async fn a_container_that_cannot_be_started_is_no_fault_of_the_socket() {
    let why = unconnected(|path| match path.ends_with("/start") {
        true => Some((500, r#"{"message": "no"}"#.into())),
        false => engine_of(path, "1.41"),
    });
    let why = why.await;
    assert!(
        matches!(why, Unconnected::Failed(_)) && !why.is_of_the_socket(),
        "{why:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_runs_and_says_nothing_is_reached_otherwise() {
    let why = unconnected(|path| match path.contains("/wait") {
        true => None,
        false => ends_with(path, "0"),
    });
    let why = why.await;
    assert!(
        matches!(why, Unconnected::Silent) && why.is_of_the_socket(),
        "{why:?}"
    );
}
