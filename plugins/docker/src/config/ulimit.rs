//! Limits of processes, as engines set them.

use std::borrow::Cow;

use boxyard_plugin_api::prelude::*;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::value::{read_by, shown};

/// Those that would let a sandbox outrank the host's own processes are left out.
const NAMES: [&str; 13] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nofile",
    "nproc",
    "rss",
    "rttime",
    "sigpending",
    "stack",
];

/// The name of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UlimitName(&'static str);

impl UlimitName {
    pub(crate) fn name(self) -> &'static str {
        self.0
    }

    fn read(value: Value) -> Result<Self, String> {
        let text = value.as_str().unwrap_or("");
        let known = NAMES.into_iter().find(|known| *known == text);
        known.map(Self).ok_or_else(|| {
            format!(
                "expected one of {}, found {}",
                NAMES.join(", "),
                shown(&value)
            )
        })
    }
}

read_by!(UlimitName);

impl JsonSchema for UlimitName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "UlimitName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": format!("^({})$", NAMES.join("|")) })
    }
}

/// A limit: one number, or `soft` and `hard`; -1 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ulimit {
    pub(crate) soft: i64,
    pub(crate) hard: i64,
}

impl Ulimit {
    fn read(value: Value) -> Result<Self, String> {
        let read = match &value {
            Value::Number(both) => both.as_i64().map(|both| (both, both)),
            Value::Object(object) if object.len() == 2 => {
                let number = |key| object.get(key).and_then(Value::as_i64);
                number("soft").zip(number("hard"))
            }
            _ => None,
        };
        let fits = |(soft, hard): &(i64, i64)| {
            *soft >= -1 && *hard >= -1 && (*hard == -1 || (*soft != -1 && soft <= hard))
        };
        match read.filter(fits) {
            Some((soft, hard)) => Ok(Self { soft, hard }),
            None => Err(format!(
                "expected a number, or `soft` and a `hard` that is no lower; -1 for no limit; \
                 found {}",
                shown(&value)
            )),
        }
    }
}

read_by!(Ulimit);

impl JsonSchema for Ulimit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Ulimit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "object"],
            "minimum": -1,
            "properties": {
                "soft": { "type": "integer", "minimum": -1 },
                "hard": { "type": "integer", "minimum": -1 },
            },
            "required": ["soft", "hard"],
            "additionalProperties": false,
        })
    }
}
