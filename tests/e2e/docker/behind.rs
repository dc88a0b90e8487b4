//! What others do to a container becomes the sandbox's status and its cause, without a command.

use std::{sync::Arc, time::Instant};

use boxyard_host::{Command, Sandbox, Status};
use serde_json::{Value, json};

use super::{Dock, IMAGE, SOON, container, engine};
use crate::world::{bounded, run};

async fn metadata(sandbox: &Arc<Sandbox>, key: &str) -> Value {
    let info = sandbox.info().await;
    info.metadata.get(key).cloned().unwrap_or_default()
}

/// Waits until a sandbox says what became of it.
async fn error_says(sandbox: &Arc<Sandbox>, any_of: &[&str]) {
    becomes(sandbox, "error", |error| {
        let error = error.as_str().unwrap_or_default();
        any_of.iter().any(|part| error.contains(part))
    })
    .await;
}

/// Waits until one of a sandbox's metadata is as it must be.
async fn becomes(sandbox: &Arc<Sandbox>, key: &str, is_so: impl Fn(&Value) -> bool) {
    let began = Instant::now();
    loop {
        let found = metadata(sandbox, key).await;
        if is_so(&found) {
            return;
        }
        assert!(
            began.elapsed() < SOON,
            "{key} is {found}: {:?}",
            sandbox.events()
        );
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_killed_is_an_error_with_its_exit_code() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({})).await;
        let busy = dock.sandbox(json!({})).await;
        let waiting = {
            let busy = Arc::clone(&busy);
            tokio::spawn(async move { run(&busy, &["sleep", "600"]).await })
        };
        for sandbox in [&sandbox, &busy] {
            engine(&["kill", &container(sandbox)]).unwrap();
            error_says(sandbox, &["ended with exit code 137"]).await;
            assert_eq!(sandbox.status(), Status::Error);
            assert_eq!(metadata(sandbox, "exit_code").await, 137);
            run(sandbox, &["true"]).await.unwrap_err();
        }
        waiting.await.unwrap().unwrap_err();
        dock.delete(&sandbox).await;
        dock.delete(&busy).await;
        dock.is_clean();
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_removed_is_an_error_and_deleted_all_the_same() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({})).await;
        engine(&["rm", "-f", &container(&sandbox)]).unwrap();
        // It ends before it is removed, and is seen at either.
        error_says(&sandbox, &["was removed", "exit code 137"]).await;
        assert_eq!(sandbox.status(), Status::Error);
        dock.delete(&sandbox).await;
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_paused_says_so_until_it_goes_on() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({})).await;
        engine(&["pause", &container(&sandbox)]).unwrap();
        becomes(&sandbox, "paused", Value::is_string).await;
        // Nothing failed.
        assert_eq!(sandbox.status(), Status::Running);
        assert_eq!(metadata(&sandbox, "error").await, Value::Null);
        engine(&["unpause", &container(&sandbox)]).unwrap();
        becomes(&sandbox, "paused", Value::is_null).await;
        let events = sandbox.events();
        for kind in ["container-pause", "container-unpause"] {
            let came = Instant::now();
            while !sandbox.events().iter().any(|event| event.kind == kind) {
                assert!(came.elapsed() < SOON, "no {kind} in {events:?}");
                tokio::task::yield_now().await;
            }
        }
        let result = run(&sandbox, &["echo", "on"]).await.unwrap();
        assert_eq!(result.stdout_text(), "on\n");
        // One that is paused can be deleted too.
        engine(&["pause", &container(&sandbox)]).unwrap();
        let began = Instant::now();
        dock.delete(&sandbox).await;
        let took = began.elapsed();
        assert!(took < 2 * SOON, "it took {took:?}");
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_a_container_that_is_or_was_paused_is_its_cause() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        for is_still_paused in [false, true] {
            let sandbox = dock.sandbox(json!({})).await;
            engine(&["pause", &container(&sandbox)]).unwrap();
            becomes(&sandbox, "paused", Value::is_string).await;
            if !is_still_paused {
                engine(&["unpause", &container(&sandbox)]).unwrap();
                becomes(&sandbox, "paused", Value::is_null).await;
            }
            engine(&["kill", &container(&sandbox)]).unwrap();
            error_says(&sandbox, &["ended with exit code 137"]).await;
            assert_eq!(sandbox.status(), Status::Error);
            dock.delete(&sandbox).await;
        }
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_killed_for_memory_says_so_and_the_sandbox_lives_on() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({ "memory_limit": "48m" })).await;
        for _ in 0..2 {
            // It keeps the one line that has no end.
            let hog = run(&sandbox, &["tail", "/dev/zero"]).await.unwrap();
            assert_eq!(hog.exit.signal, Some(9), "{hog:?}");
            assert!(hog.exit.out_of_memory, "{hog:?}");
            let next = run(&sandbox, &["echo", "on"]).await.unwrap();
            assert!(!next.exit.out_of_memory, "{next:?}");
            assert_eq!(next.stdout_text(), "on\n");
        }
        // Killed by somebody else, it does not.
        let killed = Command::shell("kill -9 $$");
        let killed = sandbox.run(killed, None).await.unwrap();
        assert!(!killed.exit.out_of_memory, "{killed:?}");
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_without_memory_for_its_agent_is_an_error_that_says_so() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let full = json!({ "memory_limit": "16m", "tmpfs": { "/full": "size=64m" } });
        let sandbox = dock.sandbox(full).await;
        // What is written stays when its writer is killed: at last nobody but the agent is left.
        let fill = "i=0; while i=$((i+1)); do head -c 65536 /dev/zero > /full/$RANDOM$i; done";
        for _ in 0..50 {
            if sandbox.status() == Status::Error {
                break;
            }
            if sandbox.run(Command::shell(fill), None).await.is_err() {
                break;
            }
        }
        error_says(&sandbox, &["want of memory"]).await;
        assert_eq!(sandbox.status(), Status::Error);
        assert_eq!(metadata(&sandbox, "exit_code").await, 137);
        dock.delete(&sandbox).await;
        dock.end().await;
    })
    .await;
}
