//! What the routes answer where all is well.

use std::fs;

use boxyard_conformance::Library;
use rustix::process::Signal;
use serde_json::json;

use super::{Home, LOCAL_PROCESS, boxyard, log_of, wait_until};

#[test]
fn a_sandbox_is_shown_as_its_clients_expect_it() {
    let home = Home::new("");
    let served = home.serve();
    let config = json!({ "tools_config": ["shell_executor", "nosuch"], "docker_executor_workers": 3, "what": 1 });
    let id = served.create("local_process", config);
    let info = served.get(&format!("/sandbox/{id}")).body;
    assert_eq!(
        (&info["type"], &info["status"]),
        (&json!("local_process"), &json!("running"))
    );
    assert_eq!(
        info["config"]["tools_config"],
        json!({ "nosuch": {}, "shell_executor": {} })
    );
    assert_eq!(info["config"]["timeout"], 30);
    let created = info["created_at"].as_str().unwrap();
    assert!(
        created.len() == 26 && !created.ends_with('Z'),
        "a naive time: {created}"
    );
    let tools = info["available_tools"].as_object().unwrap();
    assert_eq!(tools.keys().collect::<Vec<_>>(), ["shell_executor"]);
    assert_eq!(
        served.get(&format!("/sandbox/{id}/tools")).body,
        info["available_tools"]
    );
    assert_eq!(served.get("/sandboxes?status=running").body[0], info);
    let stats = served.get("/stats").body;
    assert_eq!(stats["sandbox_types"], json!({ "local_process": 1 }));
    let result = served
        .tool(&id, "shell_executor", json!({ "command": "exit 3" }))
        .body;
    assert_eq!(
        (&result["status"], &result["error"]),
        (&json!("error"), &json!("Command failed with exit code 3"))
    );
    served.end();
}

#[test]
fn what_a_client_sends_for_nothing_means_nothing() {
    let home = Home::new("");
    let served = home.serve();
    let id = served.create(
        "local_process",
        json!({
            "timeout": 1,
            "tools_config": {
                "shell_executor": null,
                "python_executor": { "enabled": false },
            },
        }),
    );
    let tools = served.get(&format!("/sandbox/{id}/tools")).body;
    let names: Vec<_> = tools.as_object().unwrap().keys().collect();
    assert_eq!(names, ["shell_executor"]);
    let slow = json!({ "command": "sleep 1.5; echo done", "timeout": null });
    assert_eq!(
        served.tool(&id, "shell_executor", slow).body["output"],
        "done\n"
    );
    served.end();
}

#[test]
fn a_pool_that_cannot_grow_says_why_and_stays() {
    let home = Home::new("[limits]\nsandboxes = 1");
    let served = home.serve();
    let path = "/pool/initialize?pool_size=1&sandbox_type=local_process";
    let config = json!({ "tools_config": ["shell_executor"], "colour": "red" });
    let made = served.post(path, config.clone());
    assert_eq!(made.body["pool_size"], 1, "{made:?}");
    let log = log_of(&home.yard);
    assert!(log.contains("colour"), "{log}");
    let full = served.post(path, config);
    let said = full.body["detail"].to_string();
    assert!(
        full.status == 500 && said.contains("limits.sandboxes"),
        "{full:?}"
    );
    let run = "/pool/execute?tool_name=shell_executor&timeout=5";
    let ran = served.post(run, json!({ "command": "echo pooled" }));
    assert_eq!(ran.body["output"], "pooled\n");
    served.end();
}

#[test]
fn a_pool_serves_in_turn_and_says_why_it_cannot() {
    let home = Home::new("");
    let served = home.serve();
    let made = served.post(
        "/pool/initialize?pool_size=2&sandbox_type=local_process",
        json!({ "tools_config": ["shell_executor"] }),
    );
    assert_eq!(
        made.body["sandbox_ids"].as_array().unwrap().len(),
        2,
        "{made:?}"
    );
    // Once more adds to it, where it says the same.
    let more = served.post(
        "/pool/initialize?pool_size=1&sandbox_type=local_process",
        json!({ "tools_config": ["shell_executor"] }),
    );
    let [added] = more.body["sandbox_ids"].as_array().unwrap().as_slice() else {
        panic!("{more:?}");
    };
    let deleted = served.ask(
        "DELETE",
        &format!("/sandbox/{}", added.as_str().unwrap()),
        None,
    );
    assert_eq!(deleted.status, 200);
    let run = |command: &str, wait: &str| {
        let path = format!("/pool/execute?tool_name=shell_executor&timeout={wait}");
        served.post(&path, json!({ "command": command }))
    };
    assert_eq!(run("echo pooled", "5").body["output"], "pooled\n");
    std::thread::scope(|scope| {
        let held: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| run("sleep 2", "5").status))
            .collect();
        while served.get("/stats").body["pool_size"] != 0 {
            std::thread::yield_now();
        }
        let late = run("true", "0.2");
        assert_eq!(
            (late.status, late.body["detail"].as_str()),
            (
                408,
                Some("Timeout waiting for available sandbox from pool after 0.2s")
            )
        );
        assert_eq!(run("echo waited", "30").body["output"], "waited\n");
        assert!(held.into_iter().all(|one| one.join().unwrap() == 200));
    });
    let unknown = served.post("/pool/execute?tool_name=zzz", json!({}));
    assert_eq!(
        (unknown.status, &unknown.body["detail"]),
        (400, &json!("Tool zzz is not available"))
    );
    // Whoever deletes its sandboxes has no pool any more: nobody waits for one.
    for id in made.body["sandbox_ids"].as_array().unwrap() {
        assert_eq!(
            served
                .ask(
                    "DELETE",
                    &format!("/sandbox/{}", id.as_str().unwrap()),
                    None
                )
                .status,
            200
        );
    }
    assert_eq!(run("true", "30").status, 400);
    // The last call says what it is.
    for value in ["first", "second"] {
        let config = json!({ "tools_config": ["shell_executor"], "env": { "WHICH": value } });
        let path = "/pool/initialize?pool_size=1&sandbox_type=local_process";
        assert_eq!(served.post(path, config).body["pool_size"], 1);
        assert_eq!(
            run("printenv WHICH", "5").body["output"],
            format!("{value}\n")
        );
    }
    let bad = served.post(
        "/pool/initialize?pool_size=1&sandbox_type=local_process",
        json!({ "env": 7 }),
    );
    assert!(
        bad.status == 400 && bad.body["detail"].as_str().unwrap().contains("env"),
        "{bad:?}"
    );
    assert_eq!(run("echo still there", "5").body["output"], "still there\n");
    assert_eq!(
        served
            .post("/pool/initialize?pool_size=-1", json!({}))
            .status,
        422,
        "there is no docker here"
    );
    served.end();
}

#[test]
fn ps_and_rm_see_and_delete_what_is_there() {
    let home = Home::new("");
    let served = home.serve();
    let id = served.create("local_process", json!({}));
    let url = served.url();
    let run = |arguments: &[&str]| {
        let output = boxyard(&home.yard, arguments).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, listed, _) = run(&["ps", "--url", &url]);
    assert!(
        code == 0 && listed.contains(&id) && listed.contains("running"),
        "{listed}"
    );
    let (_, listed, _) = run(&["ps", "--url", &url, "--status", "stopped"]);
    assert!(!listed.contains(&id), "{listed}");
    let (code, _, said) = run(&["ps", "--url", &url, "--status", "bogus"]);
    assert!(code == 1 && said.contains("'stopped'"), "{said}");
    assert_eq!(
        run(&["rm", "--url", &url, &id]),
        (0, format!("{id}\n"), String::new())
    );
    let (code, _, said) = run(&["rm", "--url", &url, &id]);
    assert!(code == 1 && said.contains("there is no sandbox"), "{said}");
    served.end();
    let (code, _, said) = run(&["ps", "--url", &url]);
    assert!(
        code == 1 && said.contains("is `boxyard serve` running"),
        "{said}"
    );
}

#[test]
fn a_hang_up_takes_in_new_plugins_and_keeps_sandboxes() {
    let home = Home::new("");
    let served = home.serve();
    let id = served.create(
        "local_process",
        json!({ "tools_config": ["shell_executor"] }),
    );
    home.yard
        .put(
            "hello.so",
            &Library::package("boxyard-plugin-hello").unwrap(),
        )
        .unwrap();
    let plugin = home.yard.plugins().join(format!("{LOCAL_PROCESS}.so"));
    let aside = home.yard.root().join("aside");
    fs::rename(&plugin, &aside).unwrap();
    home.configure("[pools.ready]\ntype = 'local-process'\nsize = 1");
    served.signal(Signal::HUP);
    let create = "/sandbox/create?sandbox_type=local_process";
    while served.post(create, json!({})).status != 422 {
        std::thread::yield_now();
    }
    let run = served.tool(&id, "shell_executor", json!({ "command": "echo still" }));
    assert_eq!(run.body["output"], "still\n");
    // What the configuration has and could not have is made once it can be.
    let total = || {
        served.get("/stats").body["total_sandboxes"]
            .as_u64()
            .unwrap()
    };
    let before = total();
    fs::rename(aside, plugin).unwrap();
    served.signal(Signal::HUP);
    wait_until("the pool has its sandbox", || total() > before);
    served.end();
}

#[test]
fn a_hang_up_takes_in_what_the_configuration_says_now() {
    let home = Home::new("");
    let served = home.serve();
    let id = served.create("local_process", json!({}));
    let write = |text: &str| {
        home.configure(text);
        served.signal(Signal::HUP);
    };
    write("[limits]\nsandboxes = 'many'");
    while !log_of(&home.yard).contains("the configuration stays as it was") {
        std::thread::yield_now();
    }
    assert_eq!(served.get("/health").status, 200);
    write("[limits]\nsandboxes = 2\n[pools.ready]\ntype = 'local-process'\nsize = 1");
    let create = "/sandbox/create?sandbox_type=local_process";
    while served.get("/stats").body["total_sandboxes"] != 2 {
        std::thread::yield_now();
    }
    assert_eq!(served.post(create, json!({})).status, 503);
    let hash = "0".repeat(64);
    write(&format!("[http.keys]\nci = '{hash}'"));
    while served.get("/health").status != 401 {
        std::thread::yield_now();
    }
    write("");
    while served.get("/health").status != 200 {
        std::thread::yield_now();
    }
    // The pool went with its table.
    while served.get("/sandboxes").body.as_array().unwrap().len() != 1 {
        std::thread::yield_now();
    }
    assert_eq!(
        served.get(&format!("/sandbox/{id}")).body["status"],
        "running"
    );
    served.end();
}

#[test]
fn a_hang_up_warns_of_what_only_a_restart_takes_in() {
    let home = Home::new("");
    let served = home.serve();
    let warned = |key: &str| log_of(&home.yard).contains(&format!("`{key}` stays as it was"));
    let settings = format!("plugins.{LOCAL_PROCESS}.settings");
    home.configure(&format!(
        "plugin_threads = 3\n[timeouts]\ncreate = '7s'\n[http]\nmax_requests = 7\n[{settings}]\nallow = 1"
    ));
    served.signal(Signal::HUP);
    for key in [
        "plugin_threads",
        "timeouts.create",
        "http.max_requests",
        &settings,
    ] {
        wait_until(key, || warned(key));
    }
    // Nothing else is said to stay, and nothing where all is as it was.
    let warnings = || log_of(&home.yard).matches("stays as it was").count();
    assert_eq!(warnings(), 4, "{}", log_of(&home.yard));
    home.configure(
        "[http.keys]\nci = '0000000000000000000000000000000000000000000000000000000000000000'",
    );
    served.signal(Signal::HUP);
    wait_until("the key is asked for", || {
        served.get("/health").status == 401
    });
    served.end();
    assert_eq!(warnings(), 4, "{}", log_of(&home.yard));
}
