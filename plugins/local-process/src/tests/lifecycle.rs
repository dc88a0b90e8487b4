//! Making a sandbox, and leaving nothing of it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
};

use boxyard_plugin_api::{HealthStatus, Isolation, prelude::*};

use super::harness::{
    LEASE, call, directory_of, eventually, lives, logged, new_id, pid_in, sandbox, sandbox_of,
    sandbox_type, services, within,
};

#[tokio::test]
async fn the_type_says_what_it_is() {
    let described = sandbox_type().describe().unwrap();
    assert_eq!(described.name, "local-process");
    assert_eq!(described.isolation, Isolation::None);
    assert_eq!(
        described.capabilities,
        [
            "commands", "terminal", "users", "files", "archives", "stats", "sweep"
        ]
    );
    let properties = described.config_schema["properties"].as_object().unwrap();
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["env", "inherit_env", "limits", "timeout", "working_dir"]
    );
    let readme = include_str!("../../README.md");
    for name in names {
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
    }
    let health = sandbox_type().probe(call()).await.unwrap();
    assert_eq!(health.status, HealthStatus::Healthy);
}

#[tokio::test]
async fn each_start_says_that_nothing_is_isolated() {
    let sandbox = sandbox(json!({})).await;
    let warnings = logged(&sandbox.id);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("WARN"), "{warnings:?}");
    assert!(warnings[0].contains("isolates nothing"), "{warnings:?}");
    sandbox.close().await;
}

#[tokio::test]
async fn a_wrong_configuration_leaves_nothing() {
    for config in [
        json!({"working_dir": "/no/such"}),
        json!({"limits": {"x": 1}}),
        json!({"timeout": 0}),
    ] {
        let id = new_id();
        let made = sandbox_type().create(&config, services(LEASE, &id), call());
        let error = made.await.unwrap_err();
        assert_ne!(error.code(), ErrorCode::PANICKED, "{error}");
        assert!(!directory_of(LEASE, &id).exists());
    }
}

#[tokio::test]
async fn cleanup_removes_the_directory() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "").unwrap();
    let sandbox = sandbox(json!({})).await;
    let mode = sandbox.directory.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let script = "mkdir -p a/b && touch a/b/c && chmod 500 a/b && chmod 0 a";
    assert_eq!(sandbox.run(Command::shell(script)).await.exit.exit_code, 0);
    symlink(outside.path(), sandbox.directory.join("link")).unwrap();
    within(sandbox.handle.cleanup(call())).await.unwrap();
    assert!(!sandbox.directory.exists());
    within(sandbox.handle.cleanup(call())).await.unwrap();
    assert!(outside.path().join("kept").exists());
}

#[tokio::test]
async fn cleanup_without_stop_kills_too() {
    let sandbox = sandbox(json!({})).await;
    sandbox
        .run(Command::shell(
            "sleep 1000 >/dev/null 2>&1 & echo $! > child",
        ))
        .await;
    let child = pid_in(&sandbox.directory.join("child")).await;
    within(sandbox.handle.cleanup(call())).await.unwrap();
    assert!(!lives(child) && !sandbox.directory.exists());
}

#[tokio::test]
async fn a_given_directory_stays() {
    let given = tempfile::tempdir().unwrap();
    let sandbox = sandbox(json!({"working_dir": given.path()})).await;
    let output = sandbox
        .run(Command::shell("echo mine > file; echo $HOME"))
        .await;
    assert_eq!(output.out().trim(), given.path().to_str().unwrap());
    sandbox.close().await;
    let kept = fs::read_to_string(given.path().join("file")).unwrap();
    assert_eq!(kept, "mine\n");
}

#[tokio::test]
async fn recovery_finds_it_gone_and_leaves_nothing() {
    let sandbox = sandbox(json!({})).await;
    let script = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > child";
    sandbox.run(Command::shell(script)).await;
    let child = pid_in(&sandbox.directory.join("child")).await;
    // As a host that dies drops it.
    drop(sandbox.handle);
    eventually("its agent dies with it", || !lives(child)).await;
    let found = sandbox_type().recover(
        &sandbox.state,
        services("another-lease", &sandbox.id),
        call(),
    );
    assert!(within(found).await.unwrap().is_none());
    assert!(!lives(child) && !sandbox.directory.exists());
    let newer = State::new(99, &sandbox.state.data).unwrap();
    let refused = sandbox_type().recover(&newer, services(LEASE, &sandbox.id), call());
    assert_eq!(
        refused.await.unwrap_err().code(),
        ErrorCode::FAILED_PRECONDITION
    );
}

#[tokio::test]
async fn sweep_removes_orphans_of_free_leases_alone() {
    let dead = new_id();
    let orphan = sandbox_of(&dead, json!({})).await.unwrap();
    orphan
        .run(Command::shell(
            "sleep 1000 >/dev/null 2>&1 & echo $! > child; mkdir ro; chmod 0 ro",
        ))
        .await;
    let child = pid_in(&orphan.directory.join("child")).await;
    let known = sandbox_of(&dead, json!({})).await.unwrap();
    let alive = sandbox(json!({})).await;
    let request = SweepRequest::new("host", [dead])
        .known([&known.id])
        .grace_ms(3_600_000);
    let swept = within(sandbox_type().sweep(&request, call()))
        .await
        .unwrap();
    assert_eq!(swept.removed, Vec::<String>::new());
    assert_eq!(swept.kept, [orphan.id.as_str()]);
    drop(orphan.handle);
    eventually("its agent dies with it", || !lives(child)).await;
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3601);
    let directory = fs::File::open(&orphan.directory).unwrap();
    directory.set_modified(hour_ago).unwrap();
    let swept = within(sandbox_type().sweep(&request, call()))
        .await
        .unwrap();
    assert_eq!(swept.removed, [orphan.id.as_str()]);
    assert_eq!(swept.kept, Vec::<String>::new());
    assert!(!orphan.directory.exists());
    assert!(known.directory.exists() && alive.directory.exists());
    fs::set_permissions(&known.directory, Permissions::from_mode(0o500)).unwrap();
    known.close().await;
    alive.close().await;
}
