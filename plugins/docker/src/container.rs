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
    /// Whether the image has a HEALTHCHECK.
    pub(crate) healthcheck: bool,
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
            // Engines may set up even a check that does nothing.
            healthcheck: (additions.healthcheck && !config.healthcheck).then(|| HealthConfig {
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
    let ignored = facts.limits.ignored();
    notes.extend(ignored.map(|key| Note::LimitIgnored { key }));
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
mod tests;
