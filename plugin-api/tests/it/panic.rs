//! No panic of an author's leaves the plugin: every method, every drop, every payload.

use std::{
    future::{Future, pending},
    pin::pin,
    task::{Context, Poll, Waker},
};

use boxyard_plugin_api::{
    ByteSink, ByteSource, Chunk, Command, CommandIo, Controls, ErrorCode, Result, SandboxHandle,
    Sink, Source, State, SweepRequest,
    abi::{SandboxTypeVTableRef, ToolVTableRef},
    pipe,
    register::CallFuture,
};
use serde_json::{Value, json};

use crate::{
    host::{self, Services, alone, plugin},
    layout,
    methods::{self, bounded},
    plugin::{FAULTS_OF_CREATE, bomb},
};

/// Checks that an answer is a panic that says `text`.
#[track_caller]
fn assert_panicked<T>(name: &str, answered: Result<T>, text: &str) {
    let Err(error) = answered else {
        panic!("{name} answered");
    };
    assert_eq!(error.code(), ErrorCode::PANICKED, "{name}: {error}");
    assert!(error.message().contains(text), "{name}: {error}");
    // Where it was helps more than that it was.
    assert!(error.message().contains(".rs:"), "{name}: {error}");
}

fn faulty(fault: &str, text: &str) -> Value {
    json!({ "fault": fault, "text": text })
}

fn create(fault: &str) -> CallFuture<SandboxHandle> {
    plugin().sandbox_type("faulty").create(
        &faulty(fault, ""),
        Services::new().object(),
        host::call(),
    )
}

#[tokio::test]
async fn a_panic_in_any_method_of_a_sandbox_is_an_error() {
    let (sandbox, _services) = plugin().create("faulty", faulty("none", "")).await;
    let methods = methods::call_all(&sandbox);
    methods::assert_all(methods.iter().map(|method| method.name));
    for method in methods {
        let answered = bounded(method.name, method.answer).await;
        let text = format!("{} went wrong", method.name);
        assert_panicked(method.name, answered, &text);
        plugin().logged(&text).await;
    }
}

#[tokio::test]
async fn a_panic_in_any_method_of_a_backend_is_an_error() {
    let backend = plugin().sandbox_type("faulty");
    let state = State::new(1, &Value::Null).unwrap();
    let request = SweepRequest::new("", ["dead"]);
    let services = Services::new();
    let described = plugin().sandbox_type("indescribable").describe();
    let probed = bounded("probe", backend.probe(host::call())).await;
    let created = bounded("create", create("create")).await;
    let recovered = backend.recover(&state, services.object(), host::call());
    let recovered = bounded("recover", recovered).await;
    let swept = bounded("sweep", backend.sweep(&request, host::call())).await;
    let table = [
        ("describe", described.err(), "describing went wrong"),
        ("probe", probed.err(), "probe went wrong"),
        ("create", created.err(), "creating went wrong"),
        ("recover", recovered.err(), "recover went wrong"),
        ("sweep", swept.err(), "sweep went wrong"),
    ];
    let names: Vec<&str> = table.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, layout::entries_of::<SandboxTypeVTableRef>()[1..]);
    for (name, error, text) in table {
        assert_panicked(name, error.map_or(Ok(()), Err), text);
    }
}

#[tokio::test]
async fn a_panic_in_any_method_of_a_tool_is_an_error() {
    let described = plugin().tool("indescribable").describe();
    assert_panicked("describe", described, "describing went wrong");
    for (fault, text) in [
        ("execute", "executing went wrong"),
        ("serialize", "serializing the output went wrong"),
        ("output", "dropping the output went wrong"),
        ("params", "dropping the params went wrong"),
    ] {
        let (sandbox, _services) = plugin().create("bare", json!({})).await;
        let params = json!({ "fault": fault });
        let output = plugin()
            .tool("faulty")
            .execute(&params, sandbox.into(), host::call());
        assert_panicked(fault, bounded(fault, output).await, text);
    }
    assert_eq!(
        layout::entries_of::<ToolVTableRef>(),
        ["release", "describe", "execute"]
    );
}

#[tokio::test]
async fn a_creation_survives_any_payload_and_a_drop_of_its_config() {
    for (fault, text) in FAULTS_OF_CREATE {
        assert_panicked(fault, bounded(fault, create(fault)).await, text);
    }
}

#[test]
fn a_panic_while_a_backend_is_opened_refuses_the_plugin() {
    if alone("panic::a_panic_while_a_backend_is_opened_refuses_the_plugin") {
        refuses_to_open("Faulty");
    }
}

#[test]
fn a_panic_while_a_tool_is_opened_refuses_the_plugin() {
    if alone("panic::a_panic_while_a_tool_is_opened_refuses_the_plugin") {
        refuses_to_open("FaultyTool");
    }
}

fn refuses_to_open(name: &str) {
    let opened = host::open(json!({ "panic_in_open_of": name }));
    assert_panicked(name, opened, &format!("opening {name} went wrong"));
}

#[test]
fn wrong_settings_refuse_the_plugin_with_the_name_of_the_key() {
    if !alone("panic::wrong_settings_refuse_the_plugin_with_the_name_of_the_key") {
        return;
    }
    let error = host::open(json!({ "panic_in_open_of": 7 })).err().unwrap();
    assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT);
    assert!(error.message().contains("panic_in_open_of"), "{error}");
}

#[tokio::test]
async fn a_panic_in_a_task_is_logged_with_its_sandbox() {
    for fault in ["task", "task-local"] {
        let text = format!("panicking {fault}");
        let (_sandbox, services) = plugin().create("faulty", faulty(fault, &text)).await;
        let event = plugin().logged(&text).await;
        assert_eq!(
            (event.level.as_str(), event.target.as_str()),
            ("ERROR", "panic")
        );
        assert_eq!(event.labels.sandbox, services.id(), "{fault}");
        assert_eq!(event.labels.sandbox_type, "faulty", "{fault}");
        let place = event.fields["place"].as_str().unwrap();
        assert!(place.contains("faulty.rs:"), "{place}");
    }
    // A payload that must not be dropped is logged by its place alone.
    let (_sandbox, services) = plugin()
        .create("faulty", faulty("task-payload", "boom"))
        .await;
    let is_it = |record: &_| match host::LoggedEvent::try_from(Clone::clone(record)) {
        Ok(event) => event.labels.sandbox == services.id() && event.message.contains("no text"),
        Err(_) => false,
    };
    plugin()
        .log
        .wait_for("a payload that is no text", is_it)
        .await;
}

#[tokio::test]
async fn a_panic_while_a_sandbox_is_dropped_is_logged() {
    let text = "the sandbox's last words";
    let (sandbox, services) = plugin().create("faulty", faulty("sandbox", text)).await;
    drop(sandbox);
    let event = plugin().logged(text).await;
    assert_eq!(
        (event.level.as_str(), event.target.as_str()),
        ("ERROR", "panic")
    );
    assert_eq!(event.labels.sandbox, services.id());
}

#[tokio::test]
async fn a_panic_in_a_local_of_a_dropped_call_is_logged() {
    let (sandbox, services) = plugin().create("faulty", faulty("none", "")).await;
    let text = "a local's last words";
    let io = CommandIo {
        stdin: ByteSource::empty(),
        stdout: ByteSink::null(),
        stderr: ByteSink::null(),
        controls: Controls::none(),
    };
    let exit = host::going(sandbox.execute_command(&Command::shell(text), io, host::call()));
    services.event("hanging").await;
    exit.abort();
    let event = plugin().logged(text).await;
    assert_eq!(event.level, "ERROR");
    assert_eq!(event.labels.sandbox, services.id());
    // The plugin is none the worse.
    let answered = bounded("start", sandbox.start(host::call())).await;
    assert_panicked("start", answered, "start went wrong");
}

/// A stream whose every method panics, and whose drop panics too if it says so.
struct FaultyStream(Option<&'static str>);

impl Drop for FaultyStream {
    fn drop(&mut self) {
        if let Some(text) = self.0 {
            panic!("{text}");
        }
    }
}

impl Source for FaultyStream {
    async fn read(&self, max: usize) -> Result<Chunk> {
        if max == 1 {
            let _bomb = bomb("a read's last words");
            pending::<()>().await;
        }
        panic!("reading went wrong");
    }
}

impl Sink for FaultyStream {
    async fn write(&self, _chunk: Chunk) -> Result<()> {
        panic!("writing went wrong");
    }

    async fn finish(&self) -> Result<()> {
        panic!("finishing went wrong");
    }
}

#[tokio::test]
async fn a_panic_in_a_stream_is_an_error_on_the_other_side() {
    // Set the hook that knows where a panic was.
    plugin();
    let source = ByteSource::new(FaultyStream(None));
    assert_panicked("read", source.read(9).await, "reading went wrong");
    let sink = ByteSink::new(FaultyStream(None));
    assert_panicked("write", sink.write(vec![1]).await, "writing went wrong");
    assert_panicked("finish", sink.finish().await, "finishing went wrong");
}

#[tokio::test]
async fn a_panic_in_a_hosts_stream_reaches_the_plugin_as_an_error() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    let (sink, _source) = pipe();
    let cat = Command::argv(["cat"]);
    let io = CommandIo {
        stdin: ByteSource::new(FaultyStream(None)),
        stdout: sink,
        stderr: ByteSink::null(),
        controls: Controls::none(),
    };
    let exit = sandbox.execute_command(&cat, io, host::call());
    assert_panicked("cat", bounded("cat", exit).await, "reading went wrong");
}

#[tokio::test]
async fn a_panic_while_a_stream_or_its_future_is_dropped_is_logged() {
    drop(ByteSource::new(FaultyStream(Some("a source's last words"))));
    drop(ByteSink::new(FaultyStream(Some("a sink's last words"))));
    let source = ByteSource::new(FaultyStream(None));
    {
        let mut read = pin!(source.read(1));
        let polled = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
    }
    for text in [
        "a source's last words",
        "a sink's last words",
        "a read's last words",
    ] {
        assert_eq!(plugin().logged(text).await.level, "ERROR");
    }
}

/// Host services that panic.
struct FaultyServices(&'static str);

mod services {
    use boxyard_plugin_api::{Result, SandboxIdentity, State, abi::SandboxServices};
    use serde_json::Value;

    use super::FaultyServices;

    impl FaultyServices {
        fn trap(&self, method: &str) {
            assert!(self.0 != method, "the host's {method} went wrong");
        }
    }

    impl SandboxServices for FaultyServices {
        fn identity(&self) -> SandboxIdentity {
            self.trap("identity");
            SandboxIdentity::default()
        }

        fn event(&self, _kind: String, _data: Value) {
            self.trap("event");
        }

        fn set_metadata(&self, _key: String, _value: Value) {
            self.trap("set_metadata");
        }

        fn exited(&self, _reason: String) {
            self.trap("exited");
        }

        async fn save_state(&self, _state: State) -> Result<()> {
            self.trap("save_state");
            Ok(())
        }
    }
}

#[tokio::test]
async fn a_panic_in_the_hosts_services_never_reaches_the_plugin_as_one() {
    use boxyard_plugin_api::abi::SandboxServicesObject;
    for (method, is_an_error) in [
        ("identity", true),
        ("save_state", true),
        // These have no answer.
        ("event", false),
        ("set_metadata", false),
    ] {
        let services = SandboxServicesObject::from_services(FaultyServices(method));
        let model = plugin().sandbox_type("model");
        let created = model.create(&json!({ "label": "" }), services, host::call());
        let created = bounded(method, created).await;
        let text = format!("the host's {method} went wrong");
        if is_an_error {
            assert_panicked(method, created.map(drop), &text);
        } else {
            created.unwrap();
        }
        plugin().logged(&text).await;
    }
    SandboxServicesObject::from_services(FaultyServices("exited")).exited("why".into());
    plugin().logged("the host's exited went wrong").await;
}
