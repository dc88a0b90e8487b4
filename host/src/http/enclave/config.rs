//! ms-enclave's configurations, and what becomes of them here.

use std::sync::Arc;

use boxyard_plugin_api::canonical_type_name;
use serde_json::{Map, Value, json};

use super::super::error::{ApiError, ApiResult};
use crate::{
    manager::{CreateRequest, Manager},
    sandbox::Sandbox,
};

/// The type that is a sandbox of another with a notebook in it.
const NOTEBOOK: &str = "docker-notebook";
const NOTEBOOK_BASE: &str = "docker";
const NOTEBOOK_TOOL: &str = "notebook_executor";
/// What ms-enclave builds for its notebooks and is in no registry; any Python does here.
const NOTEBOOK_IMAGE: &str = "jupyter-kernel-gateway";
/// The label by which a sandbox remembers the type that its client asked for.
pub(super) const ASKED_FOR: &str = "ms-enclave.type";

/// Keys that ms-enclave has and that mean nothing there either, with what it echoes for them.
pub(super) fn without_meaning() -> Map<String, Value> {
    let keys = json!({
        "timeout": 30,
        "resource_limits": {},
        "pull_progress": false,
        "pull_progress_interval": 3.0,
        "docker_executor_workers": 8,
    });
    match keys {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}

/// Translates what a client asks for; returns the keys too that are ignored.
pub(super) fn request(
    manager: &Manager,
    given_type: &str,
    document: Option<Value>,
) -> ApiResult<(CreateRequest, Vec<String>)> {
    let config = match document {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(config)) => config,
        Some(_) => return Err(ApiError::no_object(&["body"])),
    };
    let asked = canonical_type_name(given_type);
    let is_notebook = asked == NOTEBOOK;
    let registry = manager.registry();
    let wanted = if is_notebook {
        NOTEBOOK_BASE
    } else {
        asked.as_str()
    };
    let sandbox_type = registry.sandbox_type(wanted).map_err(|unknown| {
        let expected: Vec<_> = unknown
            .known
            .iter()
            .map(|name| name.replace('-', "_"))
            .collect();
        let expected = expected.join("', '");
        let message = format!("Input should be '{expected}'");
        ApiError::invalid(
            "enum",
            &["query", "sandbox_type"],
            &message,
            json!(given_type),
        )
    })?;
    let schema = &sandbox_type.descriptor().config_schema;
    let known = schema.get("properties").and_then(Value::as_object);
    let is_known = |key: &str| known.is_some_and(|known| known.contains_key(key));
    let without_meaning = without_meaning();
    let (mut kept, mut ignored) = (Map::new(), Vec::new());
    for (key, value) in config {
        // Its clients send every key that they have. `timeout` among them is for nothing there, and
        // would end here what runs long.
        if without_meaning.contains_key(&key) || value.is_null() {
            continue;
        }
        if key == "tools_config" || is_known(&key) {
            kept.insert(key, value);
        } else {
            ignored.push(key);
        }
    }
    if is_notebook && kept.get("image") == Some(&json!(NOTEBOOK_IMAGE)) {
        kept.remove("image");
    }
    // A sandbox has the tools that it is asked to have, and no others.
    let tools = kept.entry("tools_config").or_insert_with(|| json!({}));
    let mut request = CreateRequest::new(sandbox_type.name());
    if is_notebook {
        match tools {
            Value::Array(names) => names.push(json!(NOTEBOOK_TOOL)),
            Value::Object(tools) => {
                tools.entry(NOTEBOOK_TOOL).or_insert_with(|| json!({}));
            }
            _ => {}
        }
        request = request.label(ASKED_FOR, NOTEBOOK.replace('-', "_"));
    }
    Ok((request.config(kept), ignored))
}

/// Notes the keys that were ignored where whoever wonders looks for them.
pub(super) fn note(sandboxes: &[Arc<Sandbox>], ignored: &[String]) {
    if ignored.is_empty() {
        return;
    }
    let ids: Vec<_> = sandboxes.iter().map(|sandbox| sandbox.id()).collect();
    tracing::warn!(sandboxes = ?ids, keys = ?ignored, "unknown configuration keys are ignored");
    for sandbox in sandboxes {
        sandbox.note("config-ignored", json!({ "keys": ignored }));
    }
}
