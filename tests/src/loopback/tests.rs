//! The two ends, without a plugin: what the end-to-end tests cannot reach or see.

mod far;

use std::time::Duration;

use boxyard_host::{
    ByteSource, Command, CommandExit, CommandIo, Control, Controls, ErrorCode, ExecutionContext,
    Health, pipe,
};
use boxyard_plugin_api::{
    Call, CallController, GetArchive, LogRequest, MakeDirectory, PutArchive, ReadFile, RemovePath,
    SandboxHandle, State, SweepRequest, WriteFile,
    abi::{DynBackend, SandboxServicesObject},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinSet,
};

use super::*;
use far::{Far, Journal, Near};

/// Places the far type at the other end of a loopback.
async fn placed(journal: &Journal) -> SandboxTypeObject {
    let far = SandboxTypeObject::from_backend(Far(journal.clone()));
    let offer = Offer {
        plugin: "far".into(),
        sandbox_types: vec![far],
        tools: Vec::new(),
    };
    let placed = tokio::task::spawn_blocking(move || Loopback.place(offer)).await;
    placed.unwrap().unwrap().sandbox_types.remove(0)
}

fn services(journal: &Journal) -> SandboxServicesObject {
    SandboxServicesObject::from_services(Near(journal.clone()))
}

fn call() -> Call {
    CallController::new(0).call()
}

async fn sandbox(journal: &Journal) -> (SandboxTypeObject, SandboxHandle) {
    let far = placed(journal).await;
    let made = far.create(&json!({}), services(journal), call()).await;
    (far, made.unwrap())
}

#[tokio::test]
async fn everything_about_a_type_crosses() {
    let journal = Journal::default();
    let far = placed(&journal).await;
    assert_eq!(far.describe().unwrap(), Far(journal.clone()).describe());
    assert_eq!(far.probe(call()).await.unwrap(), Health::degraded("far"));
    let request = SweepRequest::new("h", ["a"]).known(["b"]).grace_ms(1);
    let swept = far.sweep(&request, call()).await.unwrap();
    assert_eq!(
        (swept.removed, swept.kept),
        (request.free_leases, request.known)
    );
    far.create(&json!({ "x": 1 }), services(&journal), call())
        .await
        .unwrap();
    for line in [
        r#"create {"x":1} id"#,
        "event made [1]",
        "metadata pid 7",
        "exited at once",
        r#"state 3 "state""#,
    ] {
        assert!(journal.has(line), "{line}");
    }
    let state = |data: &str| State::new(1, &data).unwrap();
    let gone = far
        .recover(&state("gone"), services(&journal), call())
        .await;
    assert!(gone.unwrap().is_none());
    let found = far
        .recover(&state("there"), services(&journal), call())
        .await;
    assert!(found.unwrap().is_some());
}

#[tokio::test]
async fn every_method_of_a_sandbox_crosses() {
    let journal = Journal::default();
    let (_far, sandbox) = sandbox(&journal).await;
    sandbox
        .start(CallController::new(5).with_id(77).call())
        .await
        .unwrap();
    assert!(
        journal.has("start 77 5"),
        "a call keeps its number and its span"
    );
    let context = sandbox.execution_context(call()).await.unwrap();
    assert_eq!(context, Some(ExecutionContext::Process { pid: 7 }));
    assert_eq!(sandbox.info(call()).await.unwrap()["far"], true);
    assert_eq!(sandbox.stats(call()).await.unwrap().processes, Some(3));
    let stat = sandbox.stat("/p", call()).await.unwrap();
    assert_eq!((stat.name.as_str(), stat.size), ("/p", 1 << 60));
    assert_eq!(sandbox.list("/p", call()).await.unwrap(), [stat]);
    sandbox.reset(call()).await.unwrap();
    assert!(journal.has("reset"));

    let path = || "/p".to_owned();
    let remove = RemovePath::new(path()).recursive(true);
    sandbox.remove(&remove, call()).await.unwrap();
    let make = MakeDirectory::new(path()).mode(1).parents(true);
    sandbox.make_directory(&make, call()).await.unwrap();
    let write = WriteFile::new(path()).make_parents(true);
    sandbox
        .write_file(&write, ByteSource::from_bytes("text"), call())
        .await
        .unwrap();
    let put = PutArchive::new(path());
    sandbox
        .put_archive(&put, ByteSource::from_bytes("tar"), call())
        .await
        .unwrap();
    for line in [
        format!("{remove:?}"),
        format!("{make:?}"),
        format!("{write:?} text"),
        format!("{put:?} tar"),
    ] {
        assert!(journal.has(&line), "{line}");
    }

    let read = ReadFile::new(path()).offset(1).length(2);
    let get = GetArchive::new(path());
    let logs = LogRequest::default().follow(true).tail(9);
    let ((a, b), (c, d), (e, f)) = (pipe(), pipe(), pipe());
    sandbox.read_file(&read, a, call()).await.unwrap();
    sandbox.get_archive(&get, c, call()).await.unwrap();
    sandbox.logs(&logs, e, call()).await.unwrap();
    for (source, expected) in [
        (b, format!("{read:?}")),
        (d, format!("{get:?}")),
        (f, format!("{logs:?}")),
    ] {
        assert_eq!(
            source.read_to_end(1000).await.unwrap(),
            expected.into_bytes()
        );
    }
}

#[tokio::test]
async fn a_commands_streams_controls_and_end_cross() {
    let journal = Journal::default();
    let (_far, sandbox) = sandbox(&journal).await;
    let input: Vec<u8> = (0..1_000_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let ((out, stdout), (err, stderr)) = (pipe(), pipe());
    let io = CommandIo {
        stdin: ByteSource::from_bytes(input.clone()),
        stdout: out,
        stderr: err,
        controls: Controls::from_source(ByteSource::from_bytes(Control::Signal(2).to_line())),
    };
    let command = Command::argv(["a", "b"]);
    let (exit, stdout, stderr) = tokio::join!(
        sandbox.execute_command(&command, io, call()),
        stdout.read_to_end(usize::MAX),
        stderr.read_to_end(usize::MAX),
    );
    assert_eq!(exit.unwrap(), CommandExit::signalled(9));
    assert_eq!(stderr.unwrap(), b"ab");
    let stdout = stdout.unwrap();
    let (control, rest) = stdout.split_at("Signal(2) ".len());
    assert_eq!(control, b"Signal(2) ");
    assert!(rest == input);
}

#[tokio::test]
async fn an_error_and_a_deadline_cross_whole() {
    let journal = Journal::default();
    let (_far, sandbox) = sandbox(&journal).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let call = CallController::new(0).deadline(deadline).call();
    let error = sandbox.cleanup(call).await.unwrap_err();
    let expected = Error::new(ErrorCode::PANICKED, "cleanup")
        .retryable()
        .with_details(json!({ "a": [null] }));
    assert_eq!(error, expected);
}

#[tokio::test]
async fn cancelling_asks_and_only_dropping_drops() {
    let journal = Journal::default();
    let (_far, sandbox) = sandbox(&journal).await;
    let controller = CallController::new(0);
    let stopping = tokio::spawn(sandbox.stop(controller.call()));
    journal.until("stop").await;
    controller.cancel();
    journal.until("stop asked").await;
    // Other calls go to and fro, and nothing is dropped meanwhile.
    sandbox.info(call()).await.unwrap();
    assert!(!journal.has("stop dropped"));
    stopping.abort();
    journal.until("stop dropped").await;
}

#[tokio::test]
async fn what_nobody_holds_any_more_is_given_back() {
    let journal = Journal::default();
    let (far, first) = sandbox(&journal).await;
    assert!(!journal.has("sandbox dropped"));
    drop(first);
    journal.until("sandbox dropped").await;

    drop(far);
}

/// A wire between the two ends that can be held and cut.
struct Wire {
    /// Whether what the far end says is kept back.
    held: watch::Sender<bool>,
    carrier: JoinSet<()>,
}

/// Places the far type at the other end of a wire.
async fn wired(journal: &Journal) -> (SandboxTypeObject, Wire) {
    let runtime = Handle::current();
    let (near, near_end) = tokio::io::duplex(BUFFER);
    let (far, far_end) = tokio::io::duplex(BUFFER);
    let (mut from_near, mut to_near) = tokio::io::split(near_end);
    let (mut from_far, mut to_far) = tokio::io::split(far_end);
    let (held, mut holds) = watch::channel(false);
    let mut carrier = JoinSet::new();
    carrier.spawn(async move {
        // Ends with either side, or when the wire is cut.
        let _ = tokio::io::copy(&mut from_near, &mut to_far).await;
    });
    carrier.spawn(async move {
        let mut byte = [0];
        while from_far.read_exact(&mut byte).await.is_ok() {
            holds.wait_for(|held| !held).await.unwrap();
            to_near.write_all(&byte).await.unwrap();
        }
    });
    let offer = Offer {
        plugin: "far".into(),
        sandbox_types: vec![SandboxTypeObject::from_backend(Far(journal.clone()))],
        tools: Vec::new(),
    };
    Peer::serve(far, offer, &runtime);
    let root = Peer::connect(near, &runtime);
    let offered = root.request(Request::plain("offer")).await.unwrap();
    let remote = offered.handed.into_iter().next().unwrap();
    let far = RemoteType::new(Far(journal.clone()).describe(), remote);
    let far = SandboxTypeObject::from_backend(far);
    (far, Wire { held, carrier })
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_any_more_is_given_back() {
    let journal = Journal::default();
    let (far, wire) = wired(&journal).await;
    let controller = CallController::new(0);
    let creating = far.create(&json!("late"), services(&journal), controller.call());
    let creating = tokio::spawn(creating);
    journal.until("waits to be asked").await;
    wire.held.send_replace(true);
    controller.cancel();
    // The answer is on the wire when its caller leaves.
    journal.until("made").await;
    creating.abort();
    assert!(creating.await.unwrap_err().is_cancelled());
    assert!(!journal.has("sandbox dropped"));
    wire.held.send_replace(false);
    journal.until("sandbox dropped").await;
    far.probe(call()).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_ends_ends_both_sides() {
    let journal = Journal::default();
    let (far, wire) = wired(&journal).await;
    let made = far.create(&json!({}), services(&journal), call()).await;
    let made = made.unwrap();
    let stopping = tokio::spawn(made.stop(call()));
    journal.until("stop").await;
    drop(wire.carrier);
    let error = stopping.await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::UNAVAILABLE);
    journal.until("stop dropped").await;
    journal.until("sandbox dropped").await;
    let error = far.probe(call()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UNAVAILABLE);
}

#[tokio::test]
async fn a_sandbox_holds_the_connection_that_its_type_let_go() {
    let journal = Journal::default();
    let (far, made) = sandbox(&journal).await;
    drop(far);
    assert_eq!(made.info(call()).await.unwrap()["far"], true,);
    drop(made);
    journal.until("sandbox dropped").await;
}

#[tokio::test]
async fn a_read_whose_reader_went_away_goes_to_the_next() {
    let journal = Journal::default();
    let (_far, sandbox) = sandbox(&journal).await;
    let (sink, source) = pipe();
    let restless = PutArchive::new("restless");
    let writes = async {
        for at in 0..300_u32 {
            sink.write(format!("{at} ").into_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        sink.finish().await.unwrap();
    };
    let (put, ()) = tokio::join!(sandbox.put_archive(&restless, source, call()), writes);
    put.unwrap();
    let expected: String = (0..300).map(|at| format!("{at} ")).collect();
    assert!(journal.has(&format!("{restless:?} {expected}")));
}
