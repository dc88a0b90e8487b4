//! ms-enclave's routes, for the clients that it has.

mod config;
mod pool;
mod tools;
mod view;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use boxyard_plugin_api::{PutArchive, pipe};
use serde_json::{Value, json};

use super::{
    App,
    body::{self, Parts},
    error::{ApiError, ApiResult},
    id::Id,
};
use crate::{
    manager::{CreateError, EndError, Filter, Manager},
    sandbox::{Sandbox, Status},
};

/// The parameters of a request's address.
type Parameters = Query<BTreeMap<String, String>>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/health", get(health))
        .route(
            "/stats",
            get(async |State(app): State<Arc<App>>| Json(view::stats(&app))),
        )
        .route("/sandbox/create", post(create))
        .route("/sandboxes", get(list))
        .route("/sandbox/{id}", get(info).delete(delete))
        .route("/sandbox/{id}/stop", post(stop))
        .route("/sandbox/{id}/tools", get(tools::list))
        .route("/sandbox/{id}/archive", post(put_archive))
        .route("/sandbox/tool/execute", post(tools::execute))
        .route("/pool/initialize", post(pool::initialize))
        .route("/pool/execute", post(pool::execute))
}

async fn health(State(app): State<Arc<App>>) -> Json<Value> {
    let is_active = |sandbox: &&Arc<Sandbox>| sandbox.status().takes_calls();
    let active = app.host.manager().list().iter().filter(is_active).count();
    Json(json!({
        "healthy": true,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": app.began.elapsed().as_secs_f64(),
        "active_sandboxes": active,
        "system_info": view::stats(&app),
    }))
}

async fn create(
    State(app): State<Arc<App>>,
    Query(query): Parameters,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let given = query.get("sandbox_type");
    let given = given.ok_or_else(|| ApiError::missing(&["query", "sandbox_type"], Value::Null))?;
    let (document, _held) = body::json(&app, &headers, body).await?;
    let manager = app.host.manager();
    let (request, ignored) = config::request(manager, given, document)?;
    let sandbox = manager.create(request).await.map_err(not_created)?;
    let id = sandbox.id().to_owned();
    config::note(&[sandbox], &ignored);
    Ok(Json(json!({ "sandbox_id": id })).into_response())
}

/// Clients expect the same status for whatever keeps a sandbox from being made.
fn not_created(error: CreateError) -> ApiError {
    let message = format!("Failed to create sandbox: {error}");
    match error {
        CreateError::Full { .. } => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(1)
        }
        CreateError::ShuttingDown => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message),
        _ => ApiError::bad_request(message),
    }
}

async fn list(State(app): State<Arc<App>>, Query(query): Parameters) -> ApiResult {
    let mut filter = Filter::default();
    if let Some(given) = query.get("status") {
        filter = filter.status(given.parse::<Status>().map_err(|expected| {
            let message = format!("Input should be {expected}");
            ApiError::invalid("enum", &["query", "status"], &message, json!(given))
        })?);
    }
    let found = app.host.manager().find(&filter);
    let found: Vec<_> = found.iter().map(view::info).collect();
    Ok(Json(found).into_response())
}

async fn info(State(app): State<Arc<App>>, Id(id): Id) -> ApiResult {
    let sandbox = app.host.manager().get(&id);
    let sandbox = sandbox.ok_or_else(|| ApiError::not_found("Sandbox not found"))?;
    Ok(Json(view::info(&sandbox)).into_response())
}

async fn stop(State(app): State<Arc<App>>, Id(id): Id) -> ApiResult {
    ended(app.host.manager().stop(&id).await)?;
    Ok(Json(json!({ "message": "Sandbox stopped successfully" })).into_response())
}

async fn delete(State(app): State<Arc<App>>, Id(id): Id) -> ApiResult {
    ended(app.host.manager().delete(&id).await)?;
    Ok(Json(json!({ "message": "Sandbox deleted successfully" })).into_response())
}

fn ended(answer: Result<(), EndError>) -> ApiResult<()> {
    answer.map_err(|error| match error {
        EndError::NotFound { .. } => ApiError::not_found("Sandbox not found"),
        // It is there and could not be ended: a client that took it for gone would forget it.
        EndError::Backend { source, .. } => ApiError::of(&source),
    })
}

/// Finds a sandbox, in the words of the routes that name it.
fn named(manager: &Manager, id: &str) -> ApiResult<Arc<Sandbox>> {
    let sandbox = manager.get(id);
    sandbox.ok_or_else(|| ApiError::not_found(format!("Sandbox {id} not found")))
}

async fn put_archive(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Query(query): Parameters,
    body: Body,
) -> ApiResult {
    let directory = query.get("target_dir");
    let directory =
        directory.ok_or_else(|| ApiError::missing(&["query", "target_dir"], Value::Null))?;
    if directory.trim().is_empty() {
        return Err(ApiError::bad_request("target_dir must not be empty"));
    }
    let sandbox = named(app.host.manager(), &id)?;
    let mut parts = Parts::new(body, app.archive_bounds());
    let Some(first) = parts.next().await? else {
        return Err(ApiError::bad_request("Archive body must not be empty"));
    };
    if !sandbox.status().takes_calls() {
        return Err(tools::not_active(&sandbox));
    }
    let request = PutArchive::new(directory);
    let (sink, source) = pipe();
    let (copied, unpacked) = tokio::join!(
        parts.copy(first, sink),
        sandbox.put_archive(&request, source)
    );
    // A body that was too long or broke off is why it could not be unpacked; an archive that could
    // not be unpacked is why nobody read the rest of the body.
    match (copied, unpacked) {
        (Err(error), _) if !error.is_of_a_backend() => Err(error),
        (_, Err(error)) => Err(ApiError::of(&error)),
        (Err(error), Ok(())) => Err(error),
        (Ok(()), Ok(())) => Ok(Json(json!({ "ok": true })).into_response()),
    }
}
