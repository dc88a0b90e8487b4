//! What a plugin says of its sandbox types and tools once it is loaded.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{Error, Isolation, Result};

/// A sandbox type as its plugin describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SandboxTypeDescriptor {
    /// The canonical name.
    pub name: String,
    /// One sentence for people.
    #[serde(default)]
    pub description: String,
    /// How strongly its sandboxes are kept away from the machine.
    pub isolation: Isolation,
    /// What its sandboxes can do, by [`Capability`](crate::Capability) name.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// The JSON Schema of its configuration.
    pub config_schema: Value,
}

/// A tool as its plugin describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolDescriptor {
    /// The name, unique in a host.
    pub name: String,
    /// One sentence for people and models.
    #[serde(default)]
    pub description: String,
    /// The sandbox types it can run in; empty means any.
    #[serde(default)]
    pub sandbox_types: Vec<String>,
    /// The JSON Schema of its parameters.
    pub parameters: Value,
}

impl ToolDescriptor {
    /// Returns the tool in the form that OpenAI-style interfaces take.
    pub fn openai_schema(&self) -> Value {
        json!({
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": self.parameters,
            },
        })
    }
}

/// Returns the JSON Schema of `T`, self-contained, which refuses unknown keys at its top.
///
/// Of draft 7, which everything that takes schemas understands, and which a host compiles in a
/// fifth of the time that later drafts take.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    // A type without fields has no shape of its own in JSON: an empty object stands for it.
    if schema.get("type").and_then(Value::as_str) == Some("null") {
        schema = json!({ "type": "object" });
    }
    if schema.get("type").and_then(Value::as_str) == Some("object") {
        if let Some(object) = schema.as_object_mut() {
            object
                .entry("additionalProperties")
                .or_insert(Value::Bool(false));
            object
                .entry("properties")
                .or_insert(Value::Object(Map::new()));
        }
    }
    schema
}

/// Reads an author's type from a document that its schema accepted; a type without fields
/// takes the empty object. An error names the field.
pub(crate) fn typed_document<T: DeserializeOwned>(document: Value) -> Result<T> {
    // A struct would take an array for its fields in their order, which no schema means.
    let Value::Object(fields) = &document else {
        return Err(Error::invalid_argument(format_args!(
            "expected an object, found {document}"
        )));
    };
    let is_empty = fields.is_empty();
    let read = serde_path_to_error::deserialize(document).map_err(Error::invalid_argument);
    if is_empty {
        read.or_else(|error| serde_json::from_value(Value::Null).map_err(|_| error))
    } else {
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is wanted")]
    struct Config {
        /// How many.
        #[schemars(default)]
        count: u32,
        inner: Inner,
    }

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is wanted")]
    struct Inner {
        name: String,
    }

    #[test]
    fn only_objects_are_documents() {
        #[derive(Debug, serde::Deserialize)]
        struct Single {
            count: u32,
        }
        let read = |document| typed_document::<Single>(document);
        assert_eq!(read(json!({ "count": 1 })).unwrap().count, 1);
        for document in [json!([1]), json!("text"), json!(17), json!(null)] {
            let error = read(document.clone()).unwrap_err();
            assert_eq!(
                error.code(),
                crate::ErrorCode::INVALID_ARGUMENT,
                "{document}"
            );
            assert!(error.message().contains("expected an object"), "{error}");
        }
    }

    #[test]
    fn a_schema_is_self_contained_and_refuses_unknown_keys() {
        let schema = schema_of::<Config>();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(
            schema["properties"]["inner"]["properties"]["name"]["type"],
            "string"
        );
        assert!(!schema.to_string().contains("$ref"));
        assert_eq!(schema_of::<()>()["type"], "object");
    }
}
