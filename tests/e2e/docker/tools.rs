//! The host's own tools in containers that lack something: memory, a Python, a place to write in.

use std::{sync::Arc, time::Duration};

use boxyard_host::{Language, Sandbox, ToolResult, ToolStatus};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_that_is_read_only_runs_programs_all_the_same() {
    let Some(mut dock) = Dock::new(PYTHON) else {
        return;
    };
    let executed = Language {
        file: "program".into(),
        compile: Some("chmod +x program".into()),
        run: "./program".into(),
    };
    dock.yard.config.languages = [("executed".to_owned(), executed)].into();
    bounded(async {
        let dock = dock.start().await;
        let read_only = json!({ "image": PYTHON, "read_only": true });
        let sandbox = dock.sandbox(read_only.clone()).await;
        for (tool, params) in python("import os\nn = os.system('echo child')\nprint(1)") {
            let result = call(&sandbox, tool, params).await;
            let (output, error) = (result.output, result.error);
            assert_eq!((output, error), (json!("child\n1\n"), None), "{tool}");
        }
        let program = json!({ "language": "executed", "code": "#!/bin/sh\necho 1" });
        let refused = call(&sandbox, "multi_code_executor", program.clone()).await;
        let error = refused.error.unwrap();
        assert!(error.contains("`tmpfs: {\"/tmp\": \"exec\"}`"), "{error}");
        let mut nowhere = read_only.clone();
        nowhere["user"] = json!("1000");
        // Without a place for others.
        nowhere["tmpfs"] = json!({ "/dev/shm": "mode=700" });
        let nowhere = dock.sandbox(nowhere).await;
        let code = json!({ "code": "print(1)" });
        let refused = call(&nowhere, "python_executor", code.clone()).await;
        let error = refused.error.unwrap();
        assert!(error.contains("`tmpfs: {\"/tmp\": \"\"}`"), "{error}");
        for (options, tool, params) in [
            ("", "python_executor", code),
            ("exec", "multi_code_executor", program),
        ] {
            let mut with_place = read_only.clone();
            with_place["tmpfs"] = json!({ "/tmp": options });
            let sandbox = dock.sandbox(with_place).await;
            let result = call(&sandbox, tool, params).await;
            assert_eq!(
                (result.output, result.error),
                (json!("1\n"), None),
                "{tool}"
            );
        }
        dock.end().await;
    })
    .await;
}
