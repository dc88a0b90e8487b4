//! What is shown of a sandbox.

use std::{collections::BTreeMap, time::SystemTime};

use boxyard_plugin_api::{ExecutionContext, Isolation};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Status, events::timestamp};

/// Everything there is to know about a sandbox.
#[derive(Clone, Debug, Serialize)]
pub struct SandboxInfo {
    /// Its id.
    pub id: String,
    /// The name that its owner gave it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The labels that its owner gave it.
    pub labels: BTreeMap<String, String>,
    /// Its sandbox type.
    #[serde(rename = "type")]
    pub sandbox_type: String,
    /// The plugin that made it.
    pub plugin: String,
    /// How strongly it is kept away from the machine.
    pub isolation: Isolation,
    /// Where it is in its life.
    pub status: Status,
    /// When it was asked for.
    #[serde(serialize_with = "timestamp")]
    pub created_at: SystemTime,
    /// When its status or its metadata changed last.
    #[serde(serialize_with = "timestamp")]
    pub updated_at: SystemTime,
    /// Its configuration, defaults filled in and secrets hidden.
    pub config: Value,
    /// What host and backend noted; `error` says what went wrong.
    pub metadata: BTreeMap<String, Value>,
    /// Where its commands run.
    pub execution_context: Option<ExecutionContext>,
    /// What its backend adds.
    pub backend: Map<String, Value>,
    /// The tools that can run in it.
    pub available_tools: Vec<String>,
    /// Whether it is left to the next host when this one ends in order.
    pub keep: bool,
}
