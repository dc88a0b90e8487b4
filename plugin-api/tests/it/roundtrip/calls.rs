//! The context of a call: who, until when, and whether it is still wanted.

use std::time::{Duration, Instant};

use boxyard_plugin_api::{CallController, Command, CommandExit, ErrorCode};
use serde_json::json;

use super::{run, silent};
use crate::{
    host::{self, Notice, plugin},
    methods::bounded,
};

#[tokio::test]
async fn number_span_and_deadline_reach_the_plugin() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    let controller = CallController::new(77).deadline(Instant::now() + Duration::from_secs(3600));
    let context = Command::argv(["context"]);
    let exit = sandbox.execute_command(&context, silent(), controller.call());
    bounded("context", exit).await.unwrap();
    let seen = services.event("context").await;
    assert_eq!(
        (&seen["id"], &seen["span"]),
        (&json!(controller.id()), &json!(77))
    );
    let seconds = seen["seconds"].as_u64().unwrap();
    assert!((3000..3600).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_call_without_deadline_has_none_in_the_plugin() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    run(&sandbox, &["context"]).await.unwrap();
    assert_eq!(services.event("context").await["seconds"], json!(null));
}

#[tokio::test]
async fn a_cancelled_call_lets_its_author_clean_up_and_answer() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    let controller = CallController::new(0);
    let command = Command::argv(["wait-for-cancel"]);
    let exit = sandbox.execute_command(&command, silent(), controller.call());
    let cancel = async {
        services.event("waiting").await;
        controller.cancel();
    };
    let (exit, ()) = bounded("cancel", async { tokio::join!(exit, cancel) }).await;
    assert_eq!(exit.unwrap_err().code(), ErrorCode::CANCELLED);
    assert_eq!(services.event("cleaned-up").await, json!(true));
}

#[tokio::test]
async fn a_dropped_call_aborts_its_task() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    let hang = Command::argv(["hang"]);
    let exit = host::going(sandbox.execute_command(&hang, silent(), host::call()));
    services.event("hanging").await;
    let dropped =
        |notice: &Notice| matches!(notice, Notice::Event(kind, _) if kind == "future-dropped");
    assert!(!services.notices.all().iter().any(dropped));
    exit.abort();
    services.event("future-dropped").await;
}

#[tokio::test]
async fn calls_on_one_sandbox_run_at_the_same_time() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    // Each waits inside the plugin until the other is there too.
    let both = async { tokio::join!(run(&sandbox, &["meet"]), run(&sandbox, &["meet"])) };
    let (one, other) = bounded("meet", both).await;
    assert_eq!(
        (one, other),
        (Ok(CommandExit::exited(0)), Ok(CommandExit::exited(0)))
    );
}

#[tokio::test]
async fn a_sandbox_released_during_a_call_lives_until_the_call_ends() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    let controller = CallController::new(0);
    let command = Command::argv(["wait-for-cancel"]);
    let exit = host::going(sandbox.execute_command(&command, silent(), controller.call()));
    services.event("waiting").await;
    drop(sandbox);
    controller.cancel();
    let error = bounded("wait-for-cancel", exit).await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::CANCELLED);
    services.event("dropped-inside-a-runtime").await;
    let kinds: Vec<String> = services
        .notices
        .all()
        .into_iter()
        .filter_map(kind)
        .collect();
    let at = |kind: &str| kinds.iter().position(|found| found == kind).unwrap();
    assert!(
        at("cleaned-up") < at("dropped-inside-a-runtime"),
        "{kinds:?}"
    );
}

fn kind(notice: Notice) -> Option<String> {
    match notice {
        Notice::Event(kind, _) => Some(kind),
        _ => None,
    }
}
