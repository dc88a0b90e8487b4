//! The host's own tools in containers that lack something: memory, a Python, a place to write in.

use std::{sync::Arc, time::Duration};

use boxyard_host::{Sandbox, ToolResult, ToolStatus};
use serde_json::{Value, json};

use super::{Dock, IMAGE, PYTHON};
use crate::world::bounded;

async fn call(sandbox: &Arc<Sandbox>, tool: &str, params: Value) -> ToolResult {
    let limit = Some(Duration::from_secs(60));
    sandbox.execute_tool(tool, params, limit).await.unwrap()
}

/// Parameters that run Python, for each tool that does.
fn python(code: &str) -> [(&'static str, Value); 3] {
    let params = json!({ "code": code });
    [
        ("python_executor", params.clone()),
        ("notebook_executor", params),
        (
            "multi_code_executor",
            json!({ "language": "python", "code": code }),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_runs_out_of_memory_is_told_so() {
    let Some(dock) = Dock::new(PYTHON) else {
        return;
    };
    bounded(async {
        let dock = dock.start().await;
        let little = json!({ "image": PYTHON, "memory_limit": "48m" });
        let sandbox = dock.sandbox(little).await;
        let hog = "x = bytearray(300 << 20)";
        let line = json!({ "command": format!("exec python3 -c '{hog}'") });
        for (tool, params) in python(hog).into_iter().chain([("shell_executor", line)]) {
            let result = call(&sandbox, tool, params).await;
            assert_eq!(result.status, ToolStatus::Error, "{tool}");
            let error = result.error.unwrap();
            assert!(
                error.contains("Command failed with exit code 137")
                    && error.contains("ran out of memory"),
                "{tool}: {error}"
            );
        }
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_python_that_is_the_error() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({})).await;
        for (tool, params) in python("print(1)").into_iter().take(2) {
            let result = call(&sandbox, tool, params).await;
            assert_eq!(result.status, ToolStatus::Error, "{tool}");
            let error = result.error.unwrap();
            let expected =
                "there is no Python in this sandbox: neither python3 nor python is on its PATH";
            assert_eq!(error.trim_end(), expected, "{tool}");
        }
        dock.end().await;
    })
    .await;
}
