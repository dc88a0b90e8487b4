//! A sandbox's end: once, to its end, and whoever else wants it.

use std::time::Duration;

use boxyard_host::{CreateError, EndError, ErrorCode, HealthStatus, Status};
use serde_json::json;

use crate::world::{At, World, at_both, eventually, files_in, run, status_is};

at_both! {
    deleting_ends_a_running_command_before_it_cleans_up,
    deleting_waits_for_a_command_whose_caller_is_gone,
    deleting_twice_at_once_deletes_once,
    deleting_runs_to_its_end_without_its_caller,
    a_deletion_that_failed_can_be_tried_again,
    what_is_stopped_takes_no_commands_and_says_so,
    shutdown_deletes_everything_and_refuses_what_comes_after,
    shutdown_deletes_what_was_being_made,
    shutdown_ends_with_its_deadline_and_leaves_the_lease,
}

async fn deleting_ends_a_running_command_before_it_cleans_up(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let running = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { run(&sandbox, &["hang"]).await }
    });
    world.noted("hang hangs").await;
    world.host.manager().delete(sandbox.id()).await.unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::CANCELLED);
    let steps = [
        "stop",
        "hang asked",
        "hang wound up",
        "hang dropped",
        "cleanup",
        "cleaned up",
    ];
    let journal = world.journal();
    let seen: Vec<_> = journal
        .iter()
        .filter(|line| steps.contains(&line.as_str()))
        .collect();
    assert_eq!(seen, steps);
    assert_eq!(sandbox.status(), Status::Stopped);
    assert!(world.host.manager().list().is_empty());
}

async fn deleting_waits_for_a_command_whose_caller_is_gone(at: At) {
    let world = World::new(at).await;
    let config = json!({ "wait_in": ["winding-up"] });
    let sandbox = world.sandbox(config).await;
    let running = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { run(&sandbox, &["hang"]).await }
    });
    world.noted("hang hangs").await;
    running.abort();
    world.noted("hang asked").await;
    // Its plugin winds it up, and until then it runs.
    assert_eq!(sandbox.status(), Status::Busy);
    let opens = async {
        world.noted("stop").await;
        world.open_gate("winding-up");
    };
    let (deleted, ()) = tokio::join!(world.host.manager().delete(sandbox.id()), opens);
    deleted.unwrap();
    let journal = world.journal();
    let steps = ["hang dropped", "cleanup"];
    let seen = journal.iter().filter(|line| steps.contains(&line.as_str()));
    assert_eq!(seen.collect::<Vec<_>>(), steps);
}

async fn deleting_twice_at_once_deletes_once(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({ "wait_in": ["stop"] })).await;
    let manager = world.host.manager();
    let opens = async {
        world.noted("stop").await;
        world.open_gate("stop");
    };
    let (first, second, ()) = tokio::join!(
        manager.delete(sandbox.id()),
        manager.delete(sandbox.id()),
        opens
    );
    first.unwrap();
    second.unwrap();
    assert_eq!((world.count("stop"), world.count("cleaned up")), (1, 1));
    for id in [sandbox.id(), "unknown"] {
        let error = manager.delete(id).await.unwrap_err();
        assert!(matches!(&error, EndError::NotFound { id: asked } if asked == id));
        let error = manager.stop(id).await.unwrap_err();
        assert!(matches!(error, EndError::NotFound { .. }));
    }
}

async fn deleting_runs_to_its_end_without_its_caller(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({ "wait_in": ["stop"] })).await;
    let caller = tokio::spawn({
        let (manager, id) = (world.host.manager().clone(), sandbox.id().to_owned());
        async move { manager.delete(&id).await }
    });
    world.noted("stop").await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    world.open_gate("stop");
    eventually("the sandbox is gone", || {
        world.host.manager().list().is_empty()
    })
    .await;
    assert_eq!(world.count("cleaned up"), 1);
}

async fn a_deletion_that_failed_can_be_tried_again(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({ "fail_in": ["cleanup"] })).await;
    for _ in 0..2 {
        let error = world.host.manager().delete(sandbox.id()).await.unwrap_err();
        assert!(
            error.to_string().contains("wild fails in cleanup"),
            "{error}"
        );
    }
    assert_eq!((world.count("stop"), world.count("cleanup")), (1, 2));
    assert_eq!(sandbox.status(), Status::Error);
    let error = sandbox.info().await.metadata["error"].clone();
    assert_eq!(error, "cleaning up failed: wild fails in cleanup");
}

async fn what_is_stopped_takes_no_commands_and_says_so(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let manager = world.host.manager();
    manager.stop(sandbox.id()).await.unwrap();
    manager.stop(sandbox.id()).await.unwrap();
    assert_eq!(sandbox.status(), Status::Stopped);
    let error = run(&sandbox, &["echo"]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FAILED_PRECONDITION);
    let expected = format!(
        "sandbox {} is stopped: expected it to be running",
        sandbox.id()
    );
    assert_eq!(error.message(), expected);
    let refused = sandbox
        .execute_tool("wild_tool", json!({ "action": "info" }), None)
        .await;
    assert_eq!(refused.unwrap_err().to_string(), expected);
    manager.delete(sandbox.id()).await.unwrap();
    assert_eq!((world.count("stop"), world.count("cleaned up")), (1, 1));
}

async fn shutdown_deletes_everything_and_refuses_what_comes_after(at: At) {
    let world = World::new(at).await;
    let mut sandboxes = Vec::new();
    for _ in 0..3 {
        sandboxes.push(world.sandbox(json!({})).await);
    }
    let running = tokio::spawn({
        let sandbox = sandboxes[0].clone();
        async move { run(&sandbox, &["hang"]).await }
    });
    world.noted("hang hangs").await;
    let wild = world.host.registry().sandbox_type("wild").unwrap().clone();
    world.host.shutdown().await;
    assert_eq!(
        running.await.unwrap().unwrap_err().code(),
        ErrorCode::CANCELLED
    );
    assert_eq!((world.count("stop"), world.count("cleaned up")), (3, 3));
    assert!(world.host.manager().list().is_empty());
    assert!(files_in(&world.leases()).is_empty());

    for sandbox in &sandboxes {
        assert_eq!(sandbox.status(), Status::Stopped);
        let error = run(sandbox, &["echo"]).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::FAILED_PRECONDITION);
    }
    let error = world.create(json!({})).await.unwrap_err();
    assert!(matches!(error, CreateError::ShuttingDown), "{error}");
    let health = wild.probe().await;
    assert_eq!(health.status, HealthStatus::Unhealthy);
    assert_eq!(health.message, "the plugin's runtime is shut down");
    world.host.shutdown().await;
}

async fn shutdown_deletes_what_was_being_made(at: At) {
    let world = World::new(at).await;
    let slow = world.sandbox(json!({ "wait_in": ["stop"] })).await;
    let creating = tokio::spawn({
        let manager = world.host.manager().clone();
        let request = world.request(json!({ "wait_in": ["start"] }));
        async move { manager.create(request).await }
    });
    eventually("the second starts", || world.count("start") == 2).await;
    let shutdown = tokio::spawn({
        let host = world.host.clone();
        async move { host.shutdown().await }
    });
    status_is(&slow, Status::Stopping).await;
    // It is made while the shutdown is busy with the first.
    world.open_gate("start");
    let made = creating.await.unwrap().unwrap();
    world.open_gate("stop");
    shutdown.await.unwrap();
    assert_eq!(made.status(), Status::Stopped);
    assert_eq!(world.count("cleaned up"), 2);
    assert!(files_in(&world.leases()).is_empty());
}

async fn shutdown_ends_with_its_deadline_and_leaves_the_lease(at: At) {
    let world = World::with(at, |config| {
        config.timeouts.shutdown = Duration::from_millis(200);
    })
    .await;
    let sandbox = world.sandbox(json!({ "hang_in": ["stop"] })).await;
    world.host.shutdown().await;
    // The plugin's runtime ended under the stop that hung.
    status_is(&sandbox, Status::Error).await;
    assert_eq!(files_in(&world.leases()).len(), 1, "the next host sweeps");
}
