//! The end of a plugin: its runtime is gone, and every call says so.

use boxyard_plugin_api::{Command, ErrorCode, State, SweepRequest};
use serde_json::{Value, json};

use super::silent;
use crate::{
    host::{self, Services, alone, answer, plugin},
    methods::{self, bounded},
};

#[tokio::test]
async fn after_shutdown_every_call_answers_closed() {
    if !alone("roundtrip::shutdown::after_shutdown_every_call_answers_closed") {
        return;
    }
    let plugin = plugin();
    let (sandbox, services) = plugin.create("model", json!({ "label": "" })).await;
    let last_words = json!({ "fault": "sandbox", "text": "after the end" });
    let (bomb, _services) = plugin.create("faulty", last_words).await;
    let hang = Command::argv(["hang"]);
    let hanging = host::going(sandbox.execute_command(&hang, silent(), host::call()));
    services.event("hanging").await;

    let shutdown = || answer(plugin.module.call_shutdown(10_000));
    // From a thread of the host's own.
    std::thread::spawn(shutdown).join().unwrap().unwrap();
    services.event("future-dropped").await;
    let error = bounded("hanging", hanging).await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::CLOSED);

    for method in methods::call_all(&sandbox) {
        let error = bounded(method.name, method.answer).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::CLOSED, "{}", method.name);
    }
    let model = plugin.sandbox_type("model");
    let state = State::new(1, &Value::Null).unwrap();
    let request = SweepRequest::new("", ["dead"]);
    let services = Services::new();
    let created = model.create(&json!({}), services.object(), host::call());
    let recovered = model.recover(&state, services.object(), host::call());
    let tool = plugin.tool("caller");
    let errors = [
        bounded("probe", model.probe(host::call())).await.err(),
        bounded("create", created).await.err(),
        bounded("recover", recovered).await.err(),
        bounded("sweep", model.sweep(&request, host::call()))
            .await
            .err(),
        bounded(
            "tool",
            tool.execute(&json!({}), sandbox.into(), host::call()),
        )
        .await
        .err(),
    ];
    for error in errors {
        assert_eq!(error.map(|error| error.code()), Some(ErrorCode::CLOSED));
    }
    // A drop that panics harms nobody even now, and what needs no runtime still works.
    drop(bomb);
    plugin.logged("after the end").await;
    model.describe().unwrap();
    shutdown().unwrap();
}
