//! What a client is told went wrong.

use axum::{
    Json,
    extract::rejection::PathRejection,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use boxyard_plugin_api::{Error, ErrorCode};
use serde_json::{Value, json};

/// An answer that is no success: a status, and `detail` as ms-enclave has it.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    detail: Value,
    is_of_a_backend: bool,
    /// After how many seconds the same may be tried again.
    retry_after: Option<u16>,
}

pub(super) type ApiResult<T = Response> = Result<T, ApiError>;

impl ApiError {
    pub(super) fn new(status: StatusCode, detail: impl Into<Value>) -> Self {
        Self {
            status,
            detail: detail.into(),
            is_of_a_backend: false,
            retry_after: None,
        }
    }

    pub(super) fn retry_after(mut self, seconds: u16) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(super) fn bad_request(detail: impl Into<Value>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<Value>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// One mistake in a request, in the form in which FastAPI has a list of them.
    pub(super) fn invalid(kind: &str, at: &[&str], message: &str, input: Value) -> Self {
        let problem = json!({ "type": kind, "loc": at, "msg": message, "input": input });
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, json!([problem]))
    }

    /// Something in a request that must be of another type. What it is stays out of the answer: it may
    /// be a secret.
    pub(super) fn wrong_type(kind: &str, at: &[&str], expected: &str) -> Self {
        let message = format!("Input should be a valid {expected}");
        Self::invalid(kind, at, &message, Value::Null)
    }

    /// Something in a request that must be an object, and is none.
    pub(super) fn no_object(at: &[&str]) -> Self {
        Self::wrong_type("dict_type", at, "dictionary")
    }

    /// Something that is missing in a request.
    pub(super) fn missing(at: &[&str], input: Value) -> Self {
        Self::invalid("missing", at, "Field required", input)
    }

    /// What a backend answered.
    pub(super) fn of(error: &Error) -> Self {
        Self {
            is_of_a_backend: true,
            ..Self::new(status_of(error.code()), error.to_string())
        }
    }

    /// Whether it is the answer of a backend, not a mistake in the request.
    pub(super) fn is_of_a_backend(&self) -> bool {
        self.is_of_a_backend
    }
}

/// The status for a backend's answer, a row a code.
fn status_of(code: ErrorCode) -> StatusCode {
    const ROWS: &[(ErrorCode, StatusCode)] = &[
        (ErrorCode::INVALID_ARGUMENT, StatusCode::BAD_REQUEST),
        (ErrorCode::OUT_OF_RANGE, StatusCode::BAD_REQUEST),
        (ErrorCode::NOT_FOUND, StatusCode::NOT_FOUND),
        (ErrorCode::ALREADY_EXISTS, StatusCode::CONFLICT),
        (ErrorCode::FAILED_PRECONDITION, StatusCode::CONFLICT),
        (ErrorCode::ABORTED, StatusCode::CONFLICT),
        (ErrorCode::PERMISSION_DENIED, StatusCode::FORBIDDEN),
        (
            ErrorCode::RESOURCE_EXHAUSTED,
            StatusCode::INSUFFICIENT_STORAGE,
        ),
        (ErrorCode::UNIMPLEMENTED, StatusCode::NOT_IMPLEMENTED),
        (ErrorCode::UNAVAILABLE, StatusCode::SERVICE_UNAVAILABLE),
        (ErrorCode::DEADLINE_EXCEEDED, StatusCode::GATEWAY_TIMEOUT),
    ];
    let row = ROWS.iter().find(|(known, _)| *known == code);
    row.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(_, status)| *status)
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "detail": self.detail }))).into_response();
        if let Some(seconds) = self.retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
