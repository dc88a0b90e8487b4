//! What becomes of sandboxes and pools when a server or its disk does not do as it should.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Stdio},
};

use boxyard_conformance::Yard;
use serde_json::json;

use super::{Home, Served, boxyard, log_of, wait_until};
use crate::skip;

const SHELL: &str = "shell_executor";

/// A small disk; gone with this.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=700", "boxyard-test"])
            .arg(&path)
            .stderr(Stdio::null())
            .status()?;
        if mounted.success() {
            Ok(Self(path))
        } else {
            Err(io::Error::other("no file system can be mounted"))
        }
    }

    /// Leaves no room; returns what to remove to have it back.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("ballast");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 16, 1 << 10, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A server that still runs because its test failed is no reason to keep it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn echo(served: &Served, id: &str) {
    let answer = served.tool(id, SHELL, json!({ "command": "echo hi" }));
    assert_eq!(answer.body["output"], "hi\n", "{answer:?}");
}

fn listed(served: &Served) -> Vec<String> {
    let listed = served.get("/sandboxes").body;
    let ids = listed.as_array().unwrap().iter();
    ids.map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_full_disk_is_said_and_loses_nothing_and_passes() {
    let home = Home::new("");
    let disk = match Disk::mount(home.yard.root().join("disk")) {
        Ok(disk) => disk,
        Err(error) => return skip("a full disk under the store", &error.to_string()).unwrap(),
    };
    home.configure(&format!("store = {:?}", disk.0.join("store")));
    let served = home.serve();
    let with_shell = json!({ "tools_config": [SHELL] });
    let first = served.create("local_process", with_shell.clone());
    let second = served.create("local_process", with_shell.clone());
    let ballast = disk.fill();
    // What the store has room for in pages that it has goes on for a while.
    let mut made = Vec::new();
    let refused = loop {
        let answer = served.post(
            "/sandbox/create?sandbox_type=local_process",
            with_shell.clone(),
        );
        match answer.body["sandbox_id"].as_str() {
            Some(id) => made.push(id.to_owned()),
            None => break answer,
        }
    };
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("make room on its disk") && detail.contains("boxyard.db"),
        "{refused:?}"
    );
    echo(&served, &first);
    let deleted = served.ask("DELETE", &format!("/sandbox/{second}"), None);
    assert_eq!(deleted.status, 200, "{deleted:?}");
    wait_until("nothing half-made is listed", || {
        let known = [&made[..], &[first.clone(), second.clone()]].concat();
        listed(&served).iter().all(|id| known.contains(id))
    });

    // A new one is answered once all before it is on disk.
    fs::remove_file(ballast).unwrap();
    let third = served.create("local_process", with_shell);
    echo(&served, &third);
    served.kill();
    let served = home.serve();
    let after = listed(&served);
    for id in [&made[..], &[first, third]].concat() {
        assert!(after.contains(&id), "{id} is lost: {after:?}");
    }
    assert!(!after.contains(&second), "what was deleted is back");
    served.end();
}

#[test]
fn a_store_that_is_damaged_is_refused_and_left_as_it_is() {
    let home = Home::new("");
    let served = home.serve();
    served.create("local_process", json!({}));
    served.kill();
    let file = find(&home.yard);
    let garbage = vec![b'x'; 8192];
    fs::write(&file, &garbage).unwrap();
    // It would be mended with what is in there.
    for log in ["db-wal", "db-shm"] {
        fs::remove_file(file.with_extension(log)).unwrap();
    }
    let arguments = ["serve", "--listen", "127.0.0.1:0"];
    let output = boxyard(&home.yard, &arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains(file.to_str().unwrap()) && text.contains("move it away"),
        "{text}"
    );
    assert_eq!(fs::read(&file).unwrap(), garbage);
    // As it says.
    fs::rename(&file, file.with_extension("damaged")).unwrap();
    let served = home.serve();
    assert!(listed(&served).is_empty());
    served.create("local_process", json!({}));
    served.end();
}

/// Returns the file of a home's store.
fn find(yard: &Yard) -> PathBuf {
    let file = yard.root().join("state/boxyard/store/boxyard.db");
    assert!(file.exists(), "{}", file.display());
    file
}

#[test]
fn a_pool_outlives_its_server_and_heals() {
    let home = Home::new("");
    let served = home.serve();
    let path = "/pool/initialize?pool_size=2&sandbox_type=local_process";
    let before = served.post(path, json!({ "tools_config": [SHELL] })).body;
    served.kill();
    let served = home.serve();
    let answer = served.post(
        &format!("/pool/execute?tool_name={SHELL}&timeout=30"),
        json!({ "command": "echo hi" }),
    );
    assert_eq!(
        answer.body["output"],
        "hi\n",
        "{answer:?} {}",
        log_of(&home.yard)
    );
    // A process does not outlive its host: the pool has others now.
    wait_until("the old ones are gone", || {
        let old = before["sandbox_ids"].as_array().unwrap();
        let now = listed(&served);
        now.len() == 2 && !old.iter().any(|id| now.iter().any(|it| id == it))
    });
    served.end();
}

#[test]
fn a_port_in_use_costs_no_sandbox() {
    let home = Home::new("");
    let served = home.serve();
    let id = served.create("local_process", json!({}));
    served.kill();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    for (listen, says) in [
        (&*address, "is another server running"),
        ("0.0.0.0:0", "API key"),
    ] {
        let output = boxyard(&home.yard, &["serve", "--listen", listen])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && text.contains(says),
            "{text}"
        );
    }
    let served = home.serve();
    assert_eq!(listed(&served), [id]);
    served.end();
}

#[test]
fn one_server_has_a_store_at_a_time() {
    let home = Home::new("");
    let served = home.serve();
    let arguments = ["serve", "--listen", "127.0.0.1:0"];
    let output = boxyard(&home.yard, &arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("in use by another host"), "{text}");
    served.kill();
    home.serve().end();
}
