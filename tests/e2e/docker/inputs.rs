//! Configurations that cannot work: a clear error of the right code, and nothing half made.

use std::{
    fs,
    net::TcpListener,
    process::{Command as Process, id},
};

use boxyard_host::{Command, CreateError, ErrorCode};
use serde_json::{Value, json};

use super::{Dock, IMAGE, ended, engine};
use crate::world::{bounded, run};

/// An image made for a test; removed with it.
struct Made(String);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = engine(&["rmi", "-f", &self.0]);
    }
}

impl Made {
    /// Makes an image of one program, in `/bin/busybox`, with more of a Dockerfile.
    fn of_one_program(dock: &Dock, name: &str, changes: &[&str]) -> Self {
        let directory = dock.yard.root().join(name);
        fs::create_dir_all(directory.join("bin")).unwrap();
        let label = format!("dev.boxyard.host={}", dock.id);
        let container = engine(&["create", "--label", &label, IMAGE, "true"]).unwrap();
        let program = directory.join("bin/busybox");
        let from = format!("{container}:/bin/busybox");
        engine(&["cp", "-L", &from, program.to_str().unwrap()]).unwrap();
        engine(&["rm", &container]).unwrap();
        let archive = dock.yard.root().join(format!("{name}.tar"));
        let packed = Process::new("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&directory)
            .arg("bin")
            .status();
        assert!(packed.unwrap().success());
        let image = format!("boxyard-test-{name}:{}", id());
        let mut import = vec!["import"];
        for change in changes {
            import.extend(["--change", change]);
        }
        import.extend([archive.to_str().unwrap(), &image]);
        engine(&import).unwrap();
        Self(image)
    }
}

/// What a refused configuration is told.
fn refusal(error: &CreateError) -> (Option<ErrorCode>, String) {
    match error {
        CreateError::Backend { source, .. } => (Some(source.code()), error.to_string()),
        _ => (None, error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_with_its_reason_and_leaves_nothing() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let other = if cfg!(target_arch = "aarch64") {
        "linux/amd64"
    } else {
        "linux/arm64"
    };
    let cases: &[(Value, Option<ErrorCode>, &[&str])] = &[
        (
            json!({ "image": "boxyard-test-nothing:1", "pull_policy": "never" }),
            Some(ErrorCode::NOT_FOUND),
            &["boxyard-test-nothing:1"],
        ),
        (
            json!({ "image": "127.0.0.1:1/nothing:1" }),
            Some(ErrorCode::UNAVAILABLE),
            &["127.0.0.1:1"],
        ),
        (
            json!({ "memory_limit": "12 potatoes" }),
            None,
            &["memory_limit", "12 potatoes"],
        ),
        (
            json!({ "network_enabled": true, "ports": { "80/tcp": port } }),
            Some(ErrorCode::FAILED_PRECONDITION),
            &["already in use", &port.to_string()],
        ),
        (
            json!({ "volumes": { "/etc": "/x" } }),
            Some(ErrorCode::PERMISSION_DENIED),
            &["/etc", "allowed_mounts"],
        ),
        (
            json!({ "platform": other, "pull_policy": "never" }),
            Some(ErrorCode::FAILED_PRECONDITION),
            &[other],
        ),
        (
            json!({ "network_enabled": true, "network": "host" }),
            Some(ErrorCode::PERMISSION_DENIED),
            &["network", "allowed_networks"],
        ),
        (
            json!({ "privileged": true }),
            Some(ErrorCode::PERMISSION_DENIED),
            &["privileged", "allow_privileged"],
        ),
    ];
    bounded(async {
        let dock = dock.start().await;
        for (config, code, parts) in cases {
            let error = dock.create(config.clone()).await.unwrap_err();
            let (found, message) = refusal(&error);
            assert_eq!(found, *code, "{config}: {message}");
            for part in *parts {
                assert!(message.contains(part), "{config}: no {part} in {message}");
            }
            dock.is_clean();
        }
        let sandbox = dock.sandbox(json!({})).await;
        assert!(run(&sandbox, &["true"]).await.is_ok());
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_one_program_runs_that() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    let image = Made::of_one_program(&dock, "one", &[]);
    bounded(async {
        let dock = dock.start().await;
        let sandbox = dock.sandbox(json!({ "image": image.0 })).await;
        let ran = run(&sandbox, &["/bin/busybox", "echo", "hi"])
            .await
            .unwrap();
        assert_eq!((ran.exit.exit_code, &*ran.stdout_text()), (0, "hi\n"));
        // There is no shell to run it.
        let shell = sandbox.run(Command::shell("echo hi"), None).await;
        let shell = shell.unwrap();
        assert_eq!(shell.exit.exit_code, 127, "{shell:?}");
        assert!(shell.stderr_text().contains("sh: not found"), "{shell:?}");
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_the_image_does_not_have_is_named() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    let image = Made::of_one_program(&dock, "userless", &["USER nosuchuser"]);
    bounded(async {
        let dock = dock.start().await;
        let error = match dock.create(json!({ "image": image.0 })).await {
            Err(error) => error.to_string(),
            Ok(sandbox) => {
                let ran = run(&sandbox, &["/bin/busybox", "echo", "hi"]).await;
                ran.unwrap_err().to_string()
            }
        };
        assert!(error.contains("nosuchuser"), "{error}");
        dock.end().await;
    })
    .await;
}

#[test]
fn the_program_says_why_there_is_no_sandbox() {
    let Some(dock) = Dock::new(IMAGE) else { return };
    for (set, named) in [
        ("memory_limit=12 potatoes", "memory_limit"),
        ("volumes./etc=/x", "allowed_mounts"),
        ("privileged=true", "allow_privileged"),
    ] {
        let output = dock.run(&["-c", set, "--", "true"]).output().unwrap();
        let (code, _, stderr) = ended(&output);
        assert_eq!(code, Some(125), "{set}: {stderr}");
        assert!(stderr.contains(named), "{set}: {stderr}");
        dock.is_clean();
    }
}
