//! Whether a configuration asks for more than the operator allows, or than the engine has.
//!
//! Everything that could reach beyond the sandbox is refused here unless a setting allows it. So is
//! what an engine would pass over in silence.

mod mounts;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use bollard::models::Mount;
use boxyard_plugin_api::prelude::*;

use crate::{
    config::{COMMAND_CAPABILITIES, Config, Device, HOST_GATEWAY, Seccomp},
    engine::{Endpoint, Facts, Kind},
    settings::Settings,
};

/// The networks that anybody may join: the engine's own bridge, by both its names, and none.
const HARMLESS_NETWORKS: [&str; 3] = ["bridge", "default", "none"];

/// What a configuration may mount, each path with its links resolved: nothing else is given to
/// the engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Allowed {
    pub(crate) mounts: Vec<Mount>,
}

impl Allowed {
    /// Checks that what was allowed before is allowed, and that its paths lead where they led.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::PERMISSION_DENIED`] naming a path that leads elsewhere.
    pub(crate) fn is_still(&self, before: &Self) -> Result<()> {
        if self == before {
            return Ok(());
        }
        let mut mounts = before.mounts.iter();
        let changed = mounts.find(|mount| !self.mounts.contains(mount));
        let source = changed.and_then(|mount| mount.source.as_deref());
        Err(Error::permission_denied(format_args!(
            "volumes: {} was replaced while it was being mounted",
            source.unwrap_or("a path")
        )))
    }
}

/// Checks a configuration that was validated.
///
/// # Errors
///
/// [`ErrorCode::PERMISSION_DENIED`] naming the key, its value and the setting that would allow it,
/// in the details as well; a mount that is allowed and not there; what the engine does not have.
pub(crate) fn check(
    settings: &Settings,
    config: &Config,
    endpoint: &Endpoint,
    facts: &Facts,
) -> Result<Allowed> {
    if config.privileged && !settings.allow_privileged {
        return Err(refused("privileged", true, "allow_privileged = true"));
    }
    check_network(settings, config)?;
    for capability in config.capabilities.added() {
        let allowed = COMMAND_CAPABILITIES.contains(&capability)
            || settings.allowed_capabilities.contains(&capability);
        if !allowed {
            return Err(refused(
                "capabilities.add",
                capability,
                format_args!("allowed_capabilities = [\"{capability}\"]"),
            ));
        }
    }
    let seccomp = match &config.seccomp_profile {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("unconfined"),
        Seccomp::Profile(_) => Some("a profile of its own"),
    };
    if let Some(profile) = seccomp.filter(|_| !settings.allow_unconfined_seccomp) {
        return Err(refused(
            "seccomp_profile",
            profile,
            "allow_unconfined_seccomp = true",
        ));
    }
    if let Some(runtime) = &config.runtime
        && *runtime != facts.default_runtime
        && !settings.allowed_runtimes.contains(runtime)
    {
        return Err(refused(
            "runtime",
            runtime,
            format_args!("allowed_runtimes = [{runtime:?}]"),
        ));
    }
    for device in &config.devices {
        check_device(settings, device, endpoint)?;
    }
    check_engine(config, facts)?;
    Ok(Allowed {
        mounts: mounts::check(settings, config, endpoint, facts)?,
    })
}

fn check_engine(config: &Config, facts: &Facts) -> Result<()> {
    if let Some(runtime) = &config.runtime
        && *runtime != facts.default_runtime
    {
        if facts.kind == Kind::Podman {
            return Err(Error::failed_precondition(format_args!(
                "runtime: Podman's socket takes its runtime ({}) from its own configuration, not \
                 {runtime}",
                facts.default_runtime
            )));
        }
        // With a dot it is the name of a shim, which engines do not list.
        if !facts.runtimes.contains(runtime) && !runtime.contains('.') {
            let known: Vec<&str> = facts.runtimes.iter().map(String::as_str).collect();
            return Err(Error::failed_precondition(format_args!(
                "runtime: the engine has no {runtime}; it has {}",
                known.join(", ")
            )));
        }
    }
    if facts.kind == Kind::Podman && matches!(config.seccomp_profile, Seccomp::Profile(_)) {
        return Err(Error::failed_precondition(
            "seccomp_profile: Podman's socket takes no profile, only `default` and `unconfined`",
        ));
    }
    let mut hosts = config.extra_hosts.iter();
    if facts.kind == Kind::Podman
        && let Some((name, _)) = hosts.find(|(_, address)| *address == HOST_GATEWAY)
    {
        // It would write the very word where the address belongs.
        return Err(Error::failed_precondition(format_args!(
            "extra_hosts.{name}: Podman's socket does not know `{HOST_GATEWAY}`, and calls the \
             host `host.containers.internal` by itself"
        )));
    }
    Ok(())
}

fn check_network(settings: &Settings, config: &Config) -> Result<()> {
    let network = &config.network;
    if config.has_network()
        && !HARMLESS_NETWORKS.contains(&network.as_str())
        && !settings.allowed_networks.contains(network)
    {
        return Err(refused(
            "network",
            network,
            format_args!("allowed_networks = [{network:?}]"),
        ));
    }
    for (name, address) in &config.extra_hosts {
        if address == HOST_GATEWAY && !settings.allow_host_gateway {
            return Err(refused(
                format_args!("extra_hosts.{name}"),
                address,
                "allow_host_gateway = true",
            ));
        }
    }
    for (port, bindings) in &config.ports {
        let public = bindings.iter().find(|place| !place.address.is_loopback());
        if let Some(place) = public.filter(|_| !settings.allow_public_ports) {
            return Err(refused(
                format_args!("ports.{port}"),
                place.address,
                "allow_public_ports = true",
            ));
        }
    }
    Ok(())
}

fn check_device(settings: &Settings, device: &Device, endpoint: &Endpoint) -> Result<()> {
    // A link in `/dev` is what it leads to. Links of another machine cannot be looked at.
    let real = |path: &Path| -> PathBuf {
        let resolved = endpoint.is_local().then(|| path.canonicalize().ok());
        resolved.flatten().unwrap_or_else(|| path.into())
    };
    let found = real(Path::new(&device.host));
    let mut allowed = settings.allowed_devices.iter();
    if allowed.any(|allowed| found.starts_with(real(allowed))) {
        return Ok(());
    }
    Err(refused(
        "devices",
        device,
        format_args!("allowed_devices = [{:?}]", device.host),
    ))
}

fn refused(key: impl fmt::Display, value: impl fmt::Display, setting: impl fmt::Display) -> Error {
    Error::permission_denied(format_args!(
        "{key}: {value} is not allowed here; the operator's plugin settings could allow it with \
         `{setting}`"
    ))
    .with_details(json!({
        "key": key.to_string(),
        "value": value.to_string(),
        "setting": setting.to_string(),
    }))
}

#[cfg(test)]
mod tests;
