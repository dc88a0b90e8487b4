//! How many sandboxes there may be, how long they live, and how they are found.

use std::{sync::Arc, time::Duration};

use boxyard_host::{
    Config, CreateError, CreateRequest, ErrorCode, Filter, Limits, Sandbox, Status,
};
use serde_json::json;

use crate::world::{At, World, at_both, eventually, run};

at_both! {
    no_more_are_made_than_there_may_be,
    no_more_are_made_at_once_than_may_be,
    a_type_has_a_limit_of_its_own,
    one_whose_time_is_over_is_deleted_whatever_runs,
    one_in_which_nothing_runs_is_deleted,
    one_that_ended_is_kept_for_a_while,
    they_are_found_by_what_they_are,
    one_is_not_said_to_be_kept_that_cannot_be,
}

/// Shorter than the time between two looks at what is over.
const SHORT: Duration = Duration::from_millis(300);

fn limited(set: impl FnOnce(&mut Limits)) -> impl FnOnce(&mut Config) {
    |config| set(&mut config.limits)
}

fn full(made: Result<Arc<Sandbox>, CreateError>) -> String {
    match made {
        Err(error @ CreateError::Full { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn no_more_are_made_than_there_may_be(at: At) {
    let world = World::with(at, limited(|limits| limits.sandboxes = Some(2))).await;
    let first = world.sandbox(json!({})).await;
    let _second = world.sandbox(json!({})).await;
    assert_eq!(
        full(world.create(json!({})).await),
        "2 sandboxes are there, and `limits.sandboxes` allows no more: try again once one is gone, \
         or raise it"
    );
    let manager = world.host.manager();
    manager.delete(first.id()).await.unwrap();
    world.sandbox(json!({})).await;
    full(world.create(json!({})).await);
}

async fn no_more_are_made_at_once_than_may_be(at: At) {
    let world = World::with(at, limited(|limits| limits.creating = Some(1))).await;
    let (manager, request) = (
        world.host.manager().clone(),
        json!({ "wait_in": ["create"] }),
    );
    let slow = tokio::spawn({
        let request = world.request(request);
        async move { manager.create(request).await }
    });
    eventually("it is being made", || world.count("create") == 1).await;
    let said = full(world.create(json!({})).await);
    assert!(said.contains("1 sandboxes are being made"), "{said}");
    world.open_gate("create");
    slow.await.unwrap().unwrap();
    world.sandbox(json!({})).await;
}

async fn a_type_has_a_limit_of_its_own(at: At) {
    let one = |limits: &mut Limits| {
        limits.per_type.insert("wild".into(), 1);
        limits.per_type.insert("other".into(), 0);
    };
    let world = World::with(at, limited(one)).await;
    // What is not made does not count.
    let failed = world.create(json!({ "fail_in": ["create"] })).await;
    assert!(matches!(failed, Err(CreateError::Backend { .. })));
    world.sandbox(json!({})).await;
    let said = full(world.create(json!({})).await);
    assert!(said.contains("`limits.per_type.wild`"), "{said}");
}

/// Makes a sandbox, and waits until it is gone.
async fn comes_and_goes(world: &World, request: CreateRequest) -> Arc<Sandbox> {
    let manager = world.host.manager();
    let sandbox = manager.create(request).await.unwrap();
    eventually("it is gone", || manager.get(sandbox.id()).is_none()).await;
    assert_eq!(world.count("cleanup"), 1);
    sandbox
}

async fn why(sandbox: &Arc<Sandbox>) -> String {
    let info = sandbox.info().await;
    info.metadata["expired"].as_str().unwrap().to_owned()
}

async fn one_whose_time_is_over_is_deleted_whatever_runs(at: At) {
    let world = World::new(at).await;
    let request = world.request(json!({ "wait_in": ["execute_command"] }));
    let manager = world.host.manager();
    let sandbox = manager.create(request.ttl(SHORT)).await.unwrap();
    let running = tokio::spawn({
        let sandbox = Arc::clone(&sandbox);
        async move { run(&sandbox, &["echo", "never"]).await }
    });
    eventually("it is gone", || manager.get(sandbox.id()).is_none()).await;
    running.await.unwrap().unwrap_err();
    assert_eq!(why(&sandbox).await, "it lived for 300ms");
    let refused = run(&sandbox, &["echo", "late"]).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::FAILED_PRECONDITION);
    assert!(
        refused.message().contains("it lived for 300ms"),
        "{refused}"
    );
}

async fn one_in_which_nothing_runs_is_deleted(at: At) {
    let world = World::new(at).await;
    let request = world.request(json!({ "wait_in": ["execute_command"] }));
    let manager = world.host.manager();
    let sandbox = manager.create(request.idle_timeout(SHORT)).await.unwrap();
    let running = tokio::spawn({
        let sandbox = Arc::clone(&sandbox);
        async move { run(&sandbox, &["echo", "slowly"]).await }
    });
    // Longer than it may be idle, and than it takes to be seen.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(sandbox.status(), Status::Busy);
    world.open_gate("execute_command");
    let result = running.await.unwrap().unwrap();
    assert_eq!(result.stdout_text(), "slowly");
    eventually("it is gone", || manager.get(sandbox.id()).is_none()).await;
    assert_eq!(why(&sandbox).await, "nothing ran in it for 300ms");
}

async fn one_that_ended_is_kept_for_a_while(at: At) {
    let world = World::with(at, |config| config.lifetimes.ended = SHORT).await;
    let sandbox = comes_and_goes(&world, world.request(json!({})).ttl(SHORT)).await;
    assert_eq!(why(&sandbox).await, "it lived for 300ms");

    let stopped = world.sandbox(json!({})).await;
    let manager = world.host.manager();
    manager.stop(stopped.id()).await.unwrap();
    eventually("it is gone", || manager.get(stopped.id()).is_none()).await;
    assert_eq!(why(&stopped).await, "it was stopped for 300ms");
}

async fn they_are_found_by_what_they_are(at: At) {
    let world = World::new(at).await;
    let manager = world.host.manager();
    let request = |name: &str, team: &str| {
        let request = world.request(json!({})).name(name);
        request.label("team", team).label("all", "")
    };
    let red = manager.create(request("first", "red")).await.unwrap();
    let blue = manager.create(request("second", "blue")).await.unwrap();
    manager.stop(blue.id()).await.unwrap();
    let found = |filter: Filter| {
        let found = manager.find(&filter);
        let mut names: Vec<String> = found.iter().map(|it| it.name().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(found(Filter::default()), ["first", "second"]);
    assert_eq!(found(Filter::default().label("team", "red")), ["first"]);
    let both = Filter::default().label("all", "").label("team", "blue");
    assert_eq!(found(both), ["second"]);
    assert!(found(Filter::default().label("all", "no")).is_empty());
    assert_eq!(found(Filter::default().status(Status::Running)), ["first"]);
    assert_eq!(found(Filter::default().sandbox_type("wild")).len(), 2);
    assert!(found(Filter::default().sandbox_type("docker")).is_empty());
    let neither = Filter::default()
        .status(Status::Stopped)
        .label("team", "red");
    assert!(found(neither).is_empty());
    assert_eq!(red.labels()["team"], "red");
}

async fn one_is_not_said_to_be_kept_that_cannot_be(at: At) {
    let world = World::with(at, |config| config.keep_sandboxes = true).await;
    let sandbox = world.sandbox(json!({})).await;
    assert!(!sandbox.summary().keep);
    let request = world.request(json!({})).keep(true);
    let refused = world.host.manager().create(request).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot keep a `wild` sandbox for the next host: this host has no store"
    );
}
