//! Tools of a sandbox.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    super::{
        App, body,
        error::{ApiError, ApiResult},
    },
    named, view,
};
use crate::{sandbox::Sandbox, tool::ToolError};

#[derive(Deserialize)]
struct ToolRequest {
    sandbox_id: String,
    tool_name: String,
    #[serde(default)]
    parameters: Map<String, Value>,
}

pub(super) async fn list(State(app): State<Arc<App>>, Path(id): Path<String>) -> ApiResult {
    let sandbox = named(app.host.manager(), &id)?;
    Ok(Json(view::tools(&sandbox)).into_response())
}

pub(super) async fn execute(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let document = body::json(&headers, body, app.json_bounds()).await?;
    let document = document.ok_or_else(|| ApiError::missing(&["body"], Value::Null))?;
    for field in ["sandbox_id", "tool_name"] {
        if document.get(field).is_none() {
            return Err(ApiError::missing(&["body", field], document));
        }
    }
    let request: ToolRequest = serde_json::from_value(document.clone()).map_err(|error| {
        ApiError::invalid("value_error", &["body"], &error.to_string(), document)
    })?;
    let sandbox = named(app.host.manager(), &request.sandbox_id)?;
    if !sandbox.status().takes_calls() {
        return Err(not_active(&sandbox));
    }
    let result = sandbox.execute_tool(&request.tool_name, request.parameters.into(), None);
    match result.await {
        Ok(result) => Ok(Json(view::result(&result)).into_response()),
        Err(ToolError::Unknown { name, .. } | ToolError::WrongType { name, .. }) => {
            Err(not_available(StatusCode::NOT_FOUND, &name))
        }
        Err(error) => Err(not_run(&sandbox, error)),
    }
}

/// Says that a sandbox takes no calls, in the words of Python's enumeration.
pub(super) fn not_active(sandbox: &Sandbox) -> ApiError {
    let status = sandbox.status().as_str().to_uppercase();
    let id = sandbox.id();
    ApiError::not_found(format!(
        "Sandbox {id} is not active (status: SandboxStatus.{status})"
    ))
}

pub(super) fn not_available(status: StatusCode, tool: &str) -> ApiError {
    ApiError::new(status, format!("Tool {tool} is not available"))
}

/// Says why a tool that is there was not run.
pub(super) fn not_run(sandbox: &Sandbox, error: ToolError) -> ApiError {
    match error {
        ToolError::Sandbox(_) => not_active(sandbox),
        wrong => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, wrong.to_string()),
    }
}
