//! `boxyard serve` with docker sandboxes: clients that nobody here wrote, and servers that are killed.

use std::{
    env, fs,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use boxyard_conformance::Library;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Dock, IMAGE, PLUGIN, PYTHON, leave_out, text};
use crate::serve::{LOCAL_PROCESS, Served, wait_until};

/// What leaves out the test of ms-enclave's client.
const WITHOUT_CLIENT: &str = "BOXYARD_WITHOUT_MS_ENCLAVE";
const SHELL: &str = "shell_executor";
/// How often a server is killed.
const KILLS: usize = 20;

fn serve(dock: &Dock) -> Served {
    Served::start(&dock.yard, &[])
}

fn config() -> Value {
    json!({ "image": IMAGE, "network_enabled": false, "tools_config": [SHELL] })
}

/// Returns the Python that has ms-enclave, which `cargo verify` makes.
fn python() -> PathBuf {
    env::var_os("BOXYARD_MS_ENCLAVE_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

#[test]
fn the_client_of_ms_enclave_works_unchanged() {
    let Some(dock) = Dock::new(PYTHON) else {
        return;
    };
    let has_client = Command::new(python())
        .args(["-c", "import ms_enclave, docker"])
        .output();
    match has_client {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return leave_out(WITHOUT_CLIENT, "ms-enclave's client", &text(&output.stderr));
        }
        Err(error) => return leave_out(WITHOUT_CLIENT, "ms-enclave's client", &error.to_string()),
    }
    let shared = dock.yard.root().join("shared");
    fs::create_dir(&shared).unwrap();
    dock.configure(|file| {
        file + &format!("[plugins.{PLUGIN}.settings]\nallowed_mounts = [{shared:?}]\n")
    });
    let served = serve(&dock);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/docker/client.py");
    let output = Command::new(python())
        .arg(script)
        .arg(served.url())
        .arg(&shared)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "info": ["running", "docker", "256m", ["file_operation", "python_executor", "shell_executor"]],
        "listed": [true],
        "python": ["success", "Hello from sandbox!\n", null],
        "shell": ["error", "hi\n", "Command failed with exit code 3"],
        "slow": ["timeout", "Command timed out after 1 seconds"],
        "files": ["text", true],
        "tools": ["file_operation", "python_executor", "shell_executor"],
        "put": true,
        "archive": "archived",
        "unknown tool": "Tool nosuch is not available",
        "stopped": true,
        "not active": "Sandbox ID is not active (status: SandboxStatus.STOPPED)",
        "deleted": [true, false],
        "gone": null,
        "refused": true,
        "mounted": ["from the host", "from the sandbox"],
        "mount refused": true,
        "health": true,
        "notebook": ["docker_notebook", "success", "in\n\nResult: 42"],
        "pool": 2,
        "pooled": ["0\n", "1\n", "4\n", "9\n", "16\n", "25\n", "36\n", "49\n"],
        "pool timeout": "Timeout waiting for available sandbox from pool after 0.5s",
        "pool unknown tool": "Tool nosuch is not available",
        "left": 0,
    });
    assert_eq!(seen, expected);
    served.end();
    dock.is_clean();
}

#[test]
fn a_killed_server_has_lost_no_sandbox_that_it_had_answered() {
    let Some(dock) = Dock::new(IMAGE) else {
        return;
    };
    // What each sandbox has in it, by id: known to the client that was answered.
    let answered = Mutex::new(Vec::<String>::new());
    for round in 0..kills() {
        let served = serve(&dock);
        for id in answered.lock().unwrap().iter() {
            let run = served.tool(id, SHELL, json!({ "command": "cat /tmp/name" }));
            let info = || served.get(&format!("/sandbox/{id}"));
            assert_eq!(
                run.body["output"],
                json!(id),
                "round {round}: {run:?} {:?}",
                info()
            );
        }
        // Half of them go, so that deletions are killed too.
        let (kept, going): (Vec<_>, Vec<_>) = answered
            .lock()
            .unwrap()
            .drain(..)
            .enumerate()
            .partition(|(at, _)| at % 2 == 0);
        answered
            .lock()
            .unwrap()
            .extend(kept.into_iter().map(|(_, id)| id));
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let Some(id) = try_create(&served) else {
                            return;
                        };
                        answered.lock().unwrap().push(id);
                    }
                });
            }
            scope.spawn(|| {
                for (_, id) in &going {
                    if ask(&served, "DELETE", &format!("/sandbox/{id}"), None).is_none() {
                        return;
                    }
                }
            });
            // Another moment of all that goes on each time.
            thread::sleep(Duration::from_millis(
                300 + 77 * u64::try_from(round).unwrap(),
            ));
            is_over.store(true, Ordering::Relaxed);
            served.signal(Signal::KILL);
        });
        served.kill();
        // Those that were made, answered, and not written to before the kill.
        answered
            .lock()
            .unwrap()
            .retain(|id| !going.iter().any(|(_, gone)| gone == id));
        let served = serve(&dock);
        let listed = served.get("/sandboxes").body;
        for id in answered.lock().unwrap().iter() {
            let there = listed
                .as_array()
                .unwrap()
                .iter()
                .find(|one| one["id"] == **id);
            let there = there.unwrap_or_else(|| panic!("round {round}: {id} is lost"));
            assert_eq!(there["status"], "running", "round {round}: {there}");
            let name = json!({ "command": format!("printf {id} > /tmp/name") });
            assert_eq!(served.tool(id, SHELL, name).status, 200);
        }
        // Whatever has a container is known: no orphan.
        let known = listed.as_array().unwrap().len();
        wait_until(&format!("round {round}: no orphans"), || {
            dock.containers().len() <= known
        });
        served.kill();
    }
    serve(&dock).end();
    dock.is_clean();
}

#[test]
fn what_is_kept_is_left_to_the_next_server() {
    let Some(dock) = Dock::new(IMAGE) else {
        return;
    };
    // Half of the time for the end is given to commands that run.
    dock.configure(|file| {
        let file = file.replacen("[timeouts]", "[timeouts]\nshutdown = '4s'", 1);
        format!("keep_sandboxes = true\n{file}")
    });
    let library = Library::package(LOCAL_PROCESS).unwrap();
    dock.yard.put("local.so", &library).unwrap();
    let isolated = &["--allow-isolation", "none"];
    let served = Served::start(&dock.yard, isolated);
    let shell = |served: &Served, id: &str, line: &str| {
        let answer = served.tool(id, SHELL, json!({ "command": line, "timeout": null }));
        answer.body
    };
    let id = served.create("docker", config());
    // Neither is there for another server: one has no recovery, and pools make their own.
    served.create("local_process", json!({}));
    let pool = "/pool/initialize?pool_size=1&sandbox_type=docker";
    assert_eq!(served.post(pool, config()).status, 200);
    assert_eq!(dock.containers().len(), 2);
    let began = format!("docker exec boxyard-{id} test -e /tmp/began");
    thread::scope(|scope| {
        let asked = scope.spawn(|| shell(&served, &id, "touch /tmp/began; sleep 1000"));
        wait_until("the command runs", || {
            let looked = Command::new("sh").args(["-c", &began]).status();
            looked.unwrap().success()
        });
        served.signal(Signal::TERM);
        let answer = asked.join().unwrap();
        assert_ne!(answer["status"], "success", "{answer}");
    });
    served.end();
    assert_eq!(dock.containers().len(), 1);

    let served = Served::start(&dock.yard, isolated);
    let listed = served.get("/sandboxes").body;
    let ids = listed.as_array().unwrap().iter().map(|one| &one["id"]);
    assert_eq!(ids.collect::<Vec<_>>(), [&json!(id)]);
    let found = shell(&served, &id, "ls /tmp/began; pidof sleep");
    assert_eq!(found["output"], "/tmp/began\n", "{found}");
    assert_eq!(
        served.ask("DELETE", &format!("/sandbox/{id}"), None).status,
        200
    );
    served.end();
    dock.is_clean();
}

/// How often to kill, as the other tests of this kind are told.
fn kills() -> usize {
    let told = env::var("BOXYARD_REPEAT")
        .ok()
        .and_then(|told| told.parse().ok());
    told.unwrap_or(KILLS)
}

/// Makes a sandbox on a server that may be killed meanwhile.
fn try_create(served: &Served) -> Option<String> {
    let made = ask(
        served,
        "POST",
        "/sandbox/create?sandbox_type=docker",
        Some(config()),
    )?;
    made["sandbox_id"].as_str().map(str::to_owned)
}

/// Asks a server that may be killed meanwhile.
fn ask(served: &Served, method: &str, path: &str, body: Option<Value>) -> Option<Value> {
    let agent = ureq::Agent::from(
        ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .build(),
    );
    let uri = format!("{}{path}", served.url());
    let answer = match (method, body) {
        ("DELETE", _) => agent.delete(&uri).call(),
        (_, body) => agent.post(&uri).send_json(body.unwrap_or_default()),
    };
    answer.ok()?.body_mut().read_json().ok()
}
