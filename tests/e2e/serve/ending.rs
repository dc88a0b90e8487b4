//! Clients that go away in the middle, and a server that does.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
    thread,
};

use boxyard_conformance::Library;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Home, Served, log_of, wait_until};

const SHELL: &str = "shell_executor";

/// A home with the `wild` plugin, and where that notes what it does.
fn wild() -> (Home, PathBuf) {
    let home = Home::new("");
    home.yard
        .put("wild.so", &Library::example("wild").unwrap())
        .unwrap();
    let journal = home.yard.root().join("journal");
    (home, journal)
}

fn noted(journal: &Path, line: &str) -> bool {
    let text = fs::read_to_string(journal).unwrap_or_default();
    text.lines().any(|noted| noted == line)
}

/// Lets a step that waits go on.
fn open_gate(journal: &Path, step: &str) {
    fs::write(journal.with_extension(step), "").unwrap();
}

fn sandboxes(served: &Served) -> usize {
    served.get("/sandboxes").body.as_array().unwrap().len()
}

/// Asks without waiting for an answer.
fn ask(served: &Served, request: &str, body: &Value) -> TcpStream {
    let body = body.to_string();
    let mut stream = served.connect();
    write!(
        stream,
        "{request} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    stream
}

#[test]
fn a_sandbox_that_nobody_waits_for_any_more_is_deleted() {
    let (home, journal) = wild();
    let served = home.serve();
    let config = json!({ "journal": journal, "wait_in": ["create"] });
    let request = "POST /sandbox/create?sandbox_type=wild";
    let client = ask(&served, request, &config);
    wait_until("it is being made", || noted(&journal, "create"));
    drop(client);
    // The server sees it go, whatever else it does.
    thread::sleep(std::time::Duration::from_millis(200));
    open_gate(&journal, "create");
    wait_until("it is cleaned up", || noted(&journal, "cleanup"));
    wait_until("it is forgotten", || sandboxes(&served) == 0);
    served.end();
}

#[test]
fn a_deletion_runs_to_its_end_without_its_client() {
    let (home, journal) = wild();
    let served = home.serve();
    let id = served.create(
        "wild",
        json!({ "journal": journal, "wait_in": ["cleanup"] }),
    );
    let client = ask(&served, &format!("DELETE /sandbox/{id}"), &Value::Null);
    wait_until("it is being deleted", || noted(&journal, "cleanup"));
    drop(client);
    open_gate(&journal, "cleanup");
    wait_until("it is gone", || sandboxes(&served) == 0);
    served.end();
}

#[test]
fn what_was_asked_before_the_end_is_answered() {
    let home = Home::new("");
    let served = home.serve();
    let id = served.create("local_process", json!({ "tools_config": [SHELL] }));
    let file = home.yard.root().join("began");
    let command = format!("touch {}; sleep 1; echo done", file.display());
    thread::scope(|scope| {
        let asked = scope.spawn(|| served.tool(&id, SHELL, json!({ "command": command })));
        wait_until("the command runs", || file.exists());
        served.signal(Signal::TERM);
        let answer = asked.join().unwrap();
        assert_eq!(
            (answer.status, &answer.body["output"]),
            (200, &json!("done\n"))
        );
    });
    assert!(TcpStream::connect(served.address).is_err());
    let mut served = served;
    assert!(served.wait().success(), "{}", log_of(&home.yard));
}

#[test]
fn what_takes_too_long_at_the_end_is_ended_and_answered() {
    let home = Home::new("[timeouts]\nshutdown = \"2s\"");
    let served = home.serve();
    let id = served.create("local_process", json!({ "tools_config": [SHELL] }));
    let file = home.yard.root().join("began");
    let command = format!("touch {}; sleep 1000", file.display());
    thread::scope(|scope| {
        let asked = scope.spawn(|| served.tool(&id, SHELL, json!({ "command": command })));
        wait_until("the command runs", || file.exists());
        served.signal(Signal::TERM);
        let answer = asked.join().unwrap();
        assert_ne!(answer.body["status"], "success", "{answer:?}");
    });
    let mut served = served;
    assert!(served.wait().success(), "{}", log_of(&home.yard));
}
