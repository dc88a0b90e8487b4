//! Boxyard's own routes: sandboxes as the library has them.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use super::{
    App,
    error::{ApiError, ApiResult},
    id::Id,
};
use crate::manager::{EndError, Filter};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/sandboxes", get(list))
        .route("/v1/sandboxes/{id}", get(info).delete(delete))
}

async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<Vec<(String, String)>>,
) -> ApiResult {
    let mut filter = Filter::default();
    for (key, value) in &query {
        filter = match key.as_str() {
            "status" => filter.status(value.parse().map_err(|error: String| {
                ApiError::invalid("enum", &["query", "status"], &error, json!(value))
            })?),
            "type" => filter.sandbox_type(value),
            "label" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                filter.label(name, value)
            }
            _ => {
                let message = "unknown; expected status, type or label";
                return Err(ApiError::invalid(
                    "extra",
                    &["query", key],
                    message,
                    json!(value),
                ));
            }
        };
    }
    let found = app.host.manager().find(&filter);
    let found = found.iter().map(|sandbox| sandbox.summary());
    Ok(Json(json!({ "sandboxes": found.collect::<Vec<_>>() })).into_response())
}

async fn info(State(app): State<Arc<App>>, Id(id): Id) -> ApiResult {
    let sandbox = app.host.manager().get(&id).ok_or_else(|| not_found(&id))?;
    Ok(Json(sandbox.info().await).into_response())
}

async fn delete(State(app): State<Arc<App>>, Id(id): Id) -> ApiResult<Response> {
    match app.host.manager().delete(&id).await {
        Ok(()) => Ok(Json(json!({})).into_response()),
        Err(EndError::NotFound { id }) => Err(not_found(&id)),
        Err(EndError::Backend { source, .. }) => Err(ApiError::of(&source)),
    }
}

fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no sandbox `{id}`"))
}
