//! Which system calls the sandbox has.

use std::borrow::Cow;

use boxyard_plugin_api::prelude::*;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::value::{read_by, shown};

/// A seccomp profile.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seccomp {
    /// The engine's own.
    Default,
    /// None: every system call.
    Unconfined,
    /// A profile as docker's documentation describes them.
    Profile(serde_json::Map<String, Value>),
}

impl Seccomp {
    fn read(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) if text == "default" => Ok(Self::Default),
            Value::String(text) if text == "unconfined" => Ok(Self::Unconfined),
            Value::Object(profile) => Ok(Self::Profile(profile)),
            other => Err(format!(
                "expected `default`, `unconfined` or a profile, found {}",
                shown(&other)
            )),
        }
    }
}

read_by!(Seccomp);

/// As it is written, so that the default is shown.
impl Serialize for Seccomp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_str("default"),
            Self::Unconfined => serializer.serialize_str("unconfined"),
            Self::Profile(profile) => profile.serialize(serializer),
        }
    }
}

impl JsonSchema for Seccomp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Seccomp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "object"],
            "pattern": "^(default|unconfined)$",
        })
    }
}
