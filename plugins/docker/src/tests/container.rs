//! What is asked for, and what the engine makes of it.

use std::collections::HashMap;

use bollard::{
    models::ContainerInspectResponse,
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, LogsOptionsBuilder,
        RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
    },
};
use boxyard_plugin_api::prelude::*;
use futures_util::TryStreamExt;

use super::harness::{TestImage, engine, unique, within};
use crate::{
    config::{Config, Mode},
    container::{self, Additions, Specification},
    engine::Doing,
};

/// Has the engine make a container, looks at it, and removes it.
async fn made(config: Value, additions: Additions) -> Option<Result<ContainerInspectResponse>> {
    let engine = engine().await?;
    let connection = engine.connection().await.unwrap();
    let name = unique("container");
    let image = TestImage::make(&engine, &format!("localhost/{name}:1"), 10).await;
    let config: Config = serde_json::from_value(config).unwrap();
    config.validate().unwrap();
    let additions = Additions {
        image: image.name.clone(),
        entrypoint: vec!["/agent".into(), "--flag".into()],
        labels: HashMap::from([("dev.boxyard.test".into(), name.clone())]),
        ..additions
    };
    let body = Specification::new(&config, &connection.facts, additions).body;
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let docker = &connection.docker;
    let created = within(docker.create_container(Some(options), body)).await;
    let found = match created.doing("creating a container") {
        Ok(_) => {
            let found = docker.inspect_container(&name, None::<InspectContainerOptions>);
            let found = within(found).await.doing("inspecting it");
            let options = RemoveContainerOptionsBuilder::default()
                .force(true)
                .v(true)
                .build();
            within(docker.remove_container(&name, Some(options)))
                .await
                .unwrap();
            found
        }
        Err(error) => Err(error),
    };
    image.remove().await;
    Some(found)
}

#[tokio::test]
async fn the_engine_makes_what_the_defaults_ask_for() {
    let Some(found) = made(json!({}), Additions::default()).await else {
        return;
    };
    let found = found.unwrap();
    let config = found.config.unwrap();
    assert_eq!(config.entrypoint.unwrap(), ["/agent", "--flag"]);
    assert_eq!(config.cmd.unwrap_or_default(), Vec::<String>::new());
    assert_eq!(config.user.as_deref(), Some("0:0"));
    assert_eq!(config.working_dir.as_deref(), Some("/sandbox"));
    assert_eq!(config.healthcheck, None);
    assert!(config.labels.unwrap().contains_key("dev.boxyard.test"));
    let host = found.host_config.unwrap();
    assert_eq!(
        (host.memory, host.memory_swap),
        (Some(4 << 30), Some(4 << 30))
    );
    assert_eq!(host.pids_limit, Some(1024));
    assert!(host.cpu_quota.unwrap() <= 200_000);
    assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    assert_eq!(host.cap_add.unwrap().len(), 9);
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
    assert_eq!((host.privileged, host.init), (Some(false), Some(false)));
    assert_eq!(host.network_mode.as_deref(), Some("bridge"));
}

#[tokio::test]
async fn the_engine_takes_every_key() {
    let directory = tempfile::tempdir().unwrap();
    let config = json!({
        "working_dir": "/made",
        "env_vars": {"B": "2"},
        "memory_limit": "64m",
        "cpu_limit": 0.25,
        "pids_limit": 9,
        "shm_size": "1m",
        "ulimits": {"nofile": 64, "core": 0},
        "ports": {"80": null, "53/udp": null},
        "extra_hosts": {"db": "10.0.0.1"},
        "tmpfs": {"/tmp": "size=1m"},
        "read_only": true,
        "devices": ["/dev/null:/dev/other:r"],
        "capabilities": {"add": ["NET_RAW"], "drop": ["ALL"]},
        "seccomp_profile": {"defaultAction": "SCMP_ACT_ALLOW"},
        "healthcheck": true,
    });
    let additions = Additions {
        mounts: vec![container::bind(
            directory.path().to_str().unwrap(),
            "/agent",
            Mode::ReadOnly,
        )],
        attach: true,
        ..Additions::default()
    };
    let Some(found) = made(config, additions).await else {
        return;
    };
    let found = found.unwrap();
    let config = found.config.unwrap();
    assert!(config.env.unwrap().contains(&"B=2".into()));
    assert_eq!(config.open_stdin, Some(true));
    let mounts = found.mounts.unwrap();
    assert_eq!(mounts.len(), 1);
    assert_eq!(mounts[0].rw, Some(false));
    let host = found.host_config.unwrap();
    assert_eq!(
        (host.memory, host.cpu_quota),
        (Some(64 << 20), Some(25_000))
    );
    assert_eq!(host.pids_limit, Some(9));
    assert_eq!(host.ulimits.unwrap().len(), 2);
    assert_eq!(host.port_bindings.unwrap().len(), 2);
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.devices.unwrap().len(), 1);
    assert_eq!(host.security_opt.unwrap().len(), 2);
}

/// Prints what the kernel says of a process in the container.
const LOOK: &str = "\
    grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; \
    echo cgroup $(sed 's/.*://' /proc/self/cgroup | sort -u); \
    cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; \
    cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; \
    ls /sys/class/net; pwd";

#[tokio::test]
async fn the_kernel_holds_the_sandbox_to_it() {
    let Some(engine) = engine().await else { return };
    let connection = engine.connection().await.unwrap();
    let docker = &connection.docker;
    let config = json!({"memory_limit": "64m", "pids_limit": 50, "network_enabled": false});
    let config: Config = serde_json::from_value(config).unwrap();
    let name = unique("container");
    let additions = Additions {
        image: "boxyard/busybox".into(),
        entrypoint: ["sh", "-c", LOOK].map(str::to_owned).into(),
        labels: HashMap::from([("dev.boxyard.test".into(), name.clone())]),
        ..Additions::default()
    };
    let body = Specification::new(&config, &connection.facts, additions).body;
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    within(docker.create_container(Some(options), body))
        .await
        .expect("tests/images/make makes the image");
    within(docker.start_container(&name, None::<StartContainerOptions>))
        .await
        .unwrap();
    let ended = docker.wait_container(&name, None::<WaitContainerOptions>);
    within(ended.try_collect::<Vec<_>>()).await.unwrap();
    let options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .build();
    let printed = docker.logs(&name, Some(options));
    let printed = within(printed.try_collect::<Vec<_>>()).await.unwrap();
    let printed: String = printed.iter().map(ToString::to_string).collect();
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    within(docker.remove_container(&name, Some(options)))
        .await
        .unwrap();
    let lines: Vec<String> = printed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE.
    let capabilities = "00000000000005fb";
    assert_eq!(
        lines,
        [
            "Uid: 0 0 0 0",
            &format!("CapEff: {capabilities}"),
            &format!("CapBnd: {capabilities}"),
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "cgroup /",
            &(64 << 20).to_string(),
            "50",
            "lo",
            "/sandbox",
        ],
        "{printed}"
    );
}

#[tokio::test]
async fn a_runtime_that_the_engine_has_not_is_no_fault_of_the_engine() {
    let Some(found) = made(json!({"runtime": "no-such"}), Additions::default()).await else {
        return;
    };
    let error = found.unwrap_err();
    assert_eq!(error.code(), ErrorCode::FAILED_PRECONDITION, "{error}");
    assert!(error.message().contains("no-such"), "{error}");
}
