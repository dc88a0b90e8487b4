//! What the operator sets for all sandboxes.

use std::path::PathBuf;

use boxyard_plugin_api::prelude::*;

use crate::{
    config::{LinuxCapability, wrong},
    engine::Endpoint,
};

/// The plugin's settings: where the engine is, and what configurations may ask for that could
/// reach beyond their sandbox.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The engine's address, in place of what docker's own tools would use.
    pub(crate) host: Option<String>,
    /// Directories of the host that may be mounted, with all that is in them.
    pub(crate) allowed_mounts: Vec<AllowedMount>,
    /// Volumes of the engine that may be mounted.
    pub(crate) allowed_volumes: Vec<String>,
    /// Networks that may be joined beside `bridge` and `none`.
    pub(crate) allowed_networks: Vec<String>,
    /// Capabilities that commands may have beside the documented list.
    pub(crate) allowed_capabilities: Vec<LinuxCapability>,
    /// Runtimes that may be named beside the engine's default.
    pub(crate) allowed_runtimes: Vec<String>,
    /// Devices of the host that may be used; a directory stands for all in it.
    pub(crate) allowed_devices: Vec<PathBuf>,
    /// Whether containers may be privileged.
    pub(crate) allow_privileged: bool,
    /// Whether seccomp may be off, or a profile of the sandbox's own.
    pub(crate) allow_unconfined_seccomp: bool,
    /// Whether a name may stand for the host.
    pub(crate) allow_host_gateway: bool,
    /// Whether ports may be published to other machines.
    pub(crate) allow_public_ports: bool,
}

/// A directory of the host that may be mounted: `/path`, or `/path:ro` for reading alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) struct AllowedMount {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
}

impl From<String> for AllowedMount {
    fn from(text: String) -> Self {
        let (path, read_only) = match text.strip_suffix(":ro") {
            Some(path) => (path, true),
            None => (text.as_str(), false),
        };
        Self {
            path: path.into(),
            read_only,
        }
    }
}

impl Settings {
    /// Reads the operator's settings.
    ///
    /// # Errors
    ///
    /// A key that is unknown or whose value is wrong.
    pub(crate) fn of(plugin: &PluginContext) -> Result<Self> {
        let settings: Self = plugin.settings()?;
        settings.validate()?;
        Ok(settings)
    }

    fn validate(&self) -> Result<()> {
        if let Some(host) = &self.host {
            Endpoint::parse(host).map_err(|error| error.context("plugin settings: host"))?;
        }
        let mounts = self.allowed_mounts.iter().map(|mount| &mount.path);
        for (key, path) in mounts.map(|path| ("allowed_mounts", path)).chain(
            self.allowed_devices
                .iter()
                .map(|path| ("allowed_devices", path)),
        ) {
            if !path.is_absolute() {
                return Err(wrong(
                    format_args!("plugin settings: {key}"),
                    "absolute paths",
                    format_args!("`{}`", path.display()),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: Value) -> Result<Settings> {
        let settings: Settings = serde_json::from_value(settings)?;
        settings.validate()?;
        Ok(settings)
    }

    #[test]
    fn settings_are_read() {
        let settings = read(json!({
            "host": "unix:///run/engine.sock",
            "allowed_mounts": ["/data", "/models:ro"],
            "allowed_capabilities": ["NET_RAW"],
            "allow_public_ports": true,
        }))
        .unwrap();
        assert_eq!(
            settings.allowed_mounts,
            [
                AllowedMount {
                    path: "/data".into(),
                    read_only: false
                },
                AllowedMount {
                    path: "/models".into(),
                    read_only: true
                },
            ]
        );
        assert!(settings.allow_public_ports && !settings.allow_privileged);
        read(json!({})).unwrap();
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (settings, named) in [
            (json!({"allow_privilege": true}), "allow_privilege"),
            (json!({"host": "ssh://there"}), "host: `ssh://there`"),
            (json!({"allowed_mounts": ["data"]}), "allowed_mounts"),
            (json!({"allowed_devices": ["fuse"]}), "allowed_devices"),
            (json!({"allowed_capabilities": ["ROOT"]}), "ROOT"),
        ] {
            let error = read(settings.clone()).unwrap_err();
            assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT);
            assert!(error.message().contains(named), "{settings}: {error}");
        }
    }

    #[test]
    fn every_setting_is_documented() {
        // serde names them all where it finds none of them.
        let error = read(json!({"?": 1})).unwrap_err();
        let (_, names) = error.message().split_once("expected one of").unwrap();
        let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            let row = format!("\n| `{name}` |");
            assert!(include_str!("../README.md").contains(&row), "{name}");
        }
    }
}
