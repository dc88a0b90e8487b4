//! What an engine says of itself and its machine.

use std::collections::BTreeSet;

use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum, SystemVersion};
use boxyard_plugin_api::prelude::*;

/// Whose engine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Docker's own, or one that passes for it.
    Docker,
    /// Podman's compatible socket.
    Podman,
}

/// How the engine's machine limits what containers use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CgroupVersion {
    /// A hierarchy for each resource.
    V1,
    /// One hierarchy.
    V2,
    /// The engine does not say.
    Unknown,
}

/// What decides how a container is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Facts {
    pub(crate) kind: Kind,
    /// The engine's version.
    pub(crate) version: String,
    /// The newest version of the API that it speaks.
    pub(crate) api_version: String,
    pub(crate) operating_system: String,
    /// `linux`, or what else its containers run on.
    pub(crate) os: String,
    /// As image platforms spell it: `amd64`, `arm64`.
    pub(crate) arch: String,
    pub(crate) cgroup: CgroupVersion,
    /// How many CPUs its machine has; 0 where it does not say.
    pub(crate) cpus: u32,
    /// How much memory its machine has, in bytes; 0 where it does not say.
    pub(crate) memory: u64,
    pub(crate) storage_driver: String,
    /// Where it keeps images and containers.
    pub(crate) root_dir: String,
    pub(crate) default_runtime: String,
    pub(crate) runtimes: BTreeSet<String>,
    /// Whether it runs without root's rights.
    pub(crate) rootless: bool,
    /// Whether root of a container is somebody else on its machine.
    pub(crate) user_namespaces: bool,
    pub(crate) seccomp: bool,
    /// Whether it can limit memory, swap, CPUs and processes.
    pub(crate) limits: Limits,
}

/// Which limits the engine's machine can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Limits {
    pub(crate) memory: bool,
    pub(crate) swap: bool,
    pub(crate) cpus: bool,
    pub(crate) pids: bool,
}

impl Limits {
    /// Returns the configuration's keys that do nothing on this machine.
    pub(crate) fn ignored(&self) -> impl Iterator<Item = &'static str> {
        let keys = [
            (self.memory, "memory_limit"),
            (self.cpus, "cpu_limit"),
            (self.pids, "pids_limit"),
        ];
        keys.into_iter()
            .filter_map(|(can, key)| (!can).then_some(key))
    }
}

impl Facts {
    pub(super) fn new(version: &SystemVersion, info: &SystemInfo) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        // What an engine leaves out is not lacking.
        let can = |said: Option<bool>| said.unwrap_or(true);
        let components = version.components.as_deref().unwrap_or_default();
        let is_podman = components
            .iter()
            .any(|component| component.name.starts_with("Podman"));
        let security = info.security_options.as_deref().unwrap_or_default();
        let security = |name: &str| {
            let options = security.iter().flat_map(|option| option.split(','));
            options
                .into_iter()
                .any(|part| part == format!("name={name}"))
        };
        let runtimes = info.runtimes.as_ref();
        Self {
            kind: if is_podman {
                Kind::Podman
            } else {
                Kind::Docker
            },
            version: text(&version.version),
            api_version: text(&version.api_version),
            operating_system: text(&info.operating_system),
            os: text(&version.os),
            arch: text(&version.arch),
            cgroup: match info.cgroup_version {
                Some(SystemInfoCgroupVersionEnum::_1) => CgroupVersion::V1,
                Some(SystemInfoCgroupVersionEnum::_2) => CgroupVersion::V2,
                _ => CgroupVersion::Unknown,
            },
            cpus: info.ncpu.and_then(|n| n.try_into().ok()).unwrap_or(0),
            memory: info.mem_total.and_then(|n| n.try_into().ok()).unwrap_or(0),
            storage_driver: text(&info.driver),
            root_dir: text(&info.docker_root_dir),
            default_runtime: text(&info.default_runtime),
            runtimes: runtimes
                .into_iter()
                .flat_map(|runtimes| runtimes.keys().cloned())
                .collect(),
            rootless: security("rootless"),
            user_namespaces: security("userns") || security("rootless"),
            seccomp: security("seccomp"),
            limits: Limits {
                memory: can(info.memory_limit),
                swap: can(info.swap_limit),
                cpus: can(info.cpu_cfs_quota),
                pids: can(info.pids_limit),
            },
        }
    }

    /// Returns the facts of an ordinary engine.
    #[cfg(test)]
    pub(crate) fn ordinary() -> Self {
        Self {
            kind: Kind::Docker,
            version: "20.10.24".into(),
            api_version: "1.41".into(),
            operating_system: "Linux".into(),
            os: "linux".into(),
            arch: "amd64".into(),
            cgroup: CgroupVersion::V2,
            cpus: 4,
            memory: 8 << 30,
            storage_driver: "overlay2".into(),
            root_dir: "/var/lib/docker".into(),
            default_runtime: "runc".into(),
            runtimes: ["runc".into(), "runsc".into()].into(),
            rootless: false,
            user_namespaces: false,
            seccomp: true,
            limits: Limits {
                memory: true,
                swap: true,
                cpus: true,
                pids: true,
            },
        }
    }
}
