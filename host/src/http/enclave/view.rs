//! Sandboxes and results as ms-enclave shows them.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use jiff::{Zoned, tz::TimeZone};
use serde_json::{Map, Value, json};

use super::{
    super::App,
    config::{ASKED_FOR, without_meaning},
    pool,
};
use crate::{
    sandbox::Sandbox,
    tool::{ToolResult, ToolStatus},
};

/// Shows a time as Python does: the machine's own, with no zone.
fn local(time: SystemTime) -> String {
    let shown = Zoned::try_from(time).map(|time| {
        let time = time.with_time_zone(TimeZone::system());
        time.strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
    });
    shown.unwrap_or_default()
}

/// Returns the name of a sandbox's type that its client asked for.
fn type_name(sandbox: &Sandbox) -> String {
    let asked = sandbox.labels().get(ASKED_FOR).cloned();
    asked.unwrap_or_else(|| sandbox.sandbox_type().name().replace('-', "_"))
}

pub(super) fn info(sandbox: &Arc<Sandbox>) -> Value {
    let info = sandbox.summary();
    let mut config = without_meaning();
    config.insert("tools_config".into(), json!({}));
    let own = info.config.as_object().into_iter().flatten();
    let own = own.filter(|(_, value)| !value.is_null());
    config.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    json!({
        "id": info.id,
        "status": info.status,
        "type": type_name(sandbox),
        "config": config,
        "created_at": local(info.created_at),
        "updated_at": local(info.updated_at),
        "metadata": info.metadata,
        "available_tools": tools(sandbox),
    })
}

pub(super) fn tools(sandbox: &Sandbox) -> Map<String, Value> {
    let tools = sandbox.tools().iter();
    tools
        .map(|tool| (tool.name().to_owned(), tool.descriptor().openai_schema()))
        .collect()
}

pub(super) fn result(result: &ToolResult) -> Value {
    let status = match result.status {
        ToolStatus::Success => "success",
        ToolStatus::Error => "error",
        ToolStatus::Timeout => "timeout",
        ToolStatus::Cancelled => "cancelled",
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "no call takes so many milliseconds"
    )]
    let seconds = result.duration_ms as f64 / 1000.0;
    json!({
        "status": status,
        "execution_time": seconds,
        "timestamp": local(SystemTime::now()),
        "tool_name": result.tool,
        "output": result.output,
        "metadata": {},
        "error": result.error,
    })
}

pub(super) fn stats(app: &App) -> Value {
    let (mut statuses, mut types) = (BTreeMap::new(), BTreeMap::new());
    let sandboxes = app.host.manager().list();
    for sandbox in &sandboxes {
        *statuses.entry(sandbox.status().as_str()).or_insert(0) += 1;
        *types.entry(type_name(sandbox)).or_insert(0) += 1;
    }
    let pool = app.host.manager().pool(pool::NAME).map(|pool| pool.stats());
    json!({
        "manager_type": "local",
        "total_sandboxes": sandboxes.len(),
        "status_counts": statuses,
        "sandbox_types": types,
        "running": true,
        "cleanup_interval": 1,
        "pool_size": pool.as_ref().map_or(0, |pool| pool.idle),
        "pool_enabled": pool.as_ref().is_ok_and(|pool| pool.size > 0),
        "pool_initialized": pool.is_ok_and(|pool| pool.size > 0),
    })
}
