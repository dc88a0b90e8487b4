//! The log bridge: events and spans, with what they belong to, filtered in the plugin.

use boxyard_plugin_api::{
    CallController, Command,
    abi::{Telemetry, TelemetryLabels},
};
use serde_json::json;

use super::{run, silent};
use crate::{
    host::{answer, plugin},
    methods::bounded,
};

fn labels_of(record: &Telemetry) -> Option<&TelemetryLabels> {
    match record {
        Telemetry::Event { labels, .. } | Telemetry::SpanOpened { labels, .. } => Some(labels),
        _ => None,
    }
}

#[tokio::test]
async fn events_and_spans_arrive_in_order_with_what_they_belong_to() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    let controller = CallController::new(88);
    let log = Command::argv(["log"]);
    let exit = sandbox.execute_command(&log, silent(), controller.call());
    bounded("log", exit).await.unwrap();
    let expected = TelemetryLabels {
        sandbox_type: "model".into(),
        sandbox: services.id().into(),
        call: controller.id(),
        host_span: 88,
    };

    let all = plugin().log.all();
    let opened = all.iter().position(
        |record| matches!(record, Telemetry::SpanOpened { labels, .. } if *labels == expected),
    );
    let opened = opened.unwrap();
    let Telemetry::SpanOpened {
        id,
        parent,
        name,
        level,
        target,
        fields,
        ..
    } = &all[opened]
    else {
        panic!("{:?}", all[opened]);
    };
    assert_eq!(
        (name.as_str(), level.as_str(), *parent),
        ("outer", "INFO", 0)
    );
    assert!(target.ends_with("plugin::model"), "{target}");
    assert_eq!(json!(fields), json!({ "size": 42 }));

    // What was filtered never came; what came is inside the span.
    let ours = |record: &&Telemetry| labels_of(record) == Some(&expected);
    let events: Vec<&Telemetry> = all[opened + 1..].iter().filter(ours).collect();
    let [event] = events.as_slice() else {
        panic!("{events:?}");
    };
    let fields = json!({ "count": 3, "ratio": 0.5, "ok": true, "who": "me" });
    assert_eq!(
        **event,
        Telemetry::Event {
            level: "WARN".into(),
            target: target.clone(),
            message: "said 1".into(),
            fields: serde_json::from_value(fields).unwrap(),
            span: *id,
            labels: expected,
        }
    );
    let said = all.iter().position(|record| record == *event).unwrap();

    // Ids are used again once a span is closed: the first of each afterwards is ours.
    let recorded = Telemetry::SpanRecorded {
        id: *id,
        fields: [("late".into(), json!("now"))].into(),
    };
    let closed = Telemetry::SpanClosed { id: *id };
    let after = |wanted: &Telemetry| all[said..].iter().position(|record| record == wanted);
    assert!(after(&recorded).unwrap() < after(&closed).unwrap());
}

#[tokio::test]
async fn events_of_a_creation_carry_the_sandbox() {
    let (_sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    let message = format!("creating {}", services.id());
    // Another sandbox's id may begin with this one's.
    let is_it = |record: &Telemetry| matches!(record, Telemetry::Event { message: found, .. } if *found == message);
    let event = plugin().log.wait_for(&message, is_it).await;
    let labels = labels_of(&event).unwrap();
    assert_eq!(labels.sandbox_type, "model");
    assert_eq!(labels.sandbox, services.id());
    assert_ne!(labels.call, 0);
}

#[tokio::test]
async fn a_task_of_a_sandbox_carries_its_name() {
    let (sandbox, services) = plugin().create("model", json!({ "label": "" })).await;
    run(&sandbox, &["spawn", "said by a task"]).await.unwrap();
    let event = plugin().logged("said by a task").await;
    assert_eq!(event.labels.sandbox, services.id());
    assert_eq!(event.labels.sandbox_type, "model");
    assert_eq!((event.level.as_str(), event.span), ("INFO", 0));
}

#[tokio::test]
async fn the_filter_changes_while_the_plugin_runs() {
    let (sandbox, _services) = plugin().create("model", json!({ "label": "" })).await;
    let configure = |filter: &str| {
        let changes = json!({ "log_filter": filter }).to_string();
        answer(plugin().module.call_configure(changes.as_str().into())).unwrap();
    };
    let mut heard = Vec::new();
    for (filter, text) in [
        ("info,live=debug", "first"),
        ("info,live=warn", "second"),
        ("info", "third"),
    ] {
        configure(filter);
        // The last answer comes after everything that was logged before it.
        run(&sandbox, &["log-live", text]).await.unwrap();
        let all = plugin().log.all();
        let messages = all.iter().filter_map(|record| match record {
            Telemetry::Event {
                target, message, ..
            } if target == "live" => Some(message.clone()),
            _ => None,
        });
        heard = messages.collect();
    }
    assert_eq!(heard, ["quiet first", "loud first", "loud third"]);
}
