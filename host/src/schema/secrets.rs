//! What of a document nobody is shown: one walk over a schema and a document, for what is hidden and
//! for what a mistake may say.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// What stands for a value that is nobody's business.
const HIDDEN: &str = "***";
/// What sandbox types call the variables of their commands, which are secret everywhere.
const ENVIRONMENTS: [&str; 2] = ["env_vars", "env"];
/// Keywords whose schemas describe the same value.
const SAME: [&str; 3] = ["anyOf", "oneOf", "allOf"];
/// Keywords whose schema describes the same value under a condition.
const CONDITIONAL: [&str; 2] = ["then", "else"];

/// What a schema says of one place in a document: every schema that may describe it, so that what is
/// secret under any of them is hidden.
#[derive(Clone)]
pub(super) struct Place<'a> {
    root: &'a Value,
    schemas: Vec<&'a Value>,
    /// Whether its name alone makes it a secret.
    is_environment: bool,
}

impl<'a> Place<'a> {
    /// Returns the place of a whole document.
    pub(super) fn root(schema: &'a Value) -> Self {
        Self::of(schema, [schema], false)
    }

    fn of(
        root: &'a Value,
        schemas: impl IntoIterator<Item = &'a Value>,
        is_environment: bool,
    ) -> Self {
        let mut place = Self {
            root,
            schemas: Vec::new(),
            is_environment,
        };
        for schema in schemas {
            place.add(schema);
        }
        place
    }

    /// Adds a schema and those that it says describe the same value.
    fn add(&mut self, schema: &'a Value) {
        // Schemas may refer to themselves.
        if self
            .schemas
            .iter()
            .any(|known| std::ptr::eq(*known, schema))
        {
            return;
        }
        self.schemas.push(schema);
        let alternatives = SAME.iter().filter_map(|keyword| schema.get(*keyword));
        for alternative in alternatives.filter_map(Value::as_array).flatten() {
            self.add(alternative);
        }
        for conditional in CONDITIONAL
            .iter()
            .filter_map(|keyword| schema.get(*keyword))
        {
            self.add(conditional);
        }
        let reference = schema.get("$ref").and_then(Value::as_str);
        if let Some(target) = reference.and_then(|reference| self.target(reference)) {
            self.add(target);
        }
    }

    /// Finds what a reference inside the schema refers to.
    fn target(&self, reference: &str) -> Option<&'a Value> {
        // It is a part of a URI, in which some characters are escaped.
        let pointer = percent_decode_str(reference.strip_prefix('#')?);
        self.root.pointer(&pointer.decode_utf8().ok()?)
    }

    fn is_secret(&self) -> bool {
        let is_write_only = |schema: &&Value| schema.get("writeOnly") == Some(&Value::Bool(true));
        self.is_environment || self.schemas.iter().any(is_write_only)
    }

    /// Returns the place of a property.
    fn property(&self, name: &str) -> Self {
        let schemas = self.schemas.iter().flat_map(|schema| {
            let known = schema.get("properties").and_then(|all| all.get(name));
            let patterns = schema.get("patternProperties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties");
            // A pattern is not looked at: what may match it may be a secret.
            known
                .or(additional)
                .into_iter()
                .chain(patterns.into_iter().flat_map(Map::values))
                .chain(schema.get("unevaluatedProperties"))
        });
        Self::of(self.root, schemas, ENVIRONMENTS.contains(&name))
    }

    /// Returns the place of an array's item.
    fn item(&self, index: usize) -> Self {
        let schemas = self.schemas.iter().flat_map(|schema| {
            let items = schema.get("items");
            let first = schema
                .get("prefixItems")
                .or(items)
                .and_then(Value::as_array);
            let rest = items.filter(|items| items.is_object());
            let known = first.and_then(|first| first.get(index));
            known
                .or(rest)
                .or_else(|| schema.get("additionalItems"))
                .into_iter()
                .chain(schema.get("contains"))
                .chain(schema.get("unevaluatedItems"))
        });
        Self::of(self.root, schemas, false)
    }

    /// Hides the secrets of a value; of a secret object the names are shown.
    pub(super) fn hide(&self, value: &mut Value) {
        match value {
            // That there is none is no secret.
            Value::Null => {}
            Value::Object(values) if self.is_secret() => {
                values.values_mut().for_each(|value| *value = HIDDEN.into());
            }
            value if self.is_secret() => *value = HIDDEN.into(),
            Value::Object(values) => {
                for (name, value) in values {
                    self.property(name).hide(value);
                }
            }
            Value::Array(values) => {
                for (index, value) in values.iter_mut().enumerate() {
                    self.item(index).hide(value);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Returns whether a mistake may tell the value at a JSON pointer into a document; of a whole
    /// document none may.
    ///
    /// A value of a wrong shape may have its secrets anywhere, so that one may be told only where the
    /// schema has no secret for it either.
    pub(super) fn may_tell(&self, document: &Value, pointer: &str) -> bool {
        let (mut place, mut value) = (self.clone(), document);
        let mut steps = pointer.split('/').skip(1).peekable();
        if steps.peek().is_none() {
            return false;
        }
        for step in steps {
            let step = super::unescaped(step);
            let next = match value {
                Value::Array(values) => step
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| Some((place.item(index), values.get(index)?))),
                value => value.get(&step).map(|next| (place.property(&step), next)),
            };
            match next {
                Some((of, next)) if !of.is_secret() => (place, value) = (of, next),
                _ => return false,
            }
        }
        let mut hidden = value.clone();
        place.hide(&mut hidden);
        hidden == *value && !place.has_secrets(&mut Vec::new())
    }

    /// Whether the schema has a secret for any value at the place.
    fn has_secrets(&self, seen: &mut Vec<&'a Value>) -> bool {
        if self.is_secret() {
            return true;
        }
        let is_new = |schema: &&'a Value| {
            let is_new = !seen.iter().any(|known| std::ptr::eq(*known, *schema));
            if is_new {
                seen.push(schema);
            }
            is_new
        };
        let new: Vec<&'a Value> = self.schemas.iter().copied().filter(is_new).collect();
        let inner = new.into_iter().flat_map(inner);
        inner.collect::<Vec<_>>().into_iter().any(|(name, schema)| {
            let is_environment = name.is_some_and(|name| ENVIRONMENTS.contains(&name));
            Self::of(self.root, [schema], is_environment).has_secrets(seen)
        })
    }
}

/// Returns the schemas of what is inside a value, those of properties with their names.
fn inner(schema: &Value) -> impl Iterator<Item = (Option<&str>, &Value)> {
    let named = schema.get("properties").and_then(Value::as_object);
    let named = named.into_iter().flatten();
    let patterns = schema.get("patternProperties").and_then(Value::as_object);
    let others = [
        "additionalProperties",
        "unevaluatedProperties",
        "items",
        "prefixItems",
        "additionalItems",
        "unevaluatedItems",
        "contains",
    ];
    let others = others.into_iter().filter_map(|keyword| schema.get(keyword));
    let others = others.flat_map(|found| match found {
        Value::Array(all) => all.iter().collect(),
        one => vec![one],
    });
    named
        .map(|(name, schema)| (Some(name.as_str()), schema))
        .chain(
            patterns
                .into_iter()
                .flat_map(Map::values)
                .map(|schema| (None, schema)),
        )
        .chain(others.map(|schema| (None, schema)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{Problem, SchemaError, schema::Schema};

    use super::*;

    /// A third party's schema, with secrets where they may be.
    fn schema() -> Schema {
        Schema::new(json!({
            "type": "object",
            "maxProperties": 12,
            "properties": {
                "image": { "type": "string" },
                "size": { "type": "integer" },
                "env_vars": { "type": "object", "additionalProperties": { "type": "string" } },
                "token": { "type": ["string", "null"], "writeOnly": true },
                "a/b": { "anyOf": [{ "type": "string", "writeOnly": true }, { "type": "null" }] },
                "keys": { "type": "array", "writeOnly": true, "maxItems": 2 },
                "registry": { "$ref": "#/$defs/Regis%74ry" },
                "mirrors": { "type": "array", "items": { "$ref": "#/$defs/Registry" } },
                "stores": { "additionalProperties": { "$ref": "#/$defs/Registry" } },
                "pair": { "prefixItems": [{ "type": "string" }, { "writeOnly": true, "maxLength": 3 }] },
                "build": { "properties": { "env": { "type": "object" } } },
                "auth": { "oneOf": [
                    { "type": "object", "properties": { "bearer": { "type": "string", "writeOnly": true } } },
                    { "type": "string", "maxLength": 3 },
                ] },
            },
            "$defs": {
                "Registry": {
                    "type": "object",
                    "allOf": [{ "properties": { "user": { "type": "string" } } }],
                    "properties": {
                        "password": { "type": "string", "writeOnly": true },
                        "next": { "anyOf": [{ "$ref": "#/$defs/Registry" }, { "type": "null" }] },
                    },
                },
            },
        }))
    }

    #[test]
    fn mistakes_in_secrets_do_not_tell_them() {
        for (value, field) in [
            (
                json!({ "env_vars": { "TOK": ["hunter2"] } }),
                "env_vars.TOK",
            ),
            (json!({ "env_vars": "hunter2" }), "env_vars"),
            (json!({ "token": ["hunter2"] }), "token"),
            (json!({ "a/b": ["hunter2"] }), "a/b"),
            (json!({ "keys": ["hunter2", 1, 2] }), "keys"),
            (
                json!({ "registry": { "password": ["hunter2"] } }),
                "registry.password",
            ),
            (json!({ "registry": ["me", "hunter2"] }), "registry"),
            (json!({ "registry": "hunter2" }), "registry"),
            (
                json!({ "registry": { "next": { "next": { "password": ["hunter2"] } } } }),
                "registry.next",
            ),
            (
                json!({ "mirrors": [{}, { "password": ["hunter2"] }] }),
                "mirrors.1.password",
            ),
            (
                json!({ "mirrors": { "0": { "password": "hunter2" } } }),
                "mirrors",
            ),
            (
                json!({ "stores": { "s": { "password": ["hunter2"] } } }),
                "stores.s.password",
            ),
            (json!({ "pair": ["me", "hunter2"] }), "pair.1"),
            (json!({ "build": { "env": ["hunter2"] } }), "build.env"),
            (json!({ "image": { "env": "hunter2" } }), "image"),
            (json!({ "auth": ["hunter2"] }), "auth"),
            (json!(["hunter2"]), ""),
        ] {
            let error = schema().check("configuration", value.clone()).unwrap_err();
            let SchemaError::Document { problems, .. } = &error else {
                panic!("{error}");
            };
            let fields: Vec<_> = problems.iter().map(|problem| &problem.field).collect();
            assert!(
                fields.iter().any(|found| *found == field),
                "{value}: {fields:?}"
            );
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let many: Map<String, Value> = (0..13)
            .map(|number| (number.to_string(), "hunter2".into()))
            .collect();
        let error = schema().check("configuration", many.into()).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn mistakes_elsewhere_tell_what_was_found() {
        for (value, told) in [
            (json!({ "image": 71 }), "71"),
            (json!({ "registry": { "user": 71 } }), "71"),
            (json!({ "mirrors": [{ "user": 71 }] }), "71"),
            (json!({ "size": "71" }), "71"),
        ] {
            let error = schema().check("configuration", value).unwrap_err();
            let SchemaError::Document { problems, .. } = error else {
                panic!("{error}");
            };
            let told = problems
                .iter()
                .any(|Problem { message, .. }| message.contains(told));
            assert!(told, "{problems:?}");
        }
    }

    #[test]
    fn secrets_are_hidden_and_nothing_else_is() {
        let mut document = json!({
            "image": "a",
            "env_vars": { "A": "hunter2", "B": { "C": "hunter2" } },
            "env": ["hunter2"],
            "token": "hunter2",
            "a/b": null,
            "keys": ["hunter2"],
            "registry": { "user": "me", "password": "hunter2", "next": { "password": "hunter2" } },
            "mirrors": [{ "user": "me", "password": "hunter2" }],
            "stores": { "s": { "password": "hunter2" } },
            "pair": ["me", "hunter2"],
            "build": { "env": { "A": "hunter2" }, "steps": 1 },
            "auth": { "bearer": "hunter2" },
            "other": { "A": 1, "password": "of nobody" },
        });
        schema().hide_secrets(&mut document);
        let hidden = json!({
            "image": "a",
            "env_vars": { "A": "***", "B": "***" },
            "env": "***",
            "token": "***",
            "a/b": null,
            "keys": "***",
            "registry": { "user": "me", "password": "***", "next": { "password": "***" } },
            "mirrors": [{ "user": "me", "password": "***" }],
            "stores": { "s": { "password": "***" } },
            "pair": ["me", "***"],
            "build": { "env": { "A": "***" }, "steps": 1 },
            "auth": { "bearer": "***" },
            "other": { "A": 1, "password": "of nobody" },
        });
        assert_eq!(document, hidden);
    }

    #[test]
    fn of_a_document_that_is_secret_only_the_names_are_shown() {
        let mut document = json!({ "image": "hunter2", "none": null });
        Schema::new(json!({ "writeOnly": true })).hide_secrets(&mut document);
        assert_eq!(document, json!({ "image": "***", "none": "***" }));
    }

    #[test]
    fn a_schema_that_is_only_itself_is_walked_to_an_end() {
        let schema = Schema::new(json!({
            "$ref": "#",
            "properties": { "a": { "$ref": "#" } },
        }));
        let mut document = json!({ "a": { "a": { "env": "hunter2" } } });
        schema.hide_secrets(&mut document);
        assert_eq!(document, json!({ "a": { "a": { "env": "***" } } }));
    }
}
