//! What a user may set for one sandbox.

mod capability;
mod device;
mod platform;
mod port;
mod seccomp;
mod size;
mod ulimit;
mod value;
mod volume;
mod words;

use std::{collections::BTreeMap, time::Duration};

use boxyard_plugin_api::prelude::*;

use crate::link::Transport;

pub(crate) use self::{
    capability::{COMMAND_CAPABILITIES, Capabilities, LinuxCapability},
    device::Device,
    platform::Platform,
    port::{Bindings, ContainerPort},
    seccomp::Seccomp,
    size::Size,
    ulimit::{Ulimit, UlimitName},
    volume::{Mode, Volume},
    words::Words,
};

/// The configuration of one sandbox.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The image that the container is made from.
    #[schemars(length(min = 1))]
    pub(crate) image: String,
    /// When the image is pulled: `missing` if the engine has none of that name, `always`, `never`.
    pub(crate) pull_policy: PullPolicy,
    /// The image's platform, such as `linux/arm64`; the engine's own without it.
    pub(crate) platform: Option<Platform>,
    /// A program to run beside the commands: a list, or a string for `sh -c`. It takes the place
    /// of the image's CMD and follows its ENTRYPOINT.
    pub(crate) command: Option<Words>,
    /// What takes the place of the image's ENTRYPOINT: a list, or a string for `sh -c`.
    pub(crate) entrypoint: Option<Words>,
    /// Whether the image's own ENTRYPOINT and CMD run beside the commands.
    pub(crate) run_image_command: bool,
    /// Where commands run; made if the image has it not.
    #[schemars(regex(pattern = "^/"))]
    pub(crate) working_dir: String,
    /// The sandbox's environment variables, on top of the image's.
    #[schemars(extend("writeOnly" = true))]
    pub(crate) env_vars: BTreeMap<String, String>,
    /// Who commands run as: a name, a uid or `uid:gid`; the image's user without it.
    pub(crate) user: Option<String>,
    /// How many seconds a command may run when it does not say so itself; for ever without it.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(crate) timeout: Option<f64>,
    /// How much memory the sandbox may use, swap included: `512m`, `4g`, or a number of bytes.
    pub(crate) memory_limit: Size,
    /// How many CPUs the sandbox may use, in parts too; no more than the machine has.
    #[schemars(range(min = 0.01))]
    pub(crate) cpu_limit: f64,
    /// How many processes and threads the sandbox may have.
    #[schemars(range(min = 1))]
    pub(crate) pids_limit: u32,
    /// How large the container's own files may grow, where the engine's storage can limit it.
    pub(crate) disk_limit: Option<Size>,
    /// How large `/dev/shm` may grow; 64 MiB without it.
    pub(crate) shm_size: Option<Size>,
    /// `setrlimit` limits of the container's processes by name: a number, or `soft` and `hard`.
    pub(crate) ulimits: BTreeMap<UlimitName, Ulimit>,
    /// Whether the sandbox has a network.
    pub(crate) network_enabled: bool,
    /// The engine's network that it joins.
    #[schemars(length(min = 1))]
    pub(crate) network: String,
    /// Ports of the container (`8080`, `53/udp`) and where they are published: a port, an
    /// `address:port`, an `[address, port]`, a list of those, or null for any free port. Without
    /// an address that is 127.0.0.1.
    pub(crate) ports: BTreeMap<ContainerPort, Bindings>,
    /// Names that the sandbox knows, and their addresses.
    pub(crate) extra_hosts: BTreeMap<String, String>,
    /// Directories of the host (absolute paths) or volumes of the engine (names), and where they
    /// are in the sandbox: `/path`, `/path:ro`, or `bind` and `mode`.
    pub(crate) volumes: BTreeMap<String, Volume>,
    /// Paths of the sandbox that are kept in memory, and their mount options (`size=64m`).
    pub(crate) tmpfs: BTreeMap<String, String>,
    /// Whether the container's own files cannot be changed; `tmpfs` and `volumes` can.
    pub(crate) read_only: bool,
    /// Devices of the host: `/dev/x`, `/dev/x:/dev/y`, `/dev/x:/dev/y:rw`.
    pub(crate) devices: Vec<Device>,
    /// What commands may do beside or less than the documented list.
    pub(crate) capabilities: Capabilities,
    /// Which system calls there are: `default` for the engine's profile, `unconfined`, or a
    /// profile itself.
    pub(crate) seccomp_profile: Seccomp,
    /// Whether the container has every right of the host's root.
    pub(crate) privileged: bool,
    /// The engine's runtime that runs the container, such as `runsc`; the engine's default
    /// without it.
    pub(crate) runtime: Option<String>,
    /// Whether the engine runs the image's HEALTHCHECK.
    pub(crate) healthcheck: bool,
    /// How many seconds what runs beside the commands has to end by itself, after SIGTERM, when
    /// the sandbox stops.
    #[schemars(range(min = 0, max = MOST_STOP_TIMEOUT))]
    pub(crate) stop_timeout: f64,
    /// How the host speaks to the sandbox: over a `socket` that is mounted into it, or by the
    /// engine's `attach`; the first that works without it.
    pub(crate) transport: Option<Transport>,
    /// Whether the container goes with the sandbox. One that stays is stopped, and yours to
    /// remove.
    pub(crate) remove_on_exit: bool,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PullPolicy {
    /// Each time.
    Always,
    /// When the engine has no image of that name and platform.
    #[default]
    Missing,
    /// Not at all.
    Never,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image: "python:3.11-slim".into(),
            pull_policy: PullPolicy::default(),
            platform: None,
            command: None,
            entrypoint: None,
            run_image_command: false,
            working_dir: "/sandbox".into(),
            env_vars: BTreeMap::new(),
            user: None,
            timeout: None,
            memory_limit: Size::gib(4),
            cpu_limit: 2.0,
            pids_limit: 1024,
            disk_limit: None,
            shm_size: None,
            ulimits: BTreeMap::new(),
            network_enabled: true,
            network: "bridge".into(),
            ports: BTreeMap::new(),
            extra_hosts: BTreeMap::new(),
            volumes: BTreeMap::new(),
            tmpfs: BTreeMap::new(),
            read_only: false,
            devices: Vec::new(),
            capabilities: Capabilities::default(),
            seccomp_profile: Seccomp::Default,
            privileged: false,
            runtime: None,
            healthcheck: false,
            stop_timeout: 0.0,
            transport: None,
            remove_on_exit: true,
        }
    }
}

/// Engines refuse less: a container could not even start.
const LEAST_MEMORY: Size = Size::mib(6);

/// The host gives a stop 30 s unless its operator says otherwise, and the rest of it has to fit in
/// too. Where the operator gives less, the call's own deadline cuts it short.
const MOST_STOP_TIMEOUT: f64 = 25.0;

impl Config {
    /// Checks what the schema cannot say.
    pub(crate) fn validate(&self) -> Result<()> {
        check_image(&self.image)?;
        check_path("working_dir", &self.working_dir)?;
        for (name, value) in &self.env_vars {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(wrong(
                    "env_vars",
                    "a name without `=` and NUL bytes",
                    format_args!("{name:?}"),
                ));
            }
            if let Some(nul) = value.find('\0') {
                return Err(wrong(
                    format_args!("env_vars.{name}"),
                    "a value without NUL bytes",
                    format_args!("one at byte {nul}"),
                ));
            }
        }
        if let Some(user) = &self.user {
            check_word("user", "a name, a uid or `uid:gid`", user)?;
        }
        self.timeout()?;
        self.stop_timeout()?;
        for (key, size) in [
            ("memory_limit", Some(self.memory_limit)),
            ("disk_limit", self.disk_limit),
        ] {
            if let Some(size) = size.filter(|size| *size < LEAST_MEMORY) {
                return Err(wrong(key, format_args!("at least {LEAST_MEMORY}"), size));
            }
        }
        if !(self.cpu_limit.is_finite() && self.cpu_limit >= 0.01) {
            return Err(wrong("cpu_limit", "a number from 0.01", self.cpu_limit));
        }
        if self.pids_limit == 0 {
            return Err(wrong("pids_limit", "a number from 1", 0));
        }
        self.validate_network()?;
        for (source, volume) in &self.volumes {
            let key = || format!("volumes.{source}");
            if source.starts_with('/') {
                check_path(key(), source)?;
            } else {
                check_word(key(), "an absolute path or the name of a volume", source)?;
            }
            check_mount_point(key(), volume.bind())?;
        }
        for path in self.tmpfs.keys() {
            check_mount_point("tmpfs", path)?;
        }
        if let Some(runtime) = &self.runtime {
            check_word("runtime", "the name of a runtime", runtime)?;
        }
        for words in [("command", &self.command), ("entrypoint", &self.entrypoint)] {
            if let (key, Some(words)) = words {
                words.validate(key)?;
            }
        }
        Ok(())
    }

    fn validate_network(&self) -> Result<()> {
        check_word("network", "the name of a network", &self.network)?;
        if !self.has_network() && !self.ports.is_empty() {
            return Err(wrong(
                "ports",
                "none where the sandbox has no network",
                self.ports.len(),
            ));
        }
        for (name, address) in &self.extra_hosts {
            check_word("extra_hosts", "names", name)?;
            let is_address = address.parse::<std::net::IpAddr>().is_ok();
            if !is_address && address != HOST_GATEWAY {
                return Err(wrong(
                    format_args!("extra_hosts.{name}"),
                    format_args!("an IP address or `{HOST_GATEWAY}`"),
                    format_args!("`{address}`"),
                ));
            }
        }
        Ok(())
    }

    /// Returns whether the sandbox has a network.
    pub(crate) fn has_network(&self) -> bool {
        self.network_enabled && self.network != "none"
    }

    /// Returns how long a command may run that does not say so itself.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>> {
        let Some(seconds) = self.timeout else {
            return Ok(None);
        };
        match Duration::try_from_secs_f64(seconds) {
            Ok(timeout) if !timeout.is_zero() => Ok(Some(timeout)),
            _ => Err(wrong("timeout", "a number of seconds above 0", seconds)),
        }
    }

    /// Returns how long what runs beside the commands has to end by itself.
    pub(crate) fn stop_timeout(&self) -> Result<Duration> {
        let seconds = self.stop_timeout;
        match Duration::try_from_secs_f64(seconds) {
            Ok(patience) if seconds <= MOST_STOP_TIMEOUT => Ok(patience),
            _ => Err(wrong(
                "stop_timeout",
                format_args!("a number of seconds from 0 to {MOST_STOP_TIMEOUT}"),
                seconds,
            )),
        }
    }

    /// Returns what runs beside the commands, put together as engines do, or `None` where that
    /// was not asked for or the image has nothing to run.
    pub(crate) fn own_command(
        &self,
        image_entrypoint: &[String],
        image_command: &[String],
    ) -> Option<Vec<String>> {
        let asked = self.run_image_command || self.command.is_some() || self.entrypoint.is_some();
        if !asked {
            return None;
        }
        let (mut argv, image_command) = match &self.entrypoint {
            // Arguments that were meant for another program.
            Some(entrypoint) => (entrypoint.to_argv(), &[][..]),
            None => (image_entrypoint.to_vec(), image_command),
        };
        match &self.command {
            Some(command) => argv.extend(command.to_argv()),
            None => argv.extend_from_slice(image_command),
        }
        Some(argv).filter(|argv| !argv.is_empty())
    }
}

/// The word in `extra_hosts` that stands for the engine's machine.
pub(crate) const HOST_GATEWAY: &str = "host-gateway";

/// Makes the error of a value that is not what its key takes.
pub(crate) fn wrong(
    key: impl std::fmt::Display,
    expected: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> Error {
    Error::invalid_argument(format_args!("{key}: expected {expected}, found {found}"))
}

fn check_image(image: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c);
    let starts = image.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    if starts && image.chars().all(plain) {
        return Ok(());
    }
    Err(wrong(
        "image",
        "a name such as `python:3.11-slim` or `registry:5000/name@sha256:…`",
        format_args!("{image:?}"),
    ))
}

fn check_path(key: impl std::fmt::Display, path: &str) -> Result<()> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(());
    }
    Err(wrong(key, "an absolute path", format_args!("{path:?}")))
}

/// A mount hides what is below it: nothing may hide the whole container.
fn check_mount_point(key: impl std::fmt::Display, path: &str) -> Result<()> {
    let mut parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    if path.starts_with('/')
        && !path.contains(['\0', ':'])
        && !path.split('/').any(|part| part == "..")
        && parts.next().is_some()
    {
        return Ok(());
    }
    Err(wrong(
        key,
        "an absolute path of the sandbox below `/`, without `..` and `:`",
        format_args!("{path:?}"),
    ))
}

fn check_word(key: impl std::fmt::Display, expected: &str, word: &str) -> Result<()> {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    if word.is_empty() || word.contains(odd) {
        return Err(wrong(key, expected, format_args!("{word:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
