//! A program to run, as a list or as a line.

use std::borrow::Cow;

use boxyard_plugin_api::prelude::*;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::{
    value::{read_by, shown},
    wrong,
};

/// A list is an argv, run as it is; a string is a line for `sh -c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    Line(String),
    Argv(Vec<String>),
}

impl Words {
    /// Returns the words that are run.
    pub(crate) fn to_argv(&self) -> Vec<String> {
        match self {
            Self::Line(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
            Self::Argv(argv) => argv.clone(),
        }
    }

    pub(super) fn validate(&self, key: &str) -> Result<()> {
        let argv = self.to_argv();
        if argv.is_empty() {
            return Err(wrong(key, "at least one word", "an empty list"));
        }
        match argv.iter().find(|word| word.contains('\0')) {
            None => Ok(()),
            Some(word) => Err(wrong(
                key,
                "words without NUL bytes",
                format_args!("{word:?}"),
            )),
        }
    }

    fn read(value: Value) -> Result<Self, String> {
        let words = match &value {
            Value::String(line) => Some(Self::Line(line.clone())),
            Value::Array(words) => {
                let words = words.iter().map(|word| word.as_str().map(str::to_owned));
                words.collect::<Option<_>>().map(Self::Argv)
            }
            _ => None,
        };
        words.ok_or_else(|| {
            format!(
                "expected a string or a list of strings, found {}",
                shown(&value)
            )
        })
    }
}

read_by!(Words);

impl JsonSchema for Words {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Words".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "array"],
            "items": { "type": "string" },
        })
    }
}
