//! JSON documents against their schema: defaults filled in, mistakes named.

mod problem;
mod secrets;

use std::{fmt, sync::OnceLock};

use jsonschema::Validator;
use serde_json::Value;

use secrets::Place;

pub use problem::Problem;

/// A JSON Schema that is compiled when it is first needed.
pub(crate) struct Schema {
    document: Value,
    validator: OnceLock<Result<Validator, String>>,
}

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The schema itself is wrong: the plugin's fault.
    #[error("the schema for the {what} is no JSON Schema: {message}")]
    Schema {
        /// Whose schema it is.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// The document does not fit.
    #[error("wrong {what}: {}", list(problems))]
    Document {
        /// What the document is.
        what: String,
        /// Everything that does not fit.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl Schema {
    pub(crate) fn new(document: Value) -> Self {
        Self {
            document,
            validator: OnceLock::new(),
        }
    }

    /// Fills in the defaults of a document and checks it; `what` names it in errors.
    pub(crate) fn check(&self, what: &str, mut value: Value) -> Result<Value, SchemaError> {
        let validator = self.validator.get_or_init(|| {
            jsonschema::validator_for(&self.document).map_err(|error| error.to_string())
        });
        let validator = validator.as_ref().map_err(|message| SchemaError::Schema {
            what: what.into(),
            message: message.clone(),
        })?;
        fill_defaults(&self.document, &mut value);
        let problems: Vec<Problem> = validator
            .iter_errors(&value)
            .map(|error| self.problem(&value, &error))
            .collect();
        if problems.is_empty() {
            Ok(value)
        } else {
            Err(SchemaError::Document {
                what: what.into(),
                problems,
            })
        }
    }

    /// Hides what a document has that nobody is shown; of secret objects the names are.
    pub(crate) fn hide_secrets(&self, document: &mut Value) {
        Place::root(&self.document).hide(document);
    }

    /// Returns whether the schema takes nothing but text at a dotted path.
    pub(crate) fn is_text_at(&self, path: &[&str]) -> bool {
        let schema = path
            .iter()
            .fold(&self.document, |schema, step| property(schema, step));
        match schema.get("type") {
            Some(Value::String(name)) => name == "string",
            Some(Value::Array(names)) => names
                .iter()
                .all(|name| matches!(name.as_str(), Some("string" | "null"))),
            _ => false,
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.document)
    }
}

/// Follows one step into a schema: a property, or what additional ones must be.
fn property<'a>(schema: &'a Value, step: &str) -> &'a Value {
    let schema = object_schema(schema);
    schema
        .get("properties")
        .and_then(|properties| properties.get(step))
        .or_else(|| schema.get("additionalProperties"))
        .or_else(|| schema.get("items"))
        .unwrap_or(&Value::Null)
}

/// Looks through `anyOf` for the alternative that describes an object: an optional field.
fn object_schema(schema: &Value) -> &Value {
    let alternatives = schema.get("anyOf").and_then(Value::as_array);
    alternatives
        .and_then(|all| all.iter().find(|one| one.get("properties").is_some()))
        .unwrap_or(schema)
}

fn fill_defaults(schema: &Value, value: &mut Value) {
    let (Some(properties), Some(object)) = (
        schema.get("properties").and_then(Value::as_object),
        value.as_object_mut(),
    ) else {
        return;
    };
    for (name, property) in properties {
        if let Some(default) = property.get("default") {
            object.entry(name).or_insert_with(|| default.clone());
        }
        if let Some(inner) = object.get_mut(name) {
            fill_defaults(object_schema(property), inner);
        }
    }
}

fn unescaped(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::new(json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["image"],
            "properties": {
                "image": { "type": "string" },
                "memory_limit": { "type": "string", "default": "4g" },
                "network": {
                    "type": "object",
                    "additionalProperties": false,
                    "default": {},
                    "properties": { "enabled": { "type": "boolean", "default": true } },
                },
                "note": { "type": ["string", "null"] },
            },
        }))
    }

    fn problems(value: Value) -> Vec<Problem> {
        match schema().check("configuration", value) {
            Err(SchemaError::Document { problems, .. }) => problems,
            other => panic!("expected problems, got {other:?}"),
        }
    }

    #[test]
    fn defaults_are_filled_in_at_every_depth() {
        let checked = schema()
            .check("configuration", json!({ "image": "a" }))
            .unwrap();
        assert_eq!(
            checked,
            json!({ "image": "a", "memory_limit": "4g", "network": { "enabled": true } })
        );
    }

    #[test]
    fn mistakes_name_the_field_and_the_nearest_key() {
        let found =
            problems(json!({ "image": 1, "memory_limt": "1g", "network": { "enable": 1 } }));
        let fields: Vec<&str> = found.iter().map(|problem| problem.field.as_str()).collect();
        assert!(
            fields.contains(&"image") && fields.contains(&"memory_limt"),
            "{fields:?}"
        );
        let near = found
            .iter()
            .find(|problem| problem.field == "memory_limt")
            .unwrap();
        assert_eq!(near.message, "unknown key; did you mean `memory_limit`?");
        let inner = found
            .iter()
            .find(|problem| problem.field == "network.enable")
            .unwrap();
        assert!(inner.message.contains("`enabled`"), "{inner}");
        assert_eq!(problems(json!({}))[0].field, "image");
    }

    #[test]
    fn a_wrong_schema_is_told_apart_from_a_wrong_document() {
        let wrong = Schema::new(json!({ "type": "nonsense" }));
        assert!(matches!(
            wrong.check("x", json!({})),
            Err(SchemaError::Schema { .. })
        ));
    }

    #[test]
    fn text_fields_are_known() {
        assert!(schema().is_text_at(&["image"]));
        assert!(schema().is_text_at(&["note"]));
        assert!(!schema().is_text_at(&["network", "enabled"]));
        assert!(!schema().is_text_at(&["nothing"]));
    }
}
