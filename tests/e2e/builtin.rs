//! The host's own tools in a real sandbox: what they answer, word for word where clients read it.

use std::{fs, sync::Arc, time::Duration};

use anyhow::Result;
use boxyard_conformance::{Library, Yard};
use boxyard_host::{CreateRequest, Event, Host, Language, Sandbox, ToolResult, ToolStatus};
use serde_json::{Map, Value, json};

const LIMIT: Duration = Duration::from_secs(60);

async fn host(yard: &Yard) -> Result<Host> {
    let library = Library::package("boxyard-plugin-local-process")?;
    yard.put("local_process.so", &library)?;
    yard.host().await
}

async fn sandbox(host: &Host) -> Result<Arc<Sandbox>> {
    let request = CreateRequest::new("local-process");
    Ok(host.manager().create(request).await?)
}

async fn call(sandbox: &Arc<Sandbox>, tool: &str, params: Value) -> ToolResult {
    let result = sandbox.execute_tool(tool, params, Some(LIMIT)).await;
    result.unwrap()
}

/// Runs a tool with each parameters and compares status, output and error.
async fn check(tool: &str, rows: &[(Value, ToolStatus, &str, Option<&str>)]) -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let sandbox = sandbox(&host).await?;
    for (params, status, output, error) in rows {
        let result = call(&sandbox, tool, params.clone()).await;
        let found = (result.status, &result.output, result.error.as_deref());
        assert_eq!(found, (*status, &json!(output), *error), "{params}");
    }
    host.shutdown().await;
    Ok(())
}

use ToolStatus::{Cancelled, Error, Success, Timeout};

#[tokio::test(flavor = "multi_thread")]
async fn shell_executor_answers_as_clients_expect() -> Result<()> {
    let rows = [
        (
            json!({ "command": "echo a | cat; exit 3" }),
            Error,
            "a\n",
            Some("Command failed with exit code 3"),
        ),
        (
            json!({ "command": "echo a | cat", "timeout": null }),
            Success,
            "a\n",
            None,
        ),
        (
            json!({ "command": ["echo", "a b", "|", "cat"] }),
            Success,
            "a b | cat\n",
            None,
        ),
        (
            json!({ "command": "kill -9 $$" }),
            Error,
            "",
            Some("Command failed with exit code 137"),
        ),
        (
            json!({ "command": "echo x; sleep 60", "timeout": 0.5 }),
            Timeout,
            "x\n",
            Some("Command timed out after 0.5 seconds"),
        ),
        (
            json!({ "command": "echo out; echo err >&2" }),
            Success,
            "out\n",
            Some("err\n"),
        ),
        (
            json!({ "command": " " }),
            Error,
            "",
            Some("No command provided"),
        ),
        (
            json!({ "command": [] }),
            Error,
            "",
            Some("No command provided"),
        ),
        (
            json!({ "command": "exit 124" }),
            Error,
            "",
            Some("Command failed with exit code 124"),
        ),
    ];
    check("shell_executor", &rows).await
}

#[tokio::test(flavor = "multi_thread")]
async fn file_operation_takes_any_name_and_says_what_it_did() -> Result<()> {
    let odd = "-n \"a\" $b.txt";
    let rows = [
        (
            json!({ "operation": "write", "file_path": odd, "content": "é" }),
            Success,
            "File written successfully: -n \"a\" $b.txt",
            None,
        ),
        (
            json!({ "operation": "read", "file_path": odd }),
            Success,
            "é",
            None,
        ),
        (
            json!({ "operation": "exists", "file_path": odd }),
            Success,
            "exists",
            None,
        ),
        (
            json!({ "operation": "delete", "file_path": odd }),
            Success,
            "Successfully deleted: -n \"a\" $b.txt",
            None,
        ),
        (
            json!({ "operation": "exists", "file_path": odd }),
            Success,
            "does not exist",
            None,
        ),
        (
            json!({ "operation": "delete", "file_path": "nope" }),
            Success,
            "Successfully deleted: nope",
            None,
        ),
        (
            json!({ "operation": "create", "file_path": "d/e" }),
            Success,
            "File written successfully: d/e",
            None,
        ),
        (
            json!({ "operation": "read", "file_path": "d/e" }),
            Success,
            "",
            None,
        ),
        (
            json!({ "operation": "write", "file_path": "x" }),
            Error,
            "",
            Some("Content is required for write operation"),
        ),
        (
            json!({ "operation": "zap", "file_path": "x" }),
            Error,
            "",
            Some("Unknown operation: zap"),
        ),
        (
            json!({ "operation": "read", "file_path": " " }),
            Error,
            "",
            Some("No file path provided"),
        ),
        (
            json!({ "operation": "write", "file_path": "l", "content": "é", "encoding": "latin-1" }),
            Success,
            "File written successfully: l",
            None,
        ),
        (
            json!({ "operation": "read", "file_path": "l", "encoding": "latin-1" }),
            Success,
            "é",
            None,
        ),
        (
            json!({ "operation": "read", "file_path": "l" }),
            Success,
            "\u{fffd}",
            None,
        ),
        (
            json!({ "operation": "write", "file_path": "w", "content": "é", "encoding": "utf-16" }),
            Success,
            "File written successfully: w",
            None,
        ),
        (
            json!({ "operation": "read", "file_path": "w", "encoding": "utf-16" }),
            Success,
            "é",
            None,
        ),
        (
            json!({ "operation": "read", "file_path": "w", "encoding": "latin-1" }),
            Success,
            "ÿþé\0",
            None,
        ),
        (
            json!({ "operation": "write", "file_path": "x", "content": "é", "encoding": "ascii" }),
            Error,
            "",
            Some("the content has characters that ascii has not"),
        ),
        (
            json!({ "operation": "exists", "file_path": "l/a/b" }),
            Success,
            "does not exist",
            None,
        ),
        (
            json!({ "operation": "delete", "file_path": "l/a" }),
            Success,
            "Successfully deleted: l/a",
            None,
        ),
        (
            json!({ "operation": "exists", "file_path": "l" }),
            Success,
            "exists",
            None,
        ),
    ];
    check("file_operation", &rows).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_there_where_what_it_leads_to_is() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let sandbox = sandbox(&host).await?;
    let links = "mkdir -p d/e; echo > d/file; ln -s file d/link; ln -s d/link chain; ln -s nothing dangling; \
                 ln -s dangling to-dangling; ln -s loop loop; ln -s ../file d/e/up; ln -s d/e dir; \
                 ln -s d/file/below below; ln -s /d/file absolute";
    call(&sandbox, "shell_executor", json!({ "command": links })).await;
    for (path, expected) in [
        ("d/link", "exists"),
        ("chain", "exists"),
        ("d/e/up", "exists"),
        ("dir", "exists"),
        ("dir/up", "exists"),
        ("absolute", "exists"),
        ("dangling", "does not exist"),
        ("to-dangling", "does not exist"),
        ("loop", "does not exist"),
        ("below", "does not exist"),
    ] {
        let params = json!({ "operation": "exists", "file_path": path });
        let result = call(&sandbox, "file_operation", params).await;
        assert_eq!(result.output, expected, "{path}: {:?}", result.error);
    }
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_says_which_file_it_is() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let sandbox = sandbox(&host).await?;
    let params = json!({ "operation": "read", "file_path": "/nope" });
    let error = call(&sandbox, "file_operation", params)
        .await
        .error
        .unwrap();
    assert!(error.contains("/nope"), "{error}");
    let long = "head -c 17000000 /dev/zero > long";
    call(&sandbox, "shell_executor", json!({ "command": long })).await;
    let params = json!({ "operation": "read", "file_path": "long" });
    let error = call(&sandbox, "file_operation", params)
        .await
        .error
        .unwrap();
    assert!(error.contains("as an archive"), "{error}");
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn python_executor_leaves_nothing_behind() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let sandbox = sandbox(&host).await?;
    let run = async |code: &str| {
        call(
            &sandbox,
            "python_executor",
            json!({ "code": code, "timeout": 20 }),
        )
        .await
    };
    let printed = run("print(1)").await;
    assert_eq!(
        (printed.status, &printed.output, &printed.error),
        (Success, &json!("1\n"), &None)
    );
    let left = run("import sys; sys.exit(7)").await;
    assert_eq!((left.status, &left.error), (Error, &None));
    let params =
        json!({ "code": "import time\nprint(1, flush=True)\ntime.sleep(60)", "timeout": 1 });
    let late = call(&sandbox, "python_executor", params).await;
    assert_eq!((late.status, &late.output), (Timeout, &json!("1\n")));
    assert_eq!(late.error.unwrap(), "Command timed out after 1 seconds");
    let raised = run("raise ValueError(1)").await.error.unwrap();
    assert!(raised.ends_with("ValueError: 1\n"), "{raised}");
    assert_eq!(run(" ").await.error.unwrap(), "No code provided");
    let path = run("import os; print(os.path.abspath(__file__))")
        .await
        .output;
    let path = path.as_str().unwrap().trim().to_owned();
    crate::world::eventually("the script is removed", || fs::metadata(&path).is_err()).await;
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn languages_are_data_that_the_configuration_adds_to() -> Result<()> {
    let mut yard = Yard::new()?;
    let language = |file: &str, compile: Option<&str>, run: &str| Language {
        file: file.into(),
        compile: compile.map(Into::into),
        run: run.into(),
    };
    let added = [
        (
            "upper",
            language("text", Some("echo compiled"), "tr a-z A-Z < text"),
        ),
        (
            "broken",
            language("text", Some("echo why >&2; exit 1"), "true"),
        ),
        ("slow", language("text", Some("sleep 60"), "true")),
    ];
    yard.config.languages = added.map(|(name, language)| (name.into(), language)).into();
    let host = host(&yard).await?;
    let sandbox = sandbox(&host).await?;
    let run = async |params: Value| call(&sandbox, "multi_code_executor", params).await;
    let bash = json!({ "language": "Bash", "code": "cat a/b", "files": { "a/b": "beside" } });
    assert_eq!(run(bash).await.output, "beside");
    let python = json!({ "language": "python", "code": "import other; print(other.x)", "files": { "other.py": "x = 5", "./main.py": "" } });
    assert_eq!(run(python).await.output, "5\n");
    let upper = run(json!({ "language": "upper", "code": "abc" })).await;
    assert_eq!(upper.output, "compiled\n\nABC");
    let broken = run(json!({ "language": "broken", "code": "abc" })).await;
    assert_eq!(
        (broken.status, broken.error.as_deref()),
        (Error, Some("why\n"))
    );
    let unknown = run(json!({ "language": "klingon", "code": "abc" })).await;
    assert_eq!(unknown.error.unwrap(), "Unsupported language: klingon");
    let outside = json!({ "language": "bash", "code": ":", "files": { "../x": "" } });
    assert!(run(outside).await.error.unwrap().contains("leads out"));
    let slow = run(json!({ "language": "bash", "code": "sleep 60", "run_timeout": 0.5 })).await;
    assert_eq!(slow.status, Timeout);
    assert_eq!(slow.error.unwrap(), "Command timed out after 0.5 seconds");
    let slow = json!({ "language": "slow", "code": "abc", "compile_timeout": 0.5 });
    let slow = run(slow).await;
    assert_eq!(slow.status, Error);
    assert_eq!(slow.error.unwrap(), "Command timed out after 0.5 seconds");
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notebook_keeps_its_state_until_its_python_ends() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let sandbox = sandbox(&host).await?;
    let run = async |code: &str, timeout: f64| {
        call(
            &sandbox,
            "notebook_executor",
            json!({ "code": code, "timeout": timeout }),
        )
        .await
    };
    assert_eq!(run("x = 20", 20.0).await.output, "");
    assert_eq!(
        run("print('hi')\nx + 1", 20.0).await.output,
        "hi\n\nResult: 21"
    );
    assert_eq!(
        run("import os; n = os.system('echo child')", 20.0)
            .await
            .output,
        "child\n"
    );
    let raised = run("def f():\n    return 1 / 0\nf()", 20.0).await;
    let error = raised.error.unwrap();
    assert_eq!((raised.status, raised.output), (Error, json!("")));
    assert!(
        error.contains("return 1 / 0") && error.ends_with("division by zero\n"),
        "{error}"
    );
    let odd = run("while x:\n    pass", 0.5).await;
    assert_eq!(odd.status, Timeout);
    let error = odd.error.unwrap();
    assert!(
        error.contains("KeyboardInterrupt") && error.contains("timed out after 0.5 seconds"),
        "{error}"
    );
    assert_eq!(
        run("x", 20.0).await.output,
        "\nResult: 20",
        "the state outlives an interruption"
    );
    let deaf = "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [2])\ntime.sleep(60)";
    let lost = run(deaf, 0.5).await.error.unwrap();
    assert!(lost.contains("state is lost"), "{lost}");
    assert!(run("x", 20.0).await.error.unwrap().contains("NameError"));
    let ended = run("import os; os._exit(3)", 20.0).await;
    assert!(ended.error.unwrap().contains("state is lost"));
    assert_eq!(run("1", 20.0).await.output, "\nResult: 1");
    let long = run("print('x' * (4 << 20))", 20.0).await.output;
    let long = long.as_str().unwrap();
    assert!(
        long.len() < 1_200_000 && long.contains("bytes cut]"),
        "{}",
        long.len()
    );
    assert_eq!(
        sandbox.status(),
        boxyard_host::Status::Running,
        "an idle notebook is idle"
    );
    host.manager().delete(sandbox.id()).await?;
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notebook_that_answers_nonsense_is_lost_and_the_next_one_works() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let sandbox = sandbox(&host).await?;
    let run = async |code: &str| {
        let params = json!({ "code": code, "timeout": null });
        call(&sandbox, "notebook_executor", params).await
    };
    for nonsense in [
        "import os\nwhile True: os.write(4, b'x' * 65536)",
        "import os\nwhile True: os.write(4, b'nonsense\\n')",
    ] {
        assert_eq!(run("x = 1").await.status, Success);
        let lost = run(nonsense).await;
        assert_eq!(lost.status, Error, "{nonsense}");
        let error = lost.error.unwrap();
        assert!(
            error.contains("is no answer") && error.contains("lost"),
            "{error}"
        );
        assert!(run("x").await.error.unwrap().contains("NameError"));
        assert_eq!(run("1").await.output, "\nResult: 1");
    }
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandboxs_own_timeout_ends_no_tool_that_has_none() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let config = Map::from_iter([("timeout".to_owned(), json!(1.5))]);
    let request = CreateRequest::new("local-process").config(config);
    let sandbox = host.manager().create(request).await?;
    let code = json!({ "code": "x = 1" });
    assert_eq!(
        call(&sandbox, "notebook_executor", code).await.status,
        Success
    );
    for timeout in [json!(null), json!(0), json!(-1)] {
        let params = json!({ "command": "sleep 2", "timeout": timeout });
        let slept = call(&sandbox, "shell_executor", params).await;
        assert_eq!(slept.status, Success, "{timeout}: {slept:?}");
    }
    let kept = call(&sandbox, "notebook_executor", json!({ "code": "x" })).await;
    assert_eq!(kept.output, "\nResult: 1");
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_whose_sandbox_ends_is_cancelled_and_says_so() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let line = "echo so far; touch began; sleep 60";
    let python = "print('so far', flush=True); open('began', 'w'); import time; time.sleep(60)";
    // In a directory of its own that is gone after.
    let below = "echo so far; touch ../began; sleep 60";
    for (tool, params, output) in [
        ("shell_executor", json!({ "command": line }), "so far\n"),
        ("python_executor", json!({ "code": python }), "so far\n"),
        (
            "multi_code_executor",
            json!({ "language": "sh", "code": below }),
            "so far\n",
        ),
        ("notebook_executor", json!({ "code": python }), ""),
    ] {
        let sandbox = sandbox(&host).await?;
        let ending = async {
            while sandbox.stat("began").await.is_err() {
                tokio::task::yield_now().await;
            }
            host.manager().delete(sandbox.id()).await
        };
        let (result, deleted) = tokio::join!(call(&sandbox, tool, params), ending);
        deleted?;
        let why = "the sandbox was stopped or deleted while the tool ran";
        assert_eq!(
            (result.status, &result.output, result.error.as_deref()),
            (Cancelled, &json!(output), Some(why)),
            "{tool}"
        );
    }
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_whose_sandboxs_time_is_over_says_that() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let request = CreateRequest::new("local-process").ttl(Duration::from_secs(1));
    let sandbox = host.manager().create(request).await?;
    let result = call(&sandbox, "shell_executor", json!({ "command": "sleep 60" })).await;
    assert_eq!(result.status, Cancelled);
    let why = "the sandbox was deleted while the tool ran: it lived for 1s";
    assert_eq!(result.error.as_deref(), Some(why));
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_was_killed_says_so() -> Result<()> {
    let rows = [
        (
            json!({ "code": "import os; os.kill(os.getpid(), 9)" }),
            Error,
            "",
            Some("Command failed with exit code 137: it was killed by signal 9"),
        ),
        (
            json!({ "code": "import os; os.write(2, b'last words\\n'); os.kill(os.getpid(), 9)" }),
            Error,
            "",
            Some("last words\n"),
        ),
    ];
    check("python_executor", &rows).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_has_the_tools_that_its_configuration_names() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let named = |tools: Value| {
        let config = Map::from_iter([("tools_config".to_owned(), tools)]);
        host.manager()
            .create(CreateRequest::new("local-process").config(config))
    };
    for tools in [
        json!(["shell_executor", "nosuch"]),
        json!({ "shell_executor": {}, "nosuch": {} }),
    ] {
        let sandbox = named(tools).await?;
        let info = sandbox.info().await;
        assert_eq!(info.available_tools, ["shell_executor"]);
        assert_eq!(
            info.config["tools_config"],
            json!({ "shell_executor": {}, "nosuch": {} })
        );
        let left_out = |event: &Event| event.kind == "tools-left-out";
        assert!(sandbox.events().iter().any(left_out));
        let refused = sandbox
            .execute_tool("python_executor", json!({ "code": "1" }), None)
            .await;
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("there is no tool `python_executor`")
        );
    }
    let error = named(json!(7)).await.unwrap_err().to_string();
    assert!(error.contains("`tools_config`: 7 is no list"), "{error}");
    host.shutdown().await;
    Ok(())
}
