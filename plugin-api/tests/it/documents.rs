//! The JSON documents that cross: their text, and that they can grow.

use std::{collections::BTreeMap, fmt::Debug};

use boxyard_plugin_api::{
    ByteSource, CommandExit, Control, Controls, FORMAT, FileInfo, FileKind, Health, Isolation,
    Manifest, ManifestSandboxType, SandboxIdentity, SandboxTypeDescriptor, State, Stats,
    SweepRequest, Swept, TerminalSize, ToolDescriptor,
    abi::{InitRequest, Telemetry, TelemetryLabels},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{golden, methods};

const WHAT_A_CHANGE_MEANS: &str = "\
A document that crosses changed. A new optional field is fine and belongs into CHANGELOG.md; \
anything else breaks what was built before and needs a new version of the ABI.";

#[test]
fn the_documents_have_not_changed() {
    let mut text = String::new();
    for document in documents() {
        text.push_str(&format!("{}\n{}\n\n", document.name, document.text));
    }
    golden::check("documents.golden", &text, WHAT_A_CHANGE_MEANS);
}

#[test]
fn every_document_reads_back() {
    for document in documents() {
        (document.reads_as_itself)(&document.text);
    }
}

#[test]
fn fields_that_this_version_does_not_know_are_ignored() {
    for document in documents() {
        for record in document.records {
            let mut grown: Value = serde_json::from_str(&document.text).unwrap();
            let record = grown.pointer_mut(record).unwrap().as_object_mut().unwrap();
            record.insert("later".into(), json!({ "than": ["this version"] }));
            (document.reads_as_itself)(&grown.to_string());
        }
    }
}

#[test]
fn a_telemetry_record_of_an_unknown_kind_is_told_apart() {
    let record: Telemetry = serde_json::from_str(r#"{"kind":"metric","value":1}"#).unwrap();
    assert_eq!(record, Telemetry::Unknown);
}

#[tokio::test]
async fn a_control_with_an_unknown_field_is_obeyed_and_one_of_an_unknown_kind_passed_over() {
    let lines = concat!(
        r#"{"signal":15,"later":true}"#,
        "\n",
        r#"{"later":true}"#,
        "\n",
        r#"{"resize":{"columns":80,"rows":24,"pixels":9}}"#,
        "\n",
    );
    let mut controls = Controls::from_source(ByteSource::from_bytes(lines));
    assert_eq!(controls.next().await.unwrap(), Some(Control::Signal(15)));
    assert_eq!(controls.next().await.unwrap(), Some(Control::Resize(SIZE)));
    assert_eq!(controls.next().await.unwrap(), None);
}

const SIZE: TerminalSize = TerminalSize {
    columns: 80,
    rows: 24,
};

/// One kind of document, by example.
struct Document {
    name: &'static str,
    text: String,
    /// Where its records are, as JSON pointers: what may get more fields.
    records: &'static [&'static str],
    reads_as_itself: Box<dyn Fn(&str)>,
}

fn document<T>(name: &'static str, records: &'static [&'static str], example: T) -> Document
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    Document {
        name,
        text: serde_json::to_string_pretty(&example).unwrap(),
        records,
        reads_as_itself: Box::new(move |text| {
            let read = serde_json::from_str::<T>(text);
            assert_eq!(read.ok().as_ref(), Some(&example), "{name}: {text}");
        }),
    }
}

fn documents() -> Vec<Document> {
    let mut all = vec![
        document("Manifest", &["", "/sandbox_types/0"], manifest()),
        document("InitRequest", &[""], init_request()),
        document("SandboxTypeDescriptor", &[""], sandbox_type()),
        document("ToolDescriptor", &[""], tool()),
        document("SandboxIdentity", &[""], identity()),
        document("Health", &[""], Health::degraded("no network")),
        document(
            "State",
            &[""],
            State {
                version: 2,
                data: json!({ "container": "c0ffee" }),
            },
        ),
        document(
            "SweepRequest",
            &[""],
            SweepRequest {
                host: "host-1".into(),
                free_leases: vec!["lease-1".into()],
                known: vec!["sandbox-1".into()],
                grace_ms: 60_000,
            },
        ),
        document(
            "Swept",
            &[""],
            Swept {
                removed: vec!["sandbox-2".into()],
                kept: vec!["sandbox-3".into()],
            },
        ),
        document("Command", &["", "/tty"], methods::full_command()),
        document("Control: signal", &[""], Control::Signal(15)),
        document("Control: resize", &["", "/resize"], Control::Resize(SIZE)),
        document(
            "CommandExit",
            &[""],
            CommandExit {
                exit_code: 137,
                signal: Some(9),
                timed_out: true,
                out_of_memory: true,
                killed: Some(3),
                duration_ms: 1500,
            },
        ),
        document("FileInfo", &[""], file_info()),
        document("Stats", &[""], stats()),
    ];
    all.extend(telemetry());
    all
}

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        name: "boxyard-plugin-example".into(),
        version: "0.1.0".into(),
        description: "an example".into(),
        authors: vec!["Somebody <somebody@example.org>".into()],
        license: "MIT".into(),
        api_version: "1.0.0".into(),
        min_host_api: "1.0.0".into(),
        sandbox_types: vec![ManifestSandboxType {
            name: "local-process".into(),
            isolation: Isolation::None,
        }],
        tools: vec!["hello".into()],
        panic_abort: false,
    }
}

fn init_request() -> InitRequest {
    InitRequest {
        host_version: "0.1.0".into(),
        host_api: "1.0.0".into(),
        host_id: "host-1".into(),
        path: "/usr/lib/boxyard/plugins/example.so".into(),
        data_dir: "/var/lib/boxyard/example".into(),
        runtime_threads: 2,
        log_filter: "info,example=debug".into(),
        settings: json!({ "engine": "unix:///run/engine.sock" }),
    }
}

fn sandbox_type() -> SandboxTypeDescriptor {
    SandboxTypeDescriptor {
        name: "local-process".into(),
        description: "runs on the machine itself".into(),
        isolation: Isolation::None,
        capabilities: vec!["commands".into(), "files".into()],
        config_schema: json!({ "type": "object" }),
    }
}

fn tool() -> ToolDescriptor {
    ToolDescriptor {
        name: "hello".into(),
        description: "greets".into(),
        sandbox_types: vec!["local-process".into()],
        parameters: json!({ "type": "object" }),
    }
}

fn identity() -> SandboxIdentity {
    SandboxIdentity {
        id: "sandbox-1".into(),
        name: "build".into(),
        labels: BTreeMap::from([("team".into(), "red".into())]),
        host: "host-1".into(),
        lease: "lease-1".into(),
        linger_ms: 600_000,
    }
}

fn file_info() -> FileInfo {
    FileInfo {
        name: "current".into(),
        kind: FileKind::Symlink,
        size: 7,
        mode: 0o777,
        modified_ms: 1_700_000_000_000,
        target: Some("releases/7".into()),
    }
}

fn stats() -> Stats {
    Stats {
        cpu_us: Some(1),
        memory_bytes: Some(2),
        memory_limit_bytes: Some(3),
        processes: Some(4),
        network_received_bytes: Some(5),
        network_sent_bytes: Some(6),
        disk_read_bytes: Some(7),
        disk_written_bytes: Some(8),
        other: BTreeMap::from([("load".into(), 0.5)]),
    }
}

fn telemetry() -> [Document; 4] {
    let labels = TelemetryLabels {
        sandbox_type: "local-process".into(),
        sandbox: "sandbox-1".into(),
        call: 12,
        host_span: 34,
    };
    let fields: BTreeMap<String, Value> = BTreeMap::from([("attempt".into(), json!(2))]);
    [
        document(
            "Telemetry: event",
            &[""],
            Telemetry::Event {
                level: "WARN".into(),
                target: "example::pull".into(),
                message: "the image is missing".into(),
                fields: fields.clone(),
                span: 5,
                labels: labels.clone(),
            },
        ),
        document(
            "Telemetry: span opened",
            &[""],
            Telemetry::SpanOpened {
                id: 5,
                parent: 4,
                name: "pull".into(),
                level: "INFO".into(),
                target: "example::pull".into(),
                fields: fields.clone(),
                labels,
            },
        ),
        document(
            "Telemetry: span recorded",
            &[""],
            Telemetry::SpanRecorded { id: 5, fields },
        ),
        document(
            "Telemetry: span closed",
            &[""],
            Telemetry::SpanClosed { id: 5 },
        ),
    ]
}
