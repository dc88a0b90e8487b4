//! Tools of a sandbox.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use serde_json::{Map, Value};

use super::{
    super::{
        App, body,
        error::{ApiError, ApiResult},
        id::Id,
    },
    named, view,
};
use crate::{sandbox::Sandbox, tool::ToolError};

pub(super) async fn list(State(app): State<Arc<App>>, Id(id): Id) -> ApiResult {
    let sandbox = named(app.host.manager(), &id)?;
    Ok(Json(view::tools(&sandbox)).into_response())
}

pub(super) async fn execute(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let (document, _held) = body::json(&app, &headers, body).await?;
    let mut document = document.ok_or_else(|| ApiError::missing(&["body"], Value::Null))?;
    let id = text(&document, "sandbox_id")?.to_owned();
    let tool = text(&document, "tool_name")?.to_owned();
    let parameters = match document.get_mut("parameters").map(Value::take) {
        None => Map::new(),
        Some(Value::Object(parameters)) => parameters,
        Some(_) => return Err(ApiError::no_object(&["body", "parameters"])),
    };
    let sandbox = named(app.host.manager(), &id)?;
    if !sandbox.status().takes_calls() {
        return Err(not_active(&sandbox));
    }
    let result = sandbox.execute_tool(&tool, parameters.into(), None);
    match result.await {
        Ok(result) => Ok(Json(view::result(&result)).into_response()),
        Err(ToolError::Unknown { name, .. } | ToolError::WrongType { name, .. }) => {
            Err(not_available(StatusCode::NOT_FOUND, &name))
        }
        Err(error) => Err(not_run(&sandbox, error)),
    }
}

/// Returns a field of a request that must be text.
fn text<'a>(document: &'a Value, field: &str) -> ApiResult<&'a str> {
    let at = &["body", field];
    let value = document.get(field);
    let value = value.ok_or_else(|| ApiError::missing(at, Value::Null))?;
    let text = value.as_str();
    text.ok_or_else(|| ApiError::wrong_type("string_type", at, "string"))
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
