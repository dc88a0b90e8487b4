//! Clients that go away in the middle, and a server that does.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use boxyard_conformance::Library;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Home, LOG, Served, boxyard, log_of, read_to_end, wait_until};

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
    thread::sleep(Duration::from_millis(200));
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
fn who_only_began_to_ask_does_not_hold_the_end_up() {
    let home = Home::new("[timeouts]\nshutdown = \"60s\"");
    let mut served = home.serve();
    let mut head = served.connect();
    head.write_all(b"GET /health HTTP/1.1\r\nHost: loc")
        .unwrap();
    let mut body = served.connect();
    body.write_all(b"POST /sandbox/tool/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{").unwrap();
    // Both are there before the end begins.
    assert_eq!(served.get("/health").status, 200);
    served.signal(Signal::TERM);
    let began = Instant::now();
    let said = read_to_end(body);
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    read_to_end(head);
    assert!(served.wait().success(), "{}", log_of(&home.yard));
    // Half of the time that there is would be theirs who wait for an answer.
    assert!(began.elapsed() < Duration::from_secs(25));
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

#[test]
fn a_server_whose_standard_output_is_closed_serves_and_ends_in_order() {
    let home = Home::new("");
    let arguments = ["serve", "--listen", "127.0.0.1:0"];
    let mut command = boxyard(&home.yard, &arguments);
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let log = File::create(home.yard.root().join(LOG)).unwrap();
    let mut child = command.stdout(writer).stderr(log).spawn().unwrap();
    let line = "listening on http://";
    wait_until("it listens or has ended", || {
        log_of(&home.yard).contains(line) || child.try_wait().unwrap().is_some()
    });
    let log = log_of(&home.yard);
    let (_, rest) = log
        .split_once(line)
        .unwrap_or_else(|| panic!("it said: {log}"));
    let address: SocketAddr = rest.split(';').next().unwrap().parse().unwrap();
    assert!(TcpStream::connect(address).is_ok());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_end_does_not_wait_for_a_plugin_that_hangs_while_it_is_loaded() {
    let home = Home::new("timeouts = { load = '10m', shutdown = '2s' }");
    let mut served = home.serve();
    home.yard
        .put("hangs.so", &Library::example("open_hangs").unwrap())
        .unwrap();
    served.signal(Signal::HUP);
    let threads = format!("/proc/{}/task", served.child.id());
    wait_until("the plugin is being loaded", || {
        let threads = fs::read_dir(&threads).unwrap().filter_map(Result::ok);
        threads
            .filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok())
            .any(|name| name.trim() == "plugin-init")
    });
    assert_eq!(served.get("/health").status, 200);
    served.signal(Signal::TERM);
    wait_until("it has ended", || {
        served.child.try_wait().unwrap().is_some()
    });
    assert!(served.wait().success(), "{}", log_of(&home.yard));
}
