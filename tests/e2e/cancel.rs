//! Cancelling is a request first; a deadline is one that the host makes.

use std::time::Duration;

use boxyard_host::{Command, CommandExit, ErrorCode, Status};
use serde_json::json;

use crate::world::{At, World, at_both, run, status_is};

at_both! {
    cancelling_a_command_runs_the_plugins_own_clean_up_first,
    a_command_that_ignores_the_request_is_dropped_after_the_grace,
    a_command_whose_plugin_ignores_its_timeout_ends_with_124_anyway,
    a_command_that_is_killed_late_ends_with_124_and_keeps_its_output,
    a_deadline_is_told_to_the_plugin,
}

async fn cancelling_a_command_runs_the_plugins_own_clean_up_first(at: At) {
    let world = World::with(at, |config| {
        config.timeouts.cancel_grace = Duration::from_secs(60);
    })
    .await;
    let sandbox = world.sandbox(json!({ "wait_in": ["winding-up"] })).await;
    let caller = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { run(&sandbox, &["hang"]).await }
    });
    world.noted("hang hangs").await;
    caller.abort();
    world.noted("hang asked").await;
    assert!(caller.await.unwrap_err().is_cancelled());
    // The caller is gone; the plugin has all the time that it needs.
    run(&sandbox, &["echo"]).await.unwrap();
    assert_eq!(world.count("hang dropped"), 0);
    world.open_gate("winding-up");
    world.noted("hang dropped").await;
    let journal = world.journal();
    assert_eq!(
        &journal[journal.len() - 2..],
        ["hang wound up", "hang dropped"]
    );
    status_is(&sandbox, Status::Running).await;
}

async fn a_command_that_ignores_the_request_is_dropped_after_the_grace(at: At) {
    let world = World::with(at, |config| {
        config.timeouts.cancel_grace = Duration::from_millis(50);
    })
    .await;
    let sandbox = world.sandbox(json!({ "ignore_cancel": true })).await;
    let caller = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { run(&sandbox, &["hang"]).await }
    });
    world.noted("hang hangs").await;
    caller.abort();
    world.noted("hang dropped").await;
    let journal = world.journal();
    assert_eq!(
        &journal[journal.len() - 2..],
        ["hang asked", "hang dropped"]
    );
    run(&sandbox, &["echo"]).await.unwrap();
}

async fn a_command_whose_plugin_ignores_its_timeout_ends_with_124_anyway(at: At) {
    let world = World::with(at, |config| {
        config.timeouts.cancel_grace = Duration::from_millis(50);
    })
    .await;
    for ignore_cancel in [true, false] {
        let config = json!({ "ignore_cancel": ignore_cancel });
        let sandbox = world.sandbox(config).await;
        let command = Command::argv(["hang"]).timeout(Duration::from_millis(10));
        let result = sandbox.run(command, None).await.unwrap();
        assert_eq!(result.exit.exit_code, CommandExit::TIMED_OUT);
        assert!(result.exit.timed_out);
        assert!(result.exit.duration_ms >= 10);
        world.noted("hang dropped").await;
        assert_eq!(sandbox.status(), Status::Running);
    }
}

async fn a_command_that_is_killed_late_ends_with_124_and_keeps_its_output(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let command = Command::argv(["killed-late"]).timeout(Duration::from_millis(10));
    let result = sandbox.run(command, None).await.unwrap();
    assert_eq!(result.exit.exit_code, CommandExit::TIMED_OUT);
    assert!(result.exit.timed_out);
    assert_eq!(result.exit.signal, Some(9));
    assert_eq!(result.stdout_text(), "before");
}

async fn a_deadline_is_told_to_the_plugin(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let result = run(&sandbox, &["deadline"]).await.unwrap();
    assert_eq!(result.stdout_text(), "None");
    let command = Command::argv(["deadline"]).timeout(Duration::from_secs(600));
    let result = sandbox.run(command, None).await.unwrap();
    let text = result.stdout_text();
    let remaining = text.trim_start_matches("Some(").trim_end_matches(')');
    let remaining: u64 = remaining.parse().unwrap();
    assert!((500_000..=602_000).contains(&remaining), "{remaining}");

    let world = World::with(at, |config| {
        config.timeouts.stop = Duration::from_millis(100);
    })
    .await;
    let sandbox = world.sandbox(json!({ "hang_in": ["stop"] })).await;
    let error = world.host.manager().stop(sandbox.id()).await.unwrap_err();
    assert!(error.to_string().contains("deadline"), "{error}");
    assert_eq!(
        run(&sandbox, &["echo"]).await.unwrap_err().code(),
        ErrorCode::FAILED_PRECONDITION
    );
}
