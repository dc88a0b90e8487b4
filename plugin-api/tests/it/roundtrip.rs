//! The vtables without `dlopen`: what a host asks arrives, and what a plugin answers returns.

mod backend;
mod calls;
mod logs;
mod shutdown;
mod streams;
mod tool;

use std::sync::Arc;

use boxyard_plugin_api::{
    ByteSink, ByteSource, Command, CommandExit, CommandIo, Controls, Error, ErrorCode, Manifest,
    Result, SandboxHandle,
};
use serde_json::{Value, json};

use crate::{
    host::{self, answer, plugin},
    methods, plugin as author,
};

/// Runs one of the model's commands, with nothing to read and nowhere to write.
async fn run(sandbox: &SandboxHandle, argv: &[&str]) -> Result<CommandExit> {
    let exit = sandbox.execute_command(&Command::argv(argv.to_vec()), silent(), host::call());
    methods::bounded(&argv.join(" "), exit).await
}

fn silent() -> CommandIo {
    CommandIo {
        stdin: ByteSource::empty(),
        stdout: ByteSink::null(),
        stderr: ByteSink::null(),
        controls: Controls::none(),
    }
}

#[tokio::test]
async fn every_method_of_a_sandbox_crosses_with_request_and_answer_intact() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "all" })).await;
    let methods = methods::call_all(&sandbox);
    methods::assert_all(methods.iter().map(|method| method.name));
    for method in methods {
        let name = method.name;
        let answered = methods::bounded(name, method.answer).await.unwrap();
        assert_eq!(answered, author::answer(name), "answer of {name}");
        assert_eq!(
            services.event(name).await,
            method.request,
            "request of {name}"
        );
    }
}

#[tokio::test]
async fn what_a_backend_does_not_implement_answers_unimplemented() {
    let (sandbox, _services) = plugin().create("bare", json!({})).await;
    for method in methods::call_all(&sandbox) {
        let answered = methods::bounded(method.name, method.answer).await;
        match method.name {
            "start" | "stop" | "cleanup" | "execution_context" => {
                assert_eq!(answered, Ok(Value::Null), "{}", method.name);
            }
            "info" => assert_eq!(answered, Ok(json!({}))),
            _ => assert_eq!(
                answered.unwrap_err().code(),
                ErrorCode::UNIMPLEMENTED,
                "{}",
                method.name
            ),
        }
    }
}

#[tokio::test]
async fn an_error_crosses_with_code_message_retry_and_details() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    let expected = Error::new(ErrorCode(4711), "not today")
        .retryable()
        .with_details(json!({ "tomorrow": [1, 2] }));
    assert_eq!(run(&sandbox, &["refuse"]).await, Err(expected));
}

#[test]
fn the_loaded_manifest_is_the_embedded_one() {
    let loaded = plugin().module.call_manifest();
    assert_eq!(loaded.as_bytes(), author::embedded_manifest());
    let manifest: Manifest = serde_json::from_str(&loaded).unwrap();
    let types: Vec<&str> = manifest
        .sandbox_types
        .iter()
        .map(|sandbox_type| sandbox_type.name.as_str())
        .collect();
    assert_eq!(types, ["model", "bare", "faulty", "indescribable"]);
    assert_eq!(manifest.tools, ["caller", "faulty", "indescribable"]);
    assert_eq!(manifest.api_version, boxyard_plugin_api::API_VERSION);
    assert!(!manifest.panic_abort);
}

#[test]
fn types_and_tools_are_handed_over_once_and_init_runs_once() {
    let plugin = plugin();
    assert!(plugin.module.call_sandbox_types().is_empty());
    assert!(plugin.module.call_tools().is_empty());
    let log = Arc::new(host::Recorder::new());
    let again = host::call_init(plugin.module, Value::Null, log).unwrap_err();
    assert_eq!(again.code(), ErrorCode::FAILED_PRECONDITION);
}

#[test]
fn configure_ignores_what_it_does_not_know_and_refuses_a_bad_filter() {
    let configure = |changes: &str| answer(plugin().module.call_configure(changes.into()));
    configure(r#"{"later": [1]}"#).unwrap();
    for wrong in [r#"{"log_filter": "a=b=c"}"#, "[", r#"{"log_filter": 7}"#] {
        let error = configure(wrong).unwrap_err();
        assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT, "{wrong}");
    }
}
