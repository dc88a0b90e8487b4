//! A sandbox type: described, probed, made from a configuration, recovered, swept.

use boxyard_plugin_api::{
    CallController, Error, ErrorCode, Health, Isolation, SandboxTypeDescriptor, State, SweepRequest,
};
use serde_json::{Value, json};

use super::run;
use crate::{
    host::{self, Notice, Services, plugin},
    methods::bounded,
};

#[test]
fn a_type_describes_itself() {
    let SandboxTypeDescriptor {
        name,
        description,
        isolation,
        capabilities,
        config_schema,
        ..
    } = plugin().sandbox_type("model").describe().unwrap();
    assert_eq!(
        (name.as_str(), description.as_str()),
        ("model", "does everything")
    );
    assert_eq!(isolation, Isolation::Vm);
    assert_eq!(capabilities, ["commands", "dreams"]);
    assert_eq!(config_schema["required"], json!(["label"]));
    assert_eq!(config_schema["additionalProperties"], json!(false));
}

#[tokio::test]
async fn a_probe_answers_and_the_plugin_was_told_what_the_host_said() {
    let health = plugin().sandbox_type("model").probe(host::call());
    let expected = "test-host 9.8.7 /plugins/test.so /var/lib/test";
    assert_eq!(
        bounded("probe", health).await,
        Ok(Health::degraded(expected))
    );
    // What a backend leaves to the default is healthy.
    let bare = plugin().sandbox_type("bare").probe(host::call());
    assert_eq!(bounded("probe", bare).await, Ok(Health::healthy()));
}

#[tokio::test]
async fn a_configuration_arrives_as_the_authors_type() {
    let config = json!({ "label": "x", "limits": { "memory": 5 } });
    let (_sandbox, services) = plugin().create("model", config.clone()).await;
    assert_eq!(services.event("config").await, config);
    let (_sandbox, services) = plugin().create("model", json!({ "label": "y" })).await;
    assert_eq!(
        services.event("config").await["limits"],
        json!({ "memory": 0 })
    );
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_the_name_of_the_field() {
    for (config, field) in [
        (json!({}), "label"),
        (json!({ "label": 7 }), "label"),
        (
            json!({ "label": "x", "limits": { "memory": "lots" } }),
            "limits.memory",
        ),
        (json!({ "label": "x", "limits": {} }), "memory"),
    ] {
        let services = Services::new();
        let sandbox_type = plugin().sandbox_type("model");
        let refused = sandbox_type.create(&config, services.object(), host::call());
        let error = bounded("create", refused).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT, "{config}");
        assert!(error.message().contains("`model`"), "{error}");
        assert!(error.message().contains(field), "{field}: {error}");
        assert_eq!(services.notices.all(), [], "{config}");
    }
}

#[tokio::test]
async fn what_a_sandbox_says_reaches_the_host_in_order() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "red" })).await;
    run(&sandbox, &["end"]).await.unwrap();
    let state = State::new(3, &json!({ "id": services.id() })).unwrap();
    assert_eq!(
        services.notices.all(),
        [
            Notice::Event("identity".into(), json!(services.identity)),
            Notice::Event(
                "config".into(),
                json!({ "label": "red", "limits": { "memory": 0 } })
            ),
            Notice::Metadata("label".into(), json!("red")),
            Notice::Saved(state),
            Notice::Exited("it had enough".into()),
        ]
    );
}

#[tokio::test]
async fn a_state_that_the_host_cannot_save_stops_the_creation() {
    let full = Error::resource_exhausted("the disk is full").retryable();
    let services = Services::refusing_to_save(full.clone());
    let sandbox_type = plugin().sandbox_type("model");
    let created = sandbox_type.create(&json!({ "label": "" }), services.object(), host::call());
    assert_eq!(bounded("create", created).await.unwrap_err(), full);
}

#[tokio::test]
async fn a_cancelled_creation_undoes_what_it_did() {
    let services = Services::new();
    let controller = CallController::new(0);
    let sandbox_type = plugin().sandbox_type("model");
    let config = json!({ "label": "slow" });
    let created = sandbox_type.create(&config, services.object(), controller.call());
    let cancel = async {
        services.event("config").await;
        controller.cancel();
    };
    let (created, ()) = bounded("create", async { tokio::join!(created, cancel) }).await;
    assert_eq!(created.unwrap_err().code(), ErrorCode::CANCELLED);
    services.event("undone").await;
}

#[tokio::test]
async fn recovery_finds_a_running_sandbox_or_says_that_it_is_gone() {
    let recover = |data: Value| {
        let services = Services::new();
        let state = State::new(9, &data).unwrap();
        let sandbox_type = plugin().sandbox_type("model");
        let found = sandbox_type.recover(&state, services.object(), host::call());
        async move { (bounded("recover", found).await, services, state) }
    };
    let (found, services, state) = recover(json!("there")).await;
    run(&found.unwrap().unwrap(), &["end"]).await.unwrap();
    assert_eq!(services.event("recovering").await, json!(state));

    let (found, _services, _state) = recover(json!("gone")).await;
    assert!(found.unwrap().is_none());

    let (found, _services, _state) = recover(json!(7)).await;
    let error = found.unwrap_err();
    assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT);
    assert!(error.message().contains("version 9"), "{error}");
}

#[tokio::test]
async fn a_sweep_crosses_both_ways() {
    let request = SweepRequest::new("h", ["dead", "gone"])
        .known(["a", "b"])
        .grace_ms(77);
    let swept = plugin().sandbox_type("model").sweep(&request, host::call());
    let swept = bounded("sweep", swept).await.unwrap();
    assert_eq!(swept.removed, ["dead", "gone"]);
    assert_eq!(swept.kept, ["a,b", "h", "77"]);
}

#[tokio::test]
async fn recovery_and_sweep_are_unimplemented_unless_a_backend_has_them() {
    let bare = plugin().sandbox_type("bare");
    let state = State::new(1, &Value::Null).unwrap();
    let recovered = bare.recover(&state, Services::new().object(), host::call());
    let error = bounded("recover", recovered).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UNIMPLEMENTED);
    let request = SweepRequest::new("", ["dead"]);
    let error = bounded("sweep", bare.sweep(&request, host::call())).await;
    assert_eq!(error.unwrap_err().code(), ErrorCode::UNIMPLEMENTED);
}

#[tokio::test]
async fn a_sandbox_is_dropped_inside_the_plugins_runtime() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    // Outside any runtime of the host's.
    std::thread::spawn(move || drop(sandbox)).join().unwrap();
    assert_eq!(
        services.event("dropped-inside-a-runtime").await,
        json!(true)
    );
}
