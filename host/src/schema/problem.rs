//! Mistakes in a document, named for whoever wrote it.

use std::fmt;

use jsonschema::{ValidationError, error::ValidationErrorKind};
use serde_json::Value;

use super::{Schema, object_schema, property, secrets::Place, unescaped};
use crate::spelling::nearest;

/// One mistake in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as `a.b.0`; empty for the whole document.
    pub field: String,
    /// What is expected there, and what was found.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "`{}`: {}", self.field, self.message)
        }
    }
}

impl Schema {
    /// Names a mistake in a document, without telling a secret.
    pub(super) fn problem(&self, value: &Value, error: &ValidationError<'_>) -> Problem {
        let pointer = error.instance_path().to_string();
        let field = dotted(&pointer);
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known = self.keys_at(&pointer);
                let name = unexpected.first().cloned().unwrap_or_default();
                let message = match nearest(&name, &known) {
                    Some(near) => format!("unknown key; did you mean `{near}`?"),
                    None if known.is_empty() => "unknown key; none is expected here".into(),
                    None => format!("unknown key; expected one of {}", known.join(", ")),
                };
                Problem {
                    field: join(&field, &name),
                    message,
                }
            }
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                Problem {
                    field: join(&field, name),
                    message: "missing, and it has no default".into(),
                }
            }
            _ if Place::root(&self.document).may_tell(value, &pointer) => Problem {
                field,
                message: error.to_string(),
            },
            _ => Problem {
                field,
                message: error.masked_with("the value").to_string(),
            },
        }
    }

    /// Returns the keys that the schema knows for the object at a JSON pointer.
    fn keys_at(&self, pointer: &str) -> Vec<String> {
        let mut schema = &self.document;
        for step in pointer.split('/').skip(1) {
            schema = property(schema, step);
        }
        let properties = object_schema(schema)
            .get("properties")
            .and_then(Value::as_object);
        properties
            .map(|properties| properties.keys().cloned().collect())
            .unwrap_or_default()
    }
}

fn dotted(pointer: &str) -> String {
    unescaped(&pointer.trim_start_matches('/').replace('/', "."))
}

fn join(field: &str, name: &str) -> String {
    if field.is_empty() {
        name.into()
    } else {
        format!("{field}.{name}")
    }
}
