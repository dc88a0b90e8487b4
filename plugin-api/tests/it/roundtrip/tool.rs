//! A tool that calls back into the sandbox that it runs against.

use boxyard_plugin_api::{
    CallController, ErrorCode, SandboxHandle, ToolDescriptor, abi::SandboxObject,
};
use serde_json::json;

use crate::{
    host::{self, plugin},
    methods::bounded,
    plugin as author,
};

#[test]
fn a_tool_describes_itself() {
    let ToolDescriptor {
        name,
        description,
        sandbox_types,
        parameters,
        ..
    } = plugin().tool("caller").describe().unwrap();
    assert_eq!(
        (name.as_str(), description.as_str()),
        ("caller", "calls back")
    );
    assert_eq!(sandbox_types, ["model", "local-process"]);
    assert_eq!(parameters["required"], json!(["command"]));
}

#[tokio::test]
async fn a_tool_runs_a_command_and_reads_and_writes_files_in_its_sandbox() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    let params = json!({ "command": ["cat"], "stdin": "through and through" });
    let tool = plugin().tool("caller");
    let output = tool.execute(&params, sandbox.into(), host::call());
    let output = bounded("caller", output).await.unwrap();
    assert_eq!(output["exit"]["exit_code"], json!(0));
    assert_eq!(output["stdout"], json!("through and through"));
    assert_eq!(output["read"], author::answer("read_file"));
    assert_eq!(output["info"], author::answer("info"));
    assert_eq!(output["stats"], author::answer("stats"));
    let written = services.event("write_file").await;
    assert_eq!(written["content"], json!("from the tool"));
}

#[tokio::test]
async fn an_error_of_the_sandbox_reaches_the_tools_caller() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    // The streams break off first, which says nothing.
    let params = json!({ "command": ["refuse"] });
    let output = plugin()
        .tool("caller")
        .execute(&params, sandbox.into(), host::call());
    let error = bounded("caller", output).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode(4711));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_tool_that_is_flooded_gives_up_instead_of_waiting_for_the_end() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    let params = json!({ "command": ["yes"] });
    let output = plugin()
        .tool("caller")
        .execute(&params, sandbox.into(), host::call());
    let error = bounded("caller", output).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RESOURCE_EXHAUSTED);
}

#[tokio::test]
async fn wrong_parameters_are_refused_with_the_name_of_the_field() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    let params = json!({ "command": ["a", 7] });
    let output = plugin()
        .tool("caller")
        .execute(&params, sandbox.into(), host::call());
    let error = bounded("caller", output).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT);
    assert!(error.message().contains("`caller`: command[1]"), "{error}");
}

#[tokio::test]
async fn cancelling_a_tool_cancels_what_it_runs_in_its_sandbox() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    let controller = CallController::new(0);
    let params = json!({ "command": ["wait-for-cancel"] });
    let tool = plugin().tool("caller");
    let output = tool.execute(&params, sandbox.into(), controller.call());
    let cancel = async {
        services.event("waiting").await;
        controller.cancel();
    };
    let (output, ()) = bounded("caller", async { tokio::join!(output, cancel) }).await;
    assert_eq!(output.unwrap_err().code(), ErrorCode::CANCELLED);
    services.event("cleaned-up").await;
}

#[tokio::test]
async fn dropping_a_tools_answer_ends_what_it_runs_in_its_sandbox() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    let params = json!({ "command": ["hang"] });
    let tool = plugin().tool("caller");
    let output = host::going(tool.execute(&params, sandbox.into(), host::call()));
    services.event("hanging").await;
    output.abort();
    services.event("future-dropped").await;
}

#[tokio::test]
async fn a_tool_takes_a_sandbox_that_the_host_implements() {
    let (inner, services) = plugin().create("model", json!({ "label": "" })).await;
    let proxy = SandboxObject::from_sandbox(Proxy(inner));
    let params = json!({ "command": ["cat"], "stdin": "twice across" });
    let output = plugin()
        .tool("caller")
        .execute(&params, proxy, host::call());
    let output = bounded("caller", output).await.unwrap();
    assert_eq!(output["stdout"], json!("twice across"));
    assert_eq!(output["info"], json!({ "proxied": true }));
    services.event("stats").await;
}

/// A host's sandbox: it passes on what it is asked.
struct Proxy(SandboxHandle);

mod proxy {
    use boxyard_plugin_api::{
        ByteSink, ByteSource, Call, Command, CommandExit, CommandIo, ReadFile, Result, Sandbox,
        Stats, WriteFile,
    };
    use serde_json::{Map, Value};

    use super::Proxy;

    impl Sandbox for Proxy {
        async fn start(&self, call: &Call) -> Result<()> {
            self.0.start(call.child().call()).await
        }

        async fn stop(&self, call: &Call) -> Result<()> {
            self.0.stop(call.child().call()).await
        }

        async fn cleanup(&self, call: &Call) -> Result<()> {
            self.0.cleanup(call.child().call()).await
        }

        async fn execute_command(
            &self,
            command: Command,
            io: CommandIo,
            call: &Call,
        ) -> Result<CommandExit> {
            let call = call.child().call();
            self.0.execute_command(&command, io, call).await
        }

        async fn info(&self, _call: &Call) -> Result<Map<String, Value>> {
            Ok(Map::from_iter([("proxied".into(), Value::Bool(true))]))
        }

        async fn stats(&self, call: &Call) -> Result<Stats> {
            self.0.stats(call.child().call()).await
        }

        async fn read_file(&self, request: ReadFile, to: ByteSink, call: &Call) -> Result<()> {
            self.0.read_file(&request, to, call.child().call()).await
        }

        async fn write_file(
            &self,
            request: WriteFile,
            from: ByteSource,
            call: &Call,
        ) -> Result<()> {
            self.0.write_file(&request, from, call.child().call()).await
        }
    }
}
