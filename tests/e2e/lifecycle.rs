//! A sandbox's life is the host's: every move, and every way to fail on the way.

use std::time::Duration;

use boxyard_host::{CreateError, EndError, Error, ErrorCode, Status};
use serde_json::json;

use crate::world::{At, World, at_both, error_of, eventually, kinds, run};

at_both! {
    statuses_are_seen_in_order,
    what_a_backend_says_is_in_the_information,
    an_error_arrives_whole,
    create_failing_leaves_nothing,
    start_failing_stops_and_cleans_up_and_names_the_step,
    what_fails_to_start_and_to_clean_up_is_not_forgotten,
    a_hanging_step_ends_with_its_deadline,
    a_step_that_ignores_its_deadline_is_dropped_after_the_grace,
    a_caller_that_vanishes_in_create_leaves_nothing,
    a_caller_that_vanishes_in_start_leaves_nothing,
    a_caller_that_vanishes_with_the_answer_on_its_way_leaves_nothing,
    a_sandbox_that_ends_by_itself_is_an_error_with_its_reason,
    a_sandbox_that_ends_by_itself_while_it_starts_is_not_made,
}

fn backend_error(error: CreateError) -> (&'static str, Error) {
    match error {
        CreateError::Backend { step, source, .. } => (step, source),
        other => panic!("{other}"),
    }
}

async fn statuses_are_seen_in_order(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({ "wait_in": ["stop"] })).await;
    assert_eq!(sandbox.status(), Status::Running);
    let running = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { run(&sandbox, &["wait", "go"]).await }
    });
    assert_eq!(sandbox.status_changed(Status::Running).await, Status::Busy);
    world.open_gate("go");
    assert_eq!(sandbox.status_changed(Status::Busy).await, Status::Running);
    running.await.unwrap().unwrap();
    let deleting = tokio::spawn({
        let (manager, id) = (world.host.manager().clone(), sandbox.id().to_owned());
        async move { manager.delete(&id).await }
    });
    assert_eq!(
        sandbox.status_changed(Status::Running).await,
        Status::Stopping
    );
    world.open_gate("stop");
    assert_eq!(
        sandbox.status_changed(Status::Stopping).await,
        Status::Stopped
    );
    deleting.await.unwrap().unwrap();

    let events = sandbox.events();
    let moves: Vec<_> = events
        .iter()
        .filter(|event| event.kind == "status")
        .map(|event| format!("{} {}", event.data["from"], event.data["to"]).replace('"', ""))
        .collect();
    // Being busy is no history: there would be nothing else in it.
    let expected = [
        "initializing running",
        "running stopping",
        "stopping stopped",
    ];
    assert_eq!(moves, expected);
}

async fn what_a_backend_says_is_in_the_information(at: At) {
    let world = World::new(at).await;
    let mut request = world.request(json!({}));
    request.name = "my own".into();
    let sandbox = world.host.manager().create(request).await.unwrap();
    let info = sandbox.info().await;
    assert_eq!(info.name, "my own");
    assert_eq!(info.metadata["wild"], true);
    assert_eq!(info.backend["id"], sandbox.id());
    assert!(info.execution_context.is_some());
    assert!(info.available_tools.contains(&"wild_tool".to_owned()));
    let events = sandbox.events();
    let expected = ["made", "status", "tools-initialized"];
    assert_eq!(kinds(&events), expected);
    assert_eq!(events[0].data, json!({ "id": sandbox.id() }));
    world.host.manager().delete(sandbox.id()).await.unwrap();
    assert_eq!(kinds(&sandbox.events()).last(), Some(&"cleaned-up"));
}

async fn an_error_arrives_whole(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let error = run(&sandbox, &["fail"]).await.unwrap_err();
    let expected = Error::new(ErrorCode(777), "wild's own failure")
        .retryable()
        .with_details(json!({ "deep": [1, { "er": null }] }));
    assert_eq!(error, expected);
    assert_eq!(
        sandbox.status(),
        Status::Running,
        "a failed command fails no sandbox"
    );
}

async fn create_failing_leaves_nothing(at: At) {
    let world = World::new(at).await;
    let error = world.create(json!({ "fail_in": ["create"] })).await;
    let (step, source) = backend_error(error.unwrap_err());
    assert_eq!((step, source.code()), ("create", ErrorCode::UNAVAILABLE));
    assert!(source.is_retryable());
    assert_eq!(source.details(), &json!({ "step": "create" }));
    assert_eq!(world.journal(), ["create"]);
    assert!(world.host.manager().list().is_empty());
    world.goes_on().await;
}

async fn start_failing_stops_and_cleans_up_and_names_the_step(at: At) {
    let world = World::new(at).await;
    let error = world
        .create(json!({ "fail_in": ["start"] }))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot start a `wild` sandbox: "),
        "{error}"
    );
    assert_eq!(backend_error(error).0, "start");
    eventually("the sandbox is dropped", || world.count("drop") == 1).await;
    let expected = [
        "create",
        "made",
        "created",
        "start",
        "stop",
        "cleanup",
        "cleaned up",
        "drop",
    ];
    assert_eq!(world.journal(), expected);
    assert!(world.host.manager().list().is_empty());
    world.goes_on().await;
}

async fn what_fails_to_start_and_to_clean_up_is_not_forgotten(at: At) {
    let world = World::new(at).await;
    let error = world
        .create(json!({ "fail_in": ["start", "cleanup"] }))
        .await;
    assert_eq!(backend_error(error.unwrap_err()).0, "start");
    let left = world.host.manager().list();
    assert_eq!((left.len(), left[0].status()), (1, Status::Error));
    assert_eq!(error_of(&left[0]), "wild fails in start");
    let again = world.host.manager().delete(left[0].id()).await;
    assert!(again.is_err());
    assert_eq!((world.count("stop"), world.count("cleanup")), (1, 2));
    world.goes_on().await;
}

/// A world in which one step has little time, and what is asked to stop little grace or a lot.
async fn hurried(at: At, step: &str, grace: Duration) -> World {
    World::with(at, |config| {
        let timeouts = &mut config.timeouts;
        timeouts.cancel_grace = grace;
        let timeout = match step {
            "create" => &mut timeouts.create,
            "start" => &mut timeouts.start,
            "stop" => &mut timeouts.stop,
            _ => &mut timeouts.cleanup,
        };
        *timeout = Duration::from_millis(100);
    })
    .await
}

async fn a_hanging_step_ends_with_its_deadline(at: At) {
    each_step_hangs(at, false, Duration::from_secs(60), "wound up").await;
}

async fn a_step_that_ignores_its_deadline_is_dropped_after_the_grace(at: At) {
    each_step_hangs(at, true, Duration::from_millis(50), "dropped").await;
}

async fn each_step_hangs(at: At, ignore_cancel: bool, grace: Duration, ends: &str) {
    let config = |step: &str| json!({ "hang_in": [step], "ignore_cancel": ignore_cancel });
    for step in ["create", "start"] {
        let world = hurried(at, step, grace).await;
        let error = world.create(config(step)).await.unwrap_err();
        let (failed, source) = backend_error(error);
        assert_eq!(
            (failed, source.code()),
            (step, ErrorCode::DEADLINE_EXCEEDED)
        );
        world.noted(&format!("{step} {ends}")).await;
        assert_eq!(world.count("made"), world.count("cleaned up"));
        assert!(world.host.manager().list().is_empty());
    }

    let world = hurried(at, "stop", grace).await;
    let sandbox = world.sandbox(config("stop")).await;
    is_late(world.host.manager().stop(sandbox.id()).await.unwrap_err());
    world.noted(&format!("stop {ends}")).await;
    assert_eq!(sandbox.status(), Status::Error);
    world.host.manager().delete(sandbox.id()).await.unwrap();
    assert_eq!(
        world.count("cleaned up"),
        1,
        "what does not stop is cleaned up"
    );

    let world = hurried(at, "cleanup", grace).await;
    let sandbox = world.sandbox(config("cleanup")).await;
    is_late(world.host.manager().delete(sandbox.id()).await.unwrap_err());
    world.noted(&format!("cleanup {ends}")).await;
    assert_eq!(sandbox.status(), Status::Error);
    assert_eq!(world.host.manager().list().len(), 1, "it is not forgotten");
}

fn is_late(error: EndError) {
    match error {
        EndError::Backend { source, .. } => {
            assert_eq!(source.code(), ErrorCode::DEADLINE_EXCEEDED);
        }
        other @ EndError::NotFound { .. } => panic!("{other}"),
    }
}

async fn a_caller_that_vanishes_in_create_leaves_nothing(at: At) {
    caller_vanishes_in(at, "create").await;
}

async fn a_caller_that_vanishes_in_start_leaves_nothing(at: At) {
    caller_vanishes_in(at, "start").await;
}

async fn caller_vanishes_in(at: At, step: &str) {
    let world = World::new(at).await;
    let (manager, request) = (
        world.host.manager().clone(),
        world.request(json!({ "wait_in": [step] })),
    );
    let caller = tokio::spawn(async move { manager.create(request).await.map(drop) });
    world.noted(step).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    world.open_gate(step);
    world.noted("cleaned up").await;
    eventually("the sandbox is dropped", || world.count("drop") == 1).await;
    assert_eq!((world.count("made"), world.count("cleaned up")), (1, 1));
    assert!(world.host.manager().list().is_empty());
    world.goes_on().await;
    world.host.shutdown().await;
    assert!(crate::world::files_in(&world.leases()).is_empty());
}

async fn a_caller_that_vanishes_with_the_answer_on_its_way_leaves_nothing(at: At) {
    let world = World::new(at).await;
    let manager = world.host.manager();
    {
        let request = world.request(json!({ "wait_in": ["start"] }));
        let mut create = std::pin::pin!(manager.create(request));
        // One look starts it.
        tokio::select! {
            biased;
            _ = create.as_mut() => panic!("made before it could be"),
            () = std::future::ready(()) => {}
        }
        world.open_gate("start");
        // The sandbox is made and its answer sent; the caller goes before it looks again.
        eventually("the sandbox is made", || !manager.list().is_empty()).await;
        let sandbox = manager.list().remove(0);
        eventually("the answer is sent", || {
            // The answer holds the third handle, after the manager's and this one.
            std::sync::Arc::strong_count(&sandbox) >= 3
        })
        .await;
    }
    eventually("the sandbox is deleted", || manager.list().is_empty()).await;
    assert_eq!((world.count("made"), world.count("cleaned up")), (1, 1));
    world.goes_on().await;
}

async fn a_sandbox_that_ends_by_itself_is_an_error_with_its_reason(at: At) {
    let world = World::new(at).await;
    let config = json!({ "exited": "the engine lost it", "wait_in": ["exit"] });
    let sandbox = world.sandbox(config).await;
    assert_eq!(sandbox.status(), Status::Running);
    world.open_gate("exit");
    assert_eq!(sandbox.status_changed(Status::Running).await, Status::Error);
    assert_eq!(error_of(&sandbox), "the engine lost it");
    assert_eq!(sandbox.info().await.metadata["error"], "the engine lost it");
    let refused = run(&sandbox, &["echo"]).await.unwrap_err();
    assert!(
        refused.message().contains("the engine lost it"),
        "{refused}"
    );
    assert_eq!(world.count("execute_command"), 0);
    world.host.manager().delete(sandbox.id()).await.unwrap();
    assert_eq!((world.count("stop"), world.count("cleaned up")), (1, 1));
}

async fn a_sandbox_that_ends_by_itself_while_it_starts_is_not_made(at: At) {
    let world = World::new(at).await;
    let error = world
        .create(json!({ "exited": "it fell over" }))
        .await
        .unwrap_err();
    let (step, source) = backend_error(error);
    assert_eq!(step, "start");
    assert!(source.message().contains("it fell over"), "{source}");
    assert_eq!((world.count("stop"), world.count("cleaned up")), (1, 1));
    world.goes_on().await;
}
