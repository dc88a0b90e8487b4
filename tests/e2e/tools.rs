//! A tool calls back into its sandbox, which may be another plugin's.

use std::time::Duration;

use boxyard_host::{Status, ToolError, ToolStatus};
use serde_json::json;

use crate::world::{At, World, at_both, eventually, run, status_is, tool};

at_both! {
    a_tool_streams_through_another_plugins_busy_sandbox,
    a_tool_of_the_sandboxs_own_plugin_calls_back,
    cancelling_a_tool_ends_the_command_that_it_started,
    a_tools_deadline_ends_the_command_that_it_started,
    deleting_a_sandbox_ends_its_tools,
    a_tool_that_is_not_there_is_refused,
}

const MEBIBYTES: usize = 20 * 1024 * 1024;

async fn visited(at: At) -> World {
    let world = World::new(at).await;
    world.invite_visitor().await;
    world
}

async fn a_tool_streams_through_another_plugins_busy_sandbox(at: At) {
    let world = visited(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let other = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { run(&sandbox, &["wait", "go"]).await }
    });
    status_is(&sandbox, Status::Busy).await;
    let params = json!({ "command": ["print", MEBIBYTES.to_string()] });
    let result = sandbox.execute_tool("visitor", params, None).await.unwrap();
    assert_eq!(result.status, ToolStatus::Success, "{result:?}");
    let expected = json!({ "exit_code": 0, "bytes": MEBIBYTES, "wrong": 0, "status": "busy" });
    assert_eq!(result.output, expected);
    world.open_gate("go");
    other.await.unwrap().unwrap();
    status_is(&sandbox, Status::Running).await;
}

async fn a_tool_of_the_sandboxs_own_plugin_calls_back(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let params = json!({ "action": "run", "command": ["echo", "from", "within"] });
    let result = sandbox
        .execute_tool("wild_tool", params, None)
        .await
        .unwrap();
    assert_eq!(result.output["answer"]["stdout"], "from within");
    for action in ["stats", "list", "remove", "get_archive"] {
        assert_eq!(
            tool(&sandbox, action).await.status,
            ToolStatus::Success,
            "{action}"
        );
    }
    let missing = tool(&sandbox, "stat").await;
    assert_eq!(missing.error.as_deref(), Some("/wild"));
    assert_eq!(tool(&sandbox, "nothing").await.status, ToolStatus::Error);
    assert_eq!(sandbox.status(), Status::Running);
}

async fn cancelling_a_tool_ends_the_command_that_it_started(at: At) {
    let world = visited(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let caller = tokio::spawn({
        let sandbox = sandbox.clone();
        let params = json!({ "command": ["hang"] });
        async move { sandbox.execute_tool("visitor", params, None).await }
    });
    world.noted("hang hangs").await;
    caller.abort();
    world.noted("hang wound up").await;
    world.noted("hang dropped").await;
    status_is(&sandbox, Status::Running).await;
    run(&sandbox, &["echo"]).await.unwrap();
}

async fn a_tools_deadline_ends_the_command_that_it_started(at: At) {
    let world = visited(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let params = json!({ "command": ["hang"] });
    let timeout = Some(Duration::from_millis(300));
    let result = sandbox
        .execute_tool("visitor", params, timeout)
        .await
        .unwrap();
    assert_eq!(result.status, ToolStatus::Timeout, "{result:?}");
    world.noted("hang wound up").await;
    eventually("the sandbox is idle", || {
        sandbox.status() == Status::Running
    })
    .await;
}

async fn deleting_a_sandbox_ends_its_tools(at: At) {
    let world = visited(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let caller = tokio::spawn({
        let sandbox = sandbox.clone();
        let params = json!({ "command": ["hang"] });
        async move { sandbox.execute_tool("visitor", params, None).await }
    });
    world.noted("hang hangs").await;
    world.host.manager().delete(sandbox.id()).await.unwrap();
    let result = caller.await.unwrap().unwrap();
    assert_eq!(result.status, ToolStatus::Cancelled, "{result:?}");
    let journal = world.journal();
    let place = |line: &str| journal.iter().position(|noted| noted == line).unwrap();
    assert!(place("hang dropped") < place("cleanup"), "{journal:?}");
}

async fn a_tool_that_is_not_there_is_refused(at: At) {
    let world = World::new(at).await;
    let sandbox = world.sandbox(json!({})).await;
    let error = sandbox
        .execute_tool("wild_tol", json!({}), None)
        .await
        .unwrap_err();
    assert!(matches!(&error, ToolError::Unknown { near: Some(near), .. } if near == "wild_tool"));
    let error = sandbox
        .execute_tool("wild_tool", json!({}), None)
        .await
        .unwrap_err();
    assert!(matches!(error, ToolError::Params(_)), "{error}");
    assert_eq!(sandbox.status(), Status::Running);
}
