//! A panic of a plugin's costs a call or a sandbox, never the host.

use boxyard_host::{ErrorCode, HealthStatus, Status, ToolStatus};
use serde_json::json;

use crate::{
    logs,
    world::{At, PLUGIN, World, at_both, error_of, object, run, status_is, tool},
};

at_both! {
    a_panic_while_opening_quarantines_the_plugin_alone,
    a_panic_in_probe_is_unhealthy,
    a_panic_in_create_is_an_error_and_leaves_nothing,
    a_panic_in_start_is_an_error_and_leaves_nothing,
    a_panic_in_stop_still_cleans_up,
    a_panic_in_cleanup_without_a_saved_state_is_an_error,
    a_panic_in_cleanup_is_made_good_from_the_saved_state,
    a_panic_in_cleanup_of_what_is_gone_is_made_good,
    a_panic_in_recover_is_an_error,
    a_panic_in_a_command_ends_its_sandbox_once,
    a_panic_in_information_ends_its_sandbox,
    a_panic_after_the_caller_left_ends_the_sandbox,
    a_panic_in_any_other_method_reaches_the_tool_that_called_it,
    a_panic_in_a_tool_is_its_result_and_harms_no_sandbox,
    a_panic_in_a_drop_is_logged_and_harmless,
    a_panic_with_a_value_that_is_no_text_is_an_error,
}

fn is_panic(text: &str, message: &str) {
    assert!(text.contains(message), "`{text}` has no `{message}`");
    let named = format!("plugin `{PLUGIN}`: panicked at tests/fixtures/wild");
    assert!(text.contains(&named), "`{text}` has no `{named}`");
}

async fn a_panic_while_opening_quarantines_the_plugin_alone(at: At) {
    let world = World::with(at, |config| {
        let plugin = config.plugins.get_mut(PLUGIN).unwrap();
        plugin.settings = object(json!({ "panic_in": ["open"] }));
    })
    .await;
    let reports = world.host.plugins();
    let reason = reports[0].reason.as_deref().unwrap();
    assert!(reason.contains("wild panics in open"), "{reason}");
    assert_eq!(world.host.registry().types().count(), 0);
    world.host.shutdown().await;
}

async fn a_panic_in_probe_is_unhealthy(at: At) {
    let world = World::with(at, |config| {
        let plugin = config.plugins.get_mut(PLUGIN).unwrap();
        plugin.settings = object(json!({ "panic_in": ["probe"] }));
    })
    .await;
    let registry = world.host.registry();
    let health = registry.sandbox_type("wild").unwrap().probe().await;
    assert_eq!(health.status, HealthStatus::Unhealthy);
    is_panic(&health.message, "wild panics in probe");
    world.goes_on().await;
}

async fn a_panic_in_create_is_an_error_and_leaves_nothing(at: At) {
    let world = World::new(at).await;
    let error = world.create(json!({ "panic_in": ["create"] })).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("cannot create a `wild` sandbox"),
        "{error}"
    );
    is_panic(&error, "wild panics in create");
    assert_eq!(world.journal(), ["create"]);

    // What was made before is found again by its saved state.
    world.clear_journal();
    let config = json!({ "panic_in": ["created"], "save_state": true });
    is_panic(
        &world.create(config).await.unwrap_err().to_string(),
        "wild panics in created",
    );
    assert_eq!(world.count("made"), 1, "{:?}", world.journal());
    assert_eq!(world.count("cleaned up"), 1, "{:?}", world.journal());
    assert!(world.host.manager().list().is_empty());
    world.goes_on().await;
}

async fn a_panic_in_start_is_an_error_and_leaves_nothing(at: At) {
    let world = World::new(at).await;
    let error = world.create(json!({ "panic_in": ["start"] })).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.starts_with("cannot start a `wild` sandbox"),
        "{error}"
    );
    is_panic(&error, "wild panics in start");
    for step in ["made", "start", "stop", "cleaned up"] {
        assert_eq!(world.count(step), 1, "{step}");
    }
    assert!(world.host.manager().list().is_empty());
    world.goes_on().await;
}

async fn a_panic_in_stop_still_cleans_up(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({ "panic_in": ["stop"] })).await;
    world.host.manager().delete(sandbox.id()).await.unwrap();
    assert_eq!(sandbox.status(), Status::Error);
    is_panic(&error_of(&sandbox), "wild panics in stop");
    assert_eq!((world.count("stop"), world.count("cleaned up")), (1, 1));
    assert!(world.host.manager().list().is_empty());
    world.goes_on().await;
}

async fn a_panic_in_cleanup_without_a_saved_state_is_an_error(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({ "panic_in": ["cleanup"] })).await;
    let error = world.host.manager().delete(sandbox.id()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("saved no state"), "{error}");
    is_panic(&error, "wild panics in cleanup");
    assert_eq!(sandbox.status(), Status::Error);
    assert_eq!(world.host.manager().list().len(), 1, "it is not forgotten");
    world.goes_on().await;
}

async fn a_panic_in_cleanup_is_made_good_from_the_saved_state(at: At) {
    let world = World::new(at).await;
    let config = json!({ "panic_in": ["cleanup"], "save_state": true });
    let sandbox = world.sandbox(config).await;
    world.host.manager().delete(sandbox.id()).await.unwrap();
    for step in [
        "stop",
        "cleanup",
        "recover",
        "recovered cleanup",
        "cleaned up",
    ] {
        assert_eq!(world.count(step), 1, "{step}: {:?}", world.journal());
    }
    assert!(world.host.manager().list().is_empty());
    world.goes_on().await;
}

async fn a_panic_in_cleanup_of_what_is_gone_is_made_good(at: At) {
    let world = World::new(at).await;
    let config = json!({ "panic_in": ["cleanup"], "save_state": true, "gone": true });
    let sandbox = world.sandbox(config).await;
    world.host.manager().delete(sandbox.id()).await.unwrap();
    assert_eq!((world.count("cleanup"), world.count("recover")), (1, 1));
    world.goes_on().await;
}

async fn a_panic_in_recover_is_an_error(at: At) {
    let world = World::new(at).await;
    let config = json!({ "panic_in": ["cleanup", "recover"], "save_state": true });
    let sandbox = world.sandbox(config).await;
    let error = world.host.manager().delete(sandbox.id()).await;
    is_panic(&error.unwrap_err().to_string(), "wild panics in recover");
    let config = json!({
        "panic_in": ["cleanup"],
        "save_state": true,
        "panic_in_recovered": ["recovered cleanup"],
    });
    let sandbox = world.sandbox(config).await;
    let error = world.host.manager().delete(sandbox.id()).await;
    is_panic(
        &error.unwrap_err().to_string(),
        "wild panics in recovered cleanup",
    );
    world.goes_on().await;
}

async fn a_panic_in_a_command_ends_its_sandbox_once(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let error = run(&sandbox, &["panic", "out of my mind"])
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::PANICKED);
    is_panic(error.message(), "out of my mind");
    world.noted("cleaned up").await;

    assert_eq!(sandbox.status(), Status::Error);
    is_panic(&error_of(&sandbox), "out of my mind");
    let info = sandbox.info().await;
    is_panic(info.metadata["error"].as_str().unwrap(), "out of my mind");
    let refused = run(&sandbox, &["echo"]).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::FAILED_PRECONDITION);
    assert!(refused.message().contains("out of my mind"), "{refused}");
    assert!(
        sandbox
            .execute_tool("wild_tool", json!({ "action": "info" }), None)
            .await
            .is_err()
    );

    world.host.manager().delete(sandbox.id()).await.unwrap();
    assert_eq!((world.count("stop"), world.count("cleaned up")), (1, 1));
    world.goes_on().await;
}

async fn a_panic_in_information_ends_its_sandbox(at: At) {
    for method in ["info", "execution_context"] {
        let world = World::new(at).await;
        let sandbox = world.sandbox(json!({ "panic_in": [method] })).await;
        sandbox.info().await;
        world.noted("cleaned up").await;
        assert_eq!(sandbox.status(), Status::Error);
        is_panic(&error_of(&sandbox), &format!("wild panics in {method}"));
        world.goes_on().await;
    }
}

async fn a_panic_after_the_caller_left_ends_the_sandbox(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let caller = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { run(&sandbox, &["panic-when-asked"]).await }
    });
    world.noted("panics when asked").await;
    caller.abort();
    world.noted("cleaned up").await;
    assert_eq!(sandbox.status(), Status::Error);
    is_panic(&error_of(&sandbox), "wild panics while it winds up");
    world.goes_on().await;
}

async fn a_panic_in_any_other_method_reaches_the_tool_that_called_it(at: At) {
    let world = World::new(at).await;
    for method in [
        "stats",
        "read_file",
        "write_file",
        "stat",
        "list",
        "remove",
        "make_directory",
        "put_archive",
        "get_archive",
    ] {
        let sandbox = world.sandbox(json!({ "panic_in": [method] })).await;
        let result = tool(&sandbox, method).await;
        assert_eq!(result.status, ToolStatus::Error);
        is_panic(&result.error.unwrap(), &format!("wild panics in {method}"));
        status_is(&sandbox, Status::Error).await;
        is_panic(&error_of(&sandbox), &format!("wild panics in {method}"));
        world.host.manager().delete(sandbox.id()).await.unwrap();
    }
    assert_eq!(world.count("cleaned up"), 9);
    world.goes_on().await;
}

async fn a_panic_in_a_tool_is_its_result_and_harms_no_sandbox(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let result = tool(&sandbox, "panic").await;
    assert_eq!(result.status, ToolStatus::Error);
    is_panic(&result.error.unwrap(), "wild panics in a tool");
    assert_eq!(sandbox.status(), Status::Running);
    assert_eq!(tool(&sandbox, "info").await.status, ToolStatus::Success);
    run(&sandbox, &["echo"]).await.unwrap();
}

async fn a_panic_in_a_drop_is_logged_and_harmless(at: At) {
    let world = World::with(at, |config| {
        config.timeouts.cancel_grace = std::time::Duration::from_millis(50);
    })
    .await;
    // The sandbox itself.
    let sandbox = world.sandbox(json!({ "panic_in": ["drop"] })).await;
    let id = sandbox.id().to_owned();
    world.host.manager().delete(&id).await.unwrap();
    drop(sandbox);
    logs::eventually_logged(|event| {
        event.is("sandbox", &id) && event.level == "ERROR" && event.message == "wild panics in drop"
    })
    .await;

    // What a command holds when its future is dropped.
    let sandbox = world.sandbox(json!({ "ignore_cancel": true })).await;
    let id = sandbox.id().to_owned();
    let running = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { run(&sandbox, &["hang-with-bomb"]).await }
    });
    world.noted("hang hangs").await;
    running.abort();
    world.noted("hang dropped").await;
    logs::eventually_logged(|event| {
        event.is("sandbox", &id) && event.message == "wild panics in a drop"
    })
    .await;
    run(&sandbox, &["echo"]).await.unwrap();

    // What a tool answers.
    let result = tool(&sandbox, "panic-in-output-drop").await;
    is_panic(&result.error.unwrap(), "wild panics in a drop");
    assert_eq!(sandbox.status(), Status::Running);

    // A sandbox that outlives its plugin.
    let last = world.sandbox(json!({ "panic_in": ["drop"] })).await;
    world.goes_on().await;
    world.host.shutdown().await;
    drop(last);
    drop(sandbox);
}

async fn a_panic_with_a_value_that_is_no_text_is_an_error(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let error = run(&sandbox, &["panic-text"]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PANICKED);
    is_panic(error.message(), "a value that is no text");
    world.noted("cleaned up").await;
    world.goes_on().await;
}
