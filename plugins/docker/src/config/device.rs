//! A device of the host.

use std::{borrow::Cow, fmt};

use boxyard_plugin_api::prelude::*;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::value::{read_by, shown};

/// A device of the host, where it is in the sandbox, and what may be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) host: String,
    pub(crate) sandbox: String,
    /// Of `r`, `w` and `m`.
    pub(crate) permissions: String,
}

impl Device {
    fn read(value: Value) -> Result<Self, String> {
        let parts: Vec<&str> = value.as_str().unwrap_or("").split(':').collect();
        let (host, sandbox, permissions) = match parts.as_slice() {
            [host] => (*host, *host, "rwm"),
            [host, sandbox] if sandbox.starts_with('/') => (*host, *sandbox, "rwm"),
            [host, permissions] => (*host, *host, *permissions),
            [host, sandbox, permissions] => (*host, *sandbox, *permissions),
            _ => ("", "", ""),
        };
        let allowed = !permissions.is_empty() && permissions.chars().all(|c| "rwm".contains(c));
        let plain = |path: &str| {
            path.starts_with("/dev/") && !path.contains('\0') && !path.split('/').any(|p| p == "..")
        };
        if !plain(host) || !plain(sandbox) || !allowed {
            return Err(format!(
                "expected `/dev/x`, `/dev/x:/dev/y` or `/dev/x:/dev/y:rw`, found {}",
                shown(&value)
            ));
        }
        Ok(Self {
            host: host.into(),
            sandbox: sandbox.into(),
            permissions: permissions.into(),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.host, self.sandbox, self.permissions)
    }
}

read_by!(Device);

impl JsonSchema for Device {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Device".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^/dev/" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_docker_writes_them() {
        for (written, expected) in [
            ("/dev/fuse", "/dev/fuse:/dev/fuse:rwm"),
            ("/dev/fuse:/dev/f", "/dev/fuse:/dev/f:rwm"),
            ("/dev/fuse:r", "/dev/fuse:/dev/fuse:r"),
            ("/dev/fuse:/dev/f:rw", "/dev/fuse:/dev/f:rw"),
        ] {
            let device: Device = serde_json::from_value(json!(written)).unwrap();
            assert_eq!(device.to_string(), expected);
        }
        for wrong in [
            "fuse",
            "/etc/passwd",
            "/dev/../etc",
            "/dev/fuse:x",
            "/dev/a:/dev/b:r:w",
            "",
        ] {
            let error = serde_json::from_value::<Device>(json!(wrong)).unwrap_err();
            assert!(error.to_string().contains("/dev/x"), "{wrong}: {error}");
        }
    }
}
