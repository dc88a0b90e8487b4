//! What goes wrong, and what whoever sent it is told.

use std::{
    io::Write,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Home, read_to_end, wait_until};

const SHELL: &str = "shell_executor";

fn with_shell() -> Value {
    json!({ "tools_config": [SHELL] })
}

#[test]
fn every_mistake_has_its_status_and_a_text_that_helps() {
    let home = Home::new("[http]\nmax_body_bytes = 4096\nmax_archive_bytes = 100000");
    let served = home.serve();
    let id = served.create("local_process", with_shell());
    let long = "x".repeat(5000);
    let execute = "/sandbox/tool/execute";
    for (method, path, body, status, says) in [
        ("POST", "/sandbox/create", None, 422, "Field required"),
        (
            "POST",
            "/sandbox/create?sandbox_type=foo",
            Some(json!({})),
            422,
            "Input should be 'local_process'",
        ),
        (
            "POST",
            "/sandbox/create?sandbox_type=local_process",
            Some(json!([1])),
            422,
            "valid dictionary",
        ),
        (
            "POST",
            "/sandbox/create?sandbox_type=local_process",
            Some(json!({ "env": 7 })),
            400,
            "Failed to create sandbox",
        ),
        (
            "POST",
            "/sandbox/create?sandbox_type=local_process",
            Some(json!({ "env": { "A": long } })),
            413,
            "longer than 4096 bytes",
        ),
        (
            "GET",
            "/sandboxes?status=bogus",
            None,
            422,
            "'initializing', 'running', 'idle', 'busy', 'stopping', 'stopped' or 'error'",
        ),
        ("GET", "/nope", None, 404, "Not Found"),
        ("GET", "/sandbox/%ff", None, 400, "Invalid"),
        ("DELETE", "/v1/sandboxes/%ff", None, 400, "Invalid"),
        ("DELETE", "/health", None, 405, "Method Not Allowed"),
        (
            "POST",
            "/sandbox/create?sandbox_type=local_process",
            Some(json!({ "tools_config": { SHELL: 5 } })),
            400,
            "tools_config",
        ),
        (
            "POST",
            "/pool/initialize?pool_size=9000000000000000000&sandbox_type=local_process",
            Some(json!({})),
            422,
            "at most 10000",
        ),
        ("GET", "/sandbox/nope", None, 404, "Sandbox not found"),
        ("DELETE", "/sandbox/nope", None, 404, "Sandbox not found"),
        ("POST", "/sandbox/nope/stop", None, 404, "Sandbox not found"),
        (
            "GET",
            "/sandbox/nope/tools",
            None,
            404,
            "Sandbox nope not found",
        ),
        (
            "POST",
            execute,
            Some(json!({ "tool_name": "x" })),
            422,
            "sandbox_id",
        ),
        (
            "POST",
            execute,
            Some(json!({ "sandbox_id": 7, "tool_name": "x" })),
            422,
            "valid string",
        ),
        (
            "POST",
            execute,
            Some(json!({ "sandbox_id": "nope", "tool_name": "x" })),
            404,
            "Sandbox nope not found",
        ),
        (
            "POST",
            execute,
            Some(json!({ "sandbox_id": id, "tool_name": "x" })),
            404,
            "Tool x is not available",
        ),
        (
            "POST",
            execute,
            Some(json!({ "sandbox_id": id, "tool_name": SHELL })),
            422,
            "`command`: missing",
        ),
        (
            "POST",
            execute,
            Some(
                json!({ "sandbox_id": id, "tool_name": SHELL, "parameters": { "command": "true", "bogus": 1 } }),
            ),
            422,
            "bogus",
        ),
        (
            "POST",
            "/pool/execute?tool_name=x",
            Some(json!({})),
            400,
            "call initialize_pool first",
        ),
        (
            "POST",
            "/pool/execute?tool_name=x",
            None,
            422,
            "Field required",
        ),
        (
            "POST",
            "/pool/initialize?pool_size=many",
            Some(json!({})),
            422,
            "valid integer",
        ),
        (
            "POST",
            "/pool/execute?tool_name=x&timeout=soon",
            Some(json!({})),
            422,
            "number of seconds",
        ),
        (
            "GET",
            "/v1/sandboxes?color=red",
            None,
            422,
            "expected status, type or label",
        ),
        (
            "GET",
            "/v1/sandboxes/nope",
            None,
            404,
            "there is no sandbox `nope`",
        ),
    ] {
        let answer = served.ask(method, path, body.clone());
        let said = answer.body["detail"].to_string();
        assert!(
            answer.status == status && said.contains(says),
            "{method} {path} {body:?}: {answer:?}"
        );
    }
    let malformed = "POST /sandbox/tool/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5\r\nConnection: close\r\n\r\n{\"a\":";
    assert!(
        served
            .raw(malformed.as_bytes())
            .contains("JSON decode error")
    );
    for garbage in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "\x00\x01\x02",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ] {
        // Whatever it is answered, it is answered, and others are too.
        let mut stream = served.connect();
        stream.write_all(garbage.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        read_to_end(stream);
    }
    assert_eq!(served.get("/health").status, 200);
    served.end();
}

#[test]
fn no_mistake_is_answered_with_a_secret() {
    let home = Home::new("");
    let served = home.serve();
    let create = "/sandbox/create?sandbox_type=local_process";
    let execute = "/sandbox/tool/execute";
    for (path, body, status, says) in [
        (
            create,
            json!({ "env": { "TOKEN": ["hunter2"] } }),
            400,
            "env.TOKEN",
        ),
        (create, json!({ "env": "hunter2" }), 400, "`env`"),
        (
            execute,
            json!({ "tool_name": SHELL, "parameters": { "command": "hunter2" } }),
            422,
            "sandbox_id",
        ),
        (
            execute,
            json!({ "sandbox_id": "x", "tool_name": 7, "parameters": { "command": "hunter2" } }),
            422,
            "tool_name",
        ),
        (
            execute,
            json!({ "sandbox_id": "x", "tool_name": SHELL, "parameters": "hunter2" }),
            422,
            "parameters",
        ),
        (execute, json!(["hunter2"]), 422, "sandbox_id"),
    ] {
        let answer = served.post(path, body.clone());
        let said = answer.body["detail"].to_string();
        assert!(
            answer.status == status && said.contains(says) && !said.contains("hunter2"),
            "{path} {body}: {answer:?}"
        );
    }
    served.end();
}

#[test]
fn a_client_that_sends_slowly_is_cut_off_and_holds_nobody_up() {
    let home = Home::new("[http]\nread_timeout = '1s'");
    let served = home.serve();
    let mut head = served.connect();
    head.write_all(b"GET /health HTTP/1.1\r\nHost: loc")
        .unwrap();
    let mut body = served.connect();
    body.write_all(b"POST /sandbox/tool/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{").unwrap();
    let began = Instant::now();
    assert_eq!(served.get("/health").status, 200);
    let said = read_to_end(body);
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    read_to_end(head);
    // Nor does a byte now and then keep its place.
    let mut drops = served.connect();
    drops.write_all(b"POST /sandbox/tool/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n").unwrap();
    for _ in 0..20 {
        // It may be cut off by then.
        let _ = drops.write_all(b" ");
        std::thread::sleep(Duration::from_millis(100));
    }
    let said = read_to_end(drops);
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(30));
    served.end();
}

#[test]
fn a_client_that_goes_away_takes_its_command_with_it() {
    let home = Home::new("");
    let served = home.serve();
    let id = served.create("local_process", with_shell());
    let params = json!({ "command": "echo $$ > pid; sleep 1000", "timeout": null });
    let body = json!({ "sandbox_id": id, "tool_name": SHELL, "parameters": params }).to_string();
    let request = format!(
        "POST /sandbox/tool/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = served.connect();
    stream.write_all(request.as_bytes()).unwrap();
    let status = || {
        served.get(&format!("/sandbox/{id}")).body["status"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    wait_until("the command runs", || status() == "busy");
    drop(stream);
    wait_until("the command is gone", || status() == "running");
    served.end();
}

#[test]
fn a_sandbox_is_deleted_once_and_a_command_in_it_is_answered() {
    let home = Home::new("");
    let served = home.serve();
    let id = served.create("local_process", with_shell());
    let path = format!("/sandbox/{id}");
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            served.tool(
                &id,
                SHELL,
                json!({ "command": "sleep 1000", "timeout": null }),
            )
        });
        wait_until("the command runs", || {
            served.get(&path).body["status"] == "busy"
        });
        let deletions: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| served.ask("DELETE", &path, None).status))
            .collect();
        let statuses: Vec<_> = deletions
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect();
        assert!(
            statuses.contains(&200) && statuses.iter().all(|status| [200, 404].contains(status)),
            "{statuses:?}"
        );
        let answer = running.join().unwrap();
        assert_ne!(answer.body["status"], "success", "{answer:?}");
    });
    assert_eq!(served.get(&path).status, 404);
    assert_eq!(served.ask("DELETE", &path, None).status, 404);
    let stopped = served.create("local_process", with_shell());
    for _ in 0..2 {
        assert_eq!(
            served
                .ask("POST", &format!("/sandbox/{stopped}/stop"), None)
                .status,
            200
        );
    }
    let refused = served.tool(&stopped, SHELL, json!({ "command": "true" }));
    assert_eq!(refused.status, 404);
    assert_eq!(
        refused.body["detail"],
        format!("Sandbox {stopped} is not active (status: SandboxStatus.STOPPED)")
    );
    served.end();
}

#[test]
fn more_than_there_is_room_for_are_told_to_try_again() {
    let home = Home::new("[limits]\nsandboxes = 1\n[http]\nmax_requests = 1");
    let served = home.serve();
    let id = served.create("local_process", with_shell());
    let full = served.post("/sandbox/create?sandbox_type=local_process", json!({}));
    assert_eq!(full.status, 503);
    assert!(
        full.body["detail"].as_str().unwrap().contains("try again"),
        "{full:?}"
    );
    thread::scope(|scope| {
        let (done, waited) = mpsc::channel();
        let (served, id) = (&served, &id);
        scope.spawn(move || {
            // The one place may be taken by whoever looks whether it is.
            wait_until("there is room for the command", || {
                let answer = served.tool(id, SHELL, json!({ "command": "sleep 2" }));
                answer.status == 200
            });
            done.send(()).unwrap();
        });
        wait_until("the server is full", || {
            served.get("/sandboxes").status == 503
        });
        assert_eq!(
            served.get("/health").status,
            200,
            "whoever looks after it sees it"
        );
        waited.recv().unwrap();
    });
    wait_until("there is room again", || {
        served.get("/sandboxes").status == 200
    });
    served.end();
}

#[test]
fn no_more_of_all_bodies_is_held_than_may_be() {
    let home = Home::new("[http]\nmax_body_bytes = 4096\nmax_held_bytes = 6000");
    let served = home.serve();
    let path = "/sandbox/tool/execute";
    let long = json!({ "tool_name": "x".repeat(3000) });
    let mut held = served.connect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000\r\nConnection: close\r\n\r\n"
    );
    held.write_all(head.as_bytes()).unwrap();
    held.write_all(&[b' '; 3999]).unwrap();
    wait_until("there is no room for another", || {
        let answer = served.post(path, long.clone());
        answer.status == 503 && answer.body["detail"].to_string().contains("max_held_bytes")
    });
    held.write_all(b"1").unwrap();
    read_to_end(held);
    wait_until("there is room again", || {
        served.post(path, long.clone()).status == 422
    });
    served.end();
}

#[test]
fn an_archive_that_is_none_or_too_long_is_refused() {
    let home = Home::new("[http]\nmax_archive_bytes = 10000");
    let served = home.serve();
    let id = served.create("local_process", json!({}));
    let put = |target: &str, body: &[u8]| {
        let agent = ureq::Agent::from(
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .build(),
        );
        let uri = format!("{}/sandbox/{id}/archive{target}", served.url());
        let mut answer = agent
            .post(&uri)
            .content_type("application/x-tar")
            .send(body)
            .unwrap();
        (
            answer.status().as_u16(),
            answer.body_mut().read_to_string().unwrap(),
        )
    };
    for (target, body, status, says) in [
        ("", &b"x"[..], 422, "target_dir"),
        ("?target_dir=", b"junk", 400, "target_dir must not be empty"),
        ("?target_dir=a", b"", 400, "Archive body must not be empty"),
        ("?target_dir=a", &[7; 2000], 400, ""),
        ("?target_dir=a", &[0; 20000], 413, "longer than 10000 bytes"),
    ] {
        let (found, said) = put(target, body);
        assert!(
            found == status && said.contains(says),
            "{target}: {found} {said}"
        );
    }
    assert_eq!(
        served.get(&format!("/sandbox/{id}")).body["status"],
        "running"
    );
    served.end();
}
