//! The JSON documents that cross: their text, and that they can grow.

use std::{collections::BTreeMap, fmt::Debug};

use boxyard_plugin_api::{
    ByteSource, CommandExit, Control, Controls, FORMAT, FileInfo, FileKind, Health, Manifest,
    SandboxIdentity, SandboxTypeDescriptor, State, Stats, SweepRequest, Swept, TerminalSize,
    ToolDescriptor,
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

/// What plugins and hosts of 1.0.0 write, whatever becomes of these records.
#[test]
fn the_documents_of_1_0_0_are_read_whole() {
    let known = documents();
    let frozen = include_str!("documents-1.0.0.golden");
    let mut count = 0;
    for written in frozen.split("\n\n").filter(|text| !text.trim().is_empty()) {
        let (name, text) = written.trim().split_once('\n').unwrap();
        let document = known.iter().find(|document| document.name == name);
        let document = document.unwrap_or_else(|| panic!("{name} is gone"));
        let (written, read) = (serde_json::from_str(text).unwrap(), (document.read)(text));
        assert!(has(&read, &written), "{name}: {written} is read as {read}");
        count += 1;
    }
    assert_eq!(count, 19, "all that 1.0.0 had");
}

/// Whether all that is in one document is in another.
fn has(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().all(|(key, part)| {
            let found = whole.get(key);
            found.is_some_and(|whole| has(whole, part))
        }),
        _ => whole == part,
    }
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
    /// Reads a text and writes what was understood.
    read: fn(&str) -> Value,
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
        read: |text| serde_json::to_value(serde_json::from_str::<T>(text).unwrap()).unwrap(),
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
            State::new(2, &json!({ "container": "c0ffee" })).unwrap(),
        ),
        document("SweepRequest", &[""], sweep_request()),
        document("Swept", &[""], swept()),
        document("Command", &["", "/tty"], methods::full_command()),
        document("Control: signal", &[""], Control::Signal(15)),
        document("Control: resize", &["", "/resize"], Control::Resize(SIZE)),
        document("CommandExit", &[""], command_exit()),
        document("FileInfo", &[""], file_info()),
        document("Stats", &[""], stats()),
    ];
    all.extend(telemetry());
    all
}

/// Makes an example of a record that only this crate can make: its text shows that it is whole.
fn read<T: DeserializeOwned>(example: Value) -> T {
    serde_json::from_value(example).unwrap()
}

fn manifest() -> Manifest {
    read(json!({
        "format": FORMAT,
        "name": "boxyard-plugin-example",
        "version": "0.1.0",
        "description": "an example",
        "authors": ["Somebody <somebody@example.org>"],
        "license": "MIT",
        "api_version": "1.0.0",
        "min_host_api": "1.0.0",
        "sandbox_types": [{ "name": "local-process", "isolation": "none" }],
        "tools": ["hello"],
        "panic_abort": false,
    }))
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
    read(json!({
        "name": "local-process",
        "description": "runs on the machine itself",
        "isolation": "none",
        "capabilities": ["commands", "files"],
        "config_schema": { "type": "object" },
    }))
}

fn tool() -> ToolDescriptor {
    read(json!({
        "name": "hello",
        "description": "greets",
        "sandbox_types": ["local-process"],
        "parameters": { "type": "object" },
    }))
}

fn identity() -> SandboxIdentity {
    let mut identity = SandboxIdentity::new("sandbox-1", "host-1", "lease-1");
    identity.name = "build".into();
    identity.labels = BTreeMap::from([("team".into(), "red".into())]);
    identity.linger_ms = 600_000;
    identity
}

fn sweep_request() -> SweepRequest {
    SweepRequest::new("host-1", ["lease-1"])
        .known(["sandbox-1"])
        .grace_ms(60_000)
}

fn swept() -> Swept {
    let mut swept = Swept::default();
    swept.removed.push("sandbox-2".into());
    swept.kept.push("sandbox-3".into());
    swept
}

fn command_exit() -> CommandExit {
    let mut exit = CommandExit::signalled(9);
    exit.timed_out = true;
    exit.out_of_memory = true;
    exit.killed = Some(3);
    exit.duration_ms = 1500;
    exit
}

fn file_info() -> FileInfo {
    let mut info = FileInfo::new("current", FileKind::Symlink);
    info.size = 7;
    info.mode = 0o777;
    info.modified_ms = 1_700_000_000_000;
    info.target = Some("releases/7".into());
    info
}

fn stats() -> Stats {
    read(json!({
        "cpu_us": 1,
        "memory_bytes": 2,
        "memory_limit_bytes": 3,
        "processes": 4,
        "network_received_bytes": 5,
        "network_sent_bytes": 6,
        "disk_read_bytes": 7,
        "disk_written_bytes": 8,
        "other": { "load": 0.5 },
    }))
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
