//! Bodies of requests: bounded in length, in time, and in what is held of all of them.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
};
use boxyard_plugin_api::{ByteSink, Chunk, Error};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use super::{
    App,
    error::{ApiError, ApiResult},
};

/// How much of a body must come within each read timeout, where it does not end: a client that sends a
/// byte now and then would have its place for years.
const SLOWEST: u64 = 64 * 1024;

/// No read timeout is longer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// How much may come, and how long each part of it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    pub(super) read_timeout: Duration,
}

/// A part of what may be held of all documents; given back when it is dropped.
#[must_use = "the document is not counted any more once this is dropped"]
pub(super) struct Held {
    _bytes: OwnedSemaphorePermit,
}

/// Reads a JSON document, and counts it for as long as what is returned beside it lives; `None` where
/// there is no body.
pub(super) async fn json(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> ApiResult<(Option<Value>, Held)> {
    let mut bytes = Vec::new();
    let mut held = hold(app, 0)?;
    let mut parts = Parts::new(body, app.json_bounds());
    let reading = async {
        while let Some(part) = parts.next().await? {
            held.merge(hold(app, part.len())?);
            bytes.extend_from_slice(&part);
        }
        ApiResult::Ok(())
    };
    tokio::select! {
        read = reading => read?,
        () = app.is_over() => {
            let message = "the server is ending, and the body has not come yet";
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
    }
    let held = Held { _bytes: held };
    if bytes.is_empty() {
        return Ok((None, held));
    }
    // A web page cannot send this type to another site without asking first.
    if !is_json(headers) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "expected a body of type application/json",
        ));
    }
    let document = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("JSON decode error: {error}");
        ApiError::invalid("json_invalid", &["body"], &message, Value::Null)
    })?;
    Ok((Some(document), held))
}

fn hold(app: &App, bytes: usize) -> ApiResult<OwnedSemaphorePermit> {
    let count = u32::try_from(bytes).unwrap_or(u32::MAX);
    let held = Arc::clone(&app.bodies).try_acquire_many_owned(count);
    held.map_err(|_| {
        let message = format!(
            "the bodies of all requests are longer than {} bytes, and `http.max_held_bytes` allows no more: try again",
            app.config.max_held_bytes
        );
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(1)
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE);
    let essence = given
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// The parts of a body as they come.
pub(super) struct Parts {
    body: Body,
    bounds: Bounds,
    left: u64,
    /// By when how much must be left at most.
    due: (Instant, u64),
}

impl Parts {
    pub(super) fn new(body: Body, bounds: Bounds) -> Self {
        let mut parts = Self {
            body,
            bounds,
            left: bounds.bytes,
            due: (Instant::now(), 0),
        };
        parts.set_due();
        parts
    }

    fn set_due(&mut self) {
        let until = Instant::now() + self.bounds.read_timeout.min(LONGEST);
        self.due = (until, self.left.saturating_sub(SLOWEST));
    }

    /// Waits for the next part; `None` at the end.
    pub(super) async fn next(&mut self) -> ApiResult<Option<Bytes>> {
        loop {
            let Bounds {
                bytes,
                read_timeout,
            } = self.bounds;
            let (until, _) = self.due;
            let frame = timeout_at(until, self.body.frame()).await;
            let frame = frame.map_err(|_| {
                ApiError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    format!("too little of the body came within {read_timeout:?}"),
                )
            })?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame
                .map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
            let Ok(part) = frame.into_data() else {
                continue;
            };
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            self.left = self.left.checked_sub(length).ok_or_else(|| {
                ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is longer than {bytes} bytes"),
                )
            })?;
            if self.left <= self.due.1 {
                self.set_due();
            }
            if !part.is_empty() {
                return Ok(Some(part));
            }
        }
    }

    /// Passes everything on to a sink.
    ///
    /// The sink is only finished at the end: where something goes wrong on the way, whoever reads
    /// finds that it broke off.
    pub(super) async fn copy(&mut self, first: Bytes, to: ByteSink) -> ApiResult<()> {
        let mut part = Some(first);
        while let Some(bytes) = part {
            let began = Instant::now();
            for piece in bytes.chunks(64 * 1024) {
                let written = to.write(Chunk::from(piece)).await;
                written.map_err(|error: Error| ApiError::of(&error))?;
            }
            // What took that long is not the client's fault.
            self.due.0 += began.elapsed();
            part = self.next().await?;
        }
        to.finish().await.map_err(|error| ApiError::of(&error))
    }
}
