//! Bodies of requests: bounded in length and in time.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
};
use boxyard_plugin_api::{ByteSink, Chunk, Error};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, ApiResult};

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

/// Reads a JSON document; `None` where there is no body.
pub(super) async fn json(
    headers: &HeaderMap,
    body: Body,
    bounds: Bounds,
) -> ApiResult<Option<Value>> {
    let mut bytes = Vec::new();
    let mut parts = Parts::new(body, bounds);
    while let Some(part) = parts.next().await? {
        bytes.extend_from_slice(&part);
    }
    if bytes.is_empty() {
        return Ok(None);
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
    Ok(Some(document))
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
