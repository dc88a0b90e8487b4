//! What the engine is asked to make: a configuration, the engine's facts and what the backend
//! adds, as one document. Nothing here talks to an engine.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    PortBinding, ResourcesUlimits,
};
use boxyard_plugin_api::prelude::*;

use crate::{
    config::{Config, Mode, Seccomp},
    engine::Facts,
};

/// The period that CPU quotas are parts of, in microseconds: the kernel's own default.
const CPU_PERIOD: i64 = 100_000;

/// What the backend adds to a configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Additions {
    /// The image's id: what was inspected is what runs, whatever its name means meanwhile.
    pub(crate) image: String,
    /// What runs as PID 1: the agent.
    pub(crate) entrypoint: Vec<String>,
    pub(crate) labels: HashMap<String, String>,
    /// Everything that is mounted: the configuration's volumes as they were allowed, and the
    /// agent's directory.
    pub(crate) mounts: Vec<Mount>,
    /// Whether PID 1 is spoken to over its standard streams.
    pub(crate) attach: bool,
}

/// A container to make, and what the sandbox's owner should know of it.
#[derive(Clone, Debug)]
pub(crate) struct Specification {
    pub(crate) body: ContainerCreateBody,
    pub(crate) notes: Vec<Note>,
}

/// Something that is not as the configuration asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Note {
    /// The machine has fewer CPUs.
    CpusClamped { asked: f64, granted: u32 },
    /// The engine's machine cannot set this limit.
    LimitIgnored { key: &'static str },
}

impl Note {
    /// Returns the kind of the event that tells of it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::CpusClamped { .. } => "cpu-limit-clamped",
            Self::LimitIgnored { .. } => "limit-ignored",
        }
    }

    /// Returns the event's facts.
    pub(crate) fn data(&self) -> Value {
        match self {
            Self::CpusClamped { asked, granted } => json!({"asked": asked, "granted": granted}),
            Self::LimitIgnored { key } => json!({"key": key}),
        }
    }
}

impl Specification {
    /// Puts a container together from a configuration that was validated and allowed.
    ///
    /// `config.volumes` is not looked at: what may be mounted is in the additions.
    pub(crate) fn new(config: &Config, facts: &Facts, additions: Additions) -> Self {
        let mut notes = Vec::new();
        let host_config = host_config(config, facts, &additions, &mut notes);
        let env = config.env_vars.iter();
        let body = ContainerCreateBody {
            image: Some(additions.image),
            entrypoint: Some(additions.entrypoint),
            // The image's own would follow the agent's.
            cmd: Some(Vec::new()),
            // The agent is root and becomes the user of each command.
            user: Some("0:0".into()),
            working_dir: Some(config.working_dir.clone()),
            env: Some(env.map(|(name, value)| format!("{name}={value}")).collect()),
            labels: Some(additions.labels),
            tty: Some(false),
            open_stdin: Some(additions.attach),
            // Its end is how the agent hears that its host is gone.
            stdin_once: Some(additions.attach),
            attach_stdin: Some(additions.attach),
            attach_stdout: Some(additions.attach),
            attach_stderr: Some(additions.attach),
            healthcheck: (!config.healthcheck).then(|| HealthConfig {
                test: Some(vec!["NONE".into()]),
                ..HealthConfig::default()
            }),
            exposed_ports: (!config.ports.is_empty())
                .then(|| config.ports.keys().map(ToString::to_string).collect()),
            host_config: Some(host_config),
            ..ContainerCreateBody::default()
        };
        Self { body, notes }
    }
}

fn host_config(
    config: &Config,
    facts: &Facts,
    additions: &Additions,
    notes: &mut Vec<Note>,
) -> HostConfig {
    let memory = config.memory_limit.bytes();
    for (can, key) in [
        (facts.limits.memory, "memory_limit"),
        (facts.limits.cpus, "cpu_limit"),
        (facts.limits.pids, "pids_limit"),
    ] {
        if !can {
            notes.push(Note::LimitIgnored { key });
        }
    }
    HostConfig {
        memory: Some(memory),
        // Both together: no swap on top, which would double the limit.
        memory_swap: Some(memory),
        cpu_period: Some(CPU_PERIOD),
        cpu_quota: Some(cpu_quota(config.cpu_limit, facts.cpus, notes)),
        pids_limit: Some(config.pids_limit.into()),
        storage_opt: config
            .disk_limit
            .map(|size| HashMap::from([("size".into(), size.bytes().to_string())])),
        shm_size: config.shm_size.map(|size| size.bytes()),
        ulimits: (!config.ulimits.is_empty()).then(|| ulimits(config)),
        network_mode: Some(if config.has_network() {
            config.network.clone()
        } else {
            "none".into()
        }),
        port_bindings: (!config.ports.is_empty()).then(|| port_bindings(config)),
        extra_hosts: (!config.extra_hosts.is_empty()).then(|| extra_hosts(config)),
        mounts: (!additions.mounts.is_empty()).then(|| additions.mounts.clone()),
        tmpfs: (!config.tmpfs.is_empty()).then(|| config.tmpfs.clone().into_iter().collect()),
        readonly_rootfs: Some(config.read_only),
        devices: (!config.devices.is_empty()).then(|| devices(config)),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(
            config
                .capabilities
                .of_container()
                .iter()
                .map(ToString::to_string)
                .collect(),
        ),
        security_opt: Some(security_options(config)),
        privileged: Some(config.privileged),
        runtime: config.runtime.clone(),
        init: Some(false),
        // Where it runs on the machine is no business of the sandbox.
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        // What speaks over its standard streams must not be written to a log as well.
        log_config: additions.attach.then(|| HostConfigLogConfig {
            typ: Some("none".into()),
            config: None,
        }),
        auto_remove: Some(false),
        ..HostConfig::default()
    }
}

/// Returns how much of each period the sandbox may run. An engine refuses more than its machine
/// has.
fn cpu_quota(asked: f64, cpus: u32, notes: &mut Vec<Note>) -> i64 {
    let clamped = cpus != 0 && asked > f64::from(cpus);
    let granted = if clamped {
        notes.push(Note::CpusClamped {
            asked,
            granted: cpus,
        });
        f64::from(cpus)
    } else {
        asked
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a cast of a float saturates, and a period is small"
    )]
    let quota = (granted * CPU_PERIOD as f64).round() as i64;
    quota
}

fn ulimits(config: &Config) -> Vec<ResourcesUlimits> {
    let all = config.ulimits.iter();
    all.map(|(name, limit)| ResourcesUlimits {
        name: Some(name.name().into()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    })
    .collect()
}

fn port_bindings(config: &Config) -> HashMap<String, Option<Vec<PortBinding>>> {
    let all = config.ports.iter();
    all.map(|(port, bindings)| {
        let bindings = bindings.iter().map(|place| PortBinding {
            host_ip: Some(place.address.to_string()),
            // Engines take none for any that is free.
            host_port: Some(if place.port == 0 {
                String::new()
            } else {
                place.port.to_string()
            }),
        });
        (port.to_string(), Some(bindings.collect()))
    })
    .collect()
}

fn extra_hosts(config: &Config) -> Vec<String> {
    let all = config.extra_hosts.iter();
    all.map(|(name, address)| format!("{name}:{address}"))
        .collect()
}

fn devices(config: &Config) -> Vec<DeviceMapping> {
    let all = config.devices.iter();
    all.map(|device| DeviceMapping {
        path_on_host: Some(device.host.clone()),
        path_in_container: Some(device.sandbox.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    })
    .collect()
}

fn security_options(config: &Config) -> Vec<String> {
    let mut options = vec!["no-new-privileges".into()];
    match &config.seccomp_profile {
        Seccomp::Default => {}
        Seccomp::Unconfined => options.push("seccomp=unconfined".into()),
        Seccomp::Profile(profile) => {
            options.push(format!("seccomp={}", Value::Object(profile.clone())));
        }
    }
    options
}

/// Makes the mount of a path of the host, which must be there.
pub(crate) fn bind(source: impl Into<String>, target: impl Into<String>, mode: Mode) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.into()),
        target: Some(target.into()),
        read_only: Some(mode == Mode::ReadOnly),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

/// Makes the mount of one of the engine's volumes.
pub(crate) fn volume(name: impl Into<String>, target: impl Into<String>, mode: Mode) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.into()),
        target: Some(target.into()),
        read_only: Some(mode == Mode::ReadOnly),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(body.healthcheck.unwrap().test.unwrap(), ["NONE"]);
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
        assert!(added.contains(&"NET_RAW".into()) && !added.contains(&"CHOWN".into()));
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
}
