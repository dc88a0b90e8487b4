use super::*;
use crate::engine::Limits;

fn specification(config: Value, facts: &Facts, additions: Additions) -> Specification {
    let config: Config = serde_json::from_value(config).unwrap();
    config.validate().unwrap();
    Specification::new(&config, facts, additions)
}

fn made(config: Value) -> (ContainerCreateBody, HostConfig) {
    let made = specification(config, &Facts::ordinary(), Additions::default());
    assert_eq!(made.notes, []);
    let host_config = made.body.host_config.clone().unwrap();
    (made.body, host_config)
}

#[test]
fn the_defaults_are_safe() {
    let (body, host) = made(json!({}));
    assert_eq!(host.memory, Some(4 << 30));
    assert_eq!(host.memory_swap, host.memory);
    assert_eq!(
        (host.cpu_quota, host.cpu_period),
        (Some(200_000), Some(100_000))
    );
    assert_eq!(host.pids_limit, Some(1024));
    assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
    assert_eq!(
        host.cap_add.unwrap(),
        [
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "SETGID",
            "SETUID",
            "SETPCAP",
            "NET_BIND_SERVICE"
        ]
    );
    assert_eq!(host.security_opt.unwrap(), ["no-new-privileges"]);
    assert_eq!(host.network_mode.as_deref(), Some("bridge"));
    assert_eq!(host.privileged, Some(false));
    assert_eq!(host.init, Some(false));
    assert_eq!(
        host.cgroupns_mode,
        Some(HostConfigCgroupnsModeEnum::PRIVATE)
    );
    assert_eq!((host.binds, host.mounts, host.devices), (None, None, None));
    assert_eq!(body.user.as_deref(), Some("0:0"));
    assert_eq!(body.healthcheck, None);
    assert_eq!(body.cmd.unwrap(), Vec::<String>::new());
}

#[test]
fn every_key_reaches_the_engine() {
    let (body, host) = made(json!({
        "working_dir": "/w",
        "env_vars": {"A": "1"},
        "memory_limit": "512m",
        "cpu_limit": 0.5,
        "pids_limit": 7,
        "disk_limit": "1g",
        "shm_size": "1m",
        "ulimits": {"nofile": 9, "core": {"soft": 0, "hard": -1}},
        "ports": {"80": null, "53/udp": ["0.0.0.0", 53]},
        "extra_hosts": {"db": "10.0.0.1"},
        "tmpfs": {"/tmp": "size=64m"},
        "read_only": true,
        "devices": ["/dev/fuse:r"],
        "capabilities": {"add": ["NET_RAW"], "drop": ["ALL"]},
        "seccomp_profile": {"defaultAction": "SCMP_ACT_ALLOW"},
        "runtime": "runsc",
        "healthcheck": true,
    }));
    assert_eq!(body.working_dir.as_deref(), Some("/w"));
    assert_eq!(body.env.unwrap(), ["A=1"]);
    assert_eq!(body.healthcheck, None);
    assert_eq!(body.exposed_ports.unwrap(), ["53/udp", "80/tcp"]);
    assert_eq!(
        (host.memory, host.memory_swap),
        (Some(512 << 20), Some(512 << 20))
    );
    assert_eq!((host.cpu_quota, host.pids_limit), (Some(50_000), Some(7)));
    assert_eq!(host.storage_opt.unwrap()["size"], (1 << 30).to_string());
    assert_eq!(host.shm_size, Some(1 << 20));
    let ulimits = serde_json::to_value(host.ulimits).unwrap();
    assert_eq!(
        ulimits,
        json!([
            {"Name": "core", "Soft": 0, "Hard": -1},
            {"Name": "nofile", "Soft": 9, "Hard": 9},
        ])
    );
    let ports = serde_json::to_value(host.port_bindings).unwrap();
    assert_eq!(
        ports,
        json!({
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
            "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "53"}],
        })
    );
    assert_eq!(host.extra_hosts.unwrap(), ["db:10.0.0.1"]);
    assert_eq!(host.tmpfs.unwrap()["/tmp"], "size=64m");
    assert_eq!(host.readonly_rootfs, Some(true));
    let devices = host.devices.unwrap();
    assert_eq!(devices[0].cgroup_permissions.as_deref(), Some("r"));
    let added = host.cap_add.unwrap();
    assert!(added.contains(&"NET_RAW".into()) && !added.contains(&"FOWNER".into()));
    assert_eq!(
        host.security_opt.unwrap(),
        [
            "no-new-privileges",
            "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"
        ]
    );
    assert_eq!(host.runtime.as_deref(), Some("runsc"));
}

#[test]
fn a_healthcheck_of_the_image_runs_only_when_asked_for() {
    for (asked, expected) in [(false, Some(vec!["NONE".to_owned()])), (true, None)] {
        let additions = Additions {
            healthcheck: true,
            ..Additions::default()
        };
        let config = json!({ "healthcheck": asked });
        let body = specification(config, &Facts::ordinary(), additions).body;
        let test = body.healthcheck.and_then(|check| check.test);
        assert_eq!(test, expected);
    }
}

#[test]
fn without_a_network_there_is_none() {
    for config in [
        json!({"network_enabled": false}),
        json!({"network": "none"}),
    ] {
        let (_, host) = made(config);
        assert_eq!(host.network_mode.as_deref(), Some("none"));
    }
}

#[test]
fn what_the_machine_cannot_do_is_noted() {
    let facts = Facts {
        cpus: 2,
        limits: Limits {
            memory: true,
            swap: false,
            cpus: true,
            pids: false,
        },
        ..Facts::ordinary()
    };
    let made = specification(json!({"cpu_limit": 64}), &facts, Additions::default());
    assert_eq!(
        made.notes,
        [
            Note::LimitIgnored { key: "pids_limit" },
            Note::CpusClamped {
                asked: 64.0,
                granted: 2
            },
        ]
    );
    assert_eq!(made.body.host_config.unwrap().cpu_quota, Some(200_000));
    assert_eq!(made.notes[1].kind(), "cpu-limit-clamped");
    assert_eq!(made.notes[1].data(), json!({"asked": 64.0, "granted": 2}));
}

#[test]
fn what_the_backend_adds_is_there() {
    let additions = Additions {
        image: "sha256:1".into(),
        entrypoint: vec!["/agent".into()],
        labels: HashMap::from([("a".into(), "b".into())]),
        mounts: vec![
            bind("/host", "/agent", Mode::ReadOnly),
            volume("data", "/data", Mode::ReadWrite),
        ],
        healthcheck: false,
        attach: true,
    };
    let volumes = json!({"volumes": {"/etc": "/etc"}});
    let body = specification(volumes, &Facts::ordinary(), additions).body;
    assert_eq!(body.image.as_deref(), Some("sha256:1"));
    assert_eq!(body.entrypoint.unwrap(), ["/agent"]);
    assert_eq!(body.labels.unwrap()["a"], "b");
    assert_eq!((body.open_stdin, body.tty), (Some(true), Some(false)));
    let host = body.host_config.unwrap();
    assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("none"));
    let mounts = serde_json::to_value(host.mounts).unwrap();
    assert_eq!(
        mounts,
        json!([
            {
                "Type": "bind", "Source": "/host", "Target": "/agent", "ReadOnly": true,
                "BindOptions": {"Propagation": "rprivate"},
            },
            {"Type": "volume", "Source": "data", "Target": "/data", "ReadOnly": false},
        ])
    );
}
