//! The one pool that ms-enclave's routes know.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
};
use serde_json::{Value, json};

use super::{
    super::{
        App, body,
        error::{ApiError, ApiResult},
    },
    Parameters, config, tools, view,
};
use crate::{
    manager::CreatePoolError,
    pool::{PoolError, PoolSpec, Reuse},
    tool::ToolError,
};

/// Its name among the manager's pools.
pub(super) const NAME: &str = "ms-enclave";
/// How long a call waits for a free sandbox where it does not say.
const WAIT: Duration = Duration::from_secs(3600);

pub(super) async fn initialize(
    State(app): State<Arc<App>>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let size = match query.get("pool_size") {
        None => 0,
        Some(given) => given.parse::<i64>().map_err(|error| {
            let message = format!("Input should be a valid integer: {error}");
            ApiError::invalid(
                "int_parsing",
                &["query", "pool_size"],
                &message,
                json!(given),
            )
        })?,
    };
    let size = usize::try_from(size.max(0)).unwrap_or(usize::MAX);
    let (document, _held) = body::json(&app, &headers, body).await?;
    let given_type = query.get("sandbox_type").map_or("docker", String::as_str);
    let manager = app.host.manager();
    let (request, ignored) = config::request(manager, given_type, document)?;
    if size == 0 {
        return Ok(answer(&[]));
    }
    let mut spec = PoolSpec::new(NAME, request.sandbox_type, size);
    spec.config = request.config;
    spec.labels = request.labels;
    // Clients hold the ids of its sandboxes.
    spec.reuse = Reuse::Keep;
    // One after the other: each is answered the sandboxes that it made.
    let _turn = app.initializing.lock().await;
    // Before what there is goes for it.
    manager.check_pool(&spec).map_err(refused)?;
    let (pool, before) = match manager.pool(NAME) {
        // Once more adds to what is there.
        Ok(pool) if pool.stats().size > 0 && pool.spec().is_like(&spec) => {
            pool.settled().await;
            let before = pool.ids();
            pool.grow(size).map_err(|error| refused(error.into()))?;
            (pool, before)
        }
        other => {
            if let Ok(pool) = other {
                // The last call says what it is.
                manager.remove_pool(&pool);
            }
            (manager.create_pool(spec).map_err(refused)?, Vec::new())
        }
    };
    pool.settled().await;
    let mut ids = pool.ids();
    ids.retain(|id| !before.contains(id));
    if ids.is_empty() {
        if pool.is_closed() {
            let message = "the pool was deleted while it was filled";
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        let why = pool.stats().last_error.unwrap_or_default();
        // Nothing waits for what cannot be made: the next call asks anew.
        if before.is_empty() {
            manager.remove_pool(&pool);
        } else {
            pool.shrink(size);
        }
        let message = not_initialized(why);
        return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message));
    }
    let made: Vec<_> = ids.iter().filter_map(|id| manager.get(id)).collect();
    config::note(&made, &ignored);
    Ok(answer(&ids))
}

fn refused(error: CreatePoolError) -> ApiError {
    match error {
        CreatePoolError::TooLarge(error) => {
            let at = &["query", "pool_size"];
            let message = error.to_string();
            ApiError::invalid("less_than_equal", at, &message, json!(error.found))
        }
        CreatePoolError::Exists { .. } => {
            ApiError::new(StatusCode::CONFLICT, not_initialized(error))
        }
        CreatePoolError::Sandbox(_) => ApiError::bad_request(not_initialized(error)),
    }
}

fn not_initialized(why: impl fmt::Display) -> String {
    format!("Failed to initialize pool: {why}")
}

fn answer(ids: &[String]) -> axum::response::Response {
    let document = json!({
        "message": "Pool initialized successfully",
        "pool_size": ids.len(),
        "sandbox_ids": ids,
    });
    Json(document).into_response()
}

pub(super) async fn execute(
    State(app): State<Arc<App>>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let tool = query.get("tool_name");
    let tool = tool.ok_or_else(|| ApiError::missing(&["query", "tool_name"], Value::Null))?;
    let (wait, wait_text) = match query.get("timeout") {
        None => (WAIT, WAIT.as_secs().to_string()),
        Some(given) => {
            let seconds = given.parse::<f64>().ok();
            let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let wait = wait.ok_or_else(|| {
                let message = "Input should be a valid number of seconds";
                ApiError::invalid(
                    "float_parsing",
                    &["query", "timeout"],
                    message,
                    json!(given),
                )
            })?;
            (wait, given.clone())
        }
    };
    let (document, _held) = body::json(&app, &headers, body).await?;
    let parameters = match document {
        None => return Err(ApiError::missing(&["body"], Value::Null)),
        Some(Value::Object(parameters)) => parameters,
        Some(_) => return Err(ApiError::no_object(&["body"])),
    };
    let refused = |error: PoolError| match error {
        PoolError::Busy { .. } => {
            let message =
                format!("Timeout waiting for available sandbox from pool after {wait_text}s");
            ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
        }
        PoolError::CannotFill { .. } => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).retry_after(1)
        }
        PoolError::Closed { .. } => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        PoolError::Unknown { .. } | PoolError::Empty { .. } => {
            ApiError::bad_request("Sandbox pool is empty, call initialize_pool first")
        }
    };
    let pool = app.host.manager().pool(NAME).map_err(refused)?;
    let sandbox = pool.acquire(wait).await.map_err(refused)?;
    match sandbox.execute_tool(tool, parameters.into(), None).await {
        Ok(result) => Ok(Json(view::result(&result)).into_response()),
        Err(ToolError::Unknown { name, .. } | ToolError::WrongType { name, .. }) => {
            Err(tools::not_available(StatusCode::BAD_REQUEST, &name))
        }
        Err(error) => Err(tools::not_run(&sandbox, error)),
    }
}
