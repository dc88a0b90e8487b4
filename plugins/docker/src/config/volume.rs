//! Where something of the host is in the sandbox.

use std::borrow::Cow;

use boxyard_plugin_api::prelude::*;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::value::{read_by, shown};

/// Whether the sandbox may write to a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    ReadOnly,
    ReadWrite,
}

/// A mount point in the sandbox: `/path`, `/path:ro`, or an object of `bind` and `mode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    bind: String,
    mode: Mode,
}

impl Volume {
    /// Returns the path in the sandbox.
    pub(crate) fn bind(&self) -> &str {
        &self.bind
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    fn read(value: Value) -> Result<Self, String> {
        let (bind, mode) = match &value {
            Value::String(text) => match text.split_once(':') {
                Some((bind, mode)) => (Some(bind), Some(mode)),
                None => (Some(text.as_str()), None),
            },
            Value::Object(object) => {
                let known = object.keys().all(|key| key == "bind" || key == "mode");
                let bind = object.get("bind").and_then(Value::as_str).filter(|_| known);
                (
                    bind,
                    object.get("mode").map(|mode| mode.as_str().unwrap_or("")),
                )
            }
            _ => (None, None),
        };
        let mode = match mode {
            None | Some("rw") => Some(Mode::ReadWrite),
            Some("ro") => Some(Mode::ReadOnly),
            Some(_) => None,
        };
        match (bind, mode) {
            (Some(bind), Some(mode)) => Ok(Self {
                bind: bind.into(),
                mode,
            }),
            _ => Err(format!(
                "expected `/path`, `/path:ro`, or an object of `bind` and `mode` (`ro` or `rw`), \
                 found {}",
                shown(&value)
            )),
        }
    }
}

read_by!(Volume);

impl JsonSchema for Volume {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Volume".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "object"],
            "pattern": "^/[^:]*(:(ro|rw))?$",
            "properties": {
                "bind": { "type": "string", "pattern": "^/" },
                "mode": { "enum": ["ro", "rw"] },
            },
            "required": ["bind"],
            "additionalProperties": false,
        })
    }
}
