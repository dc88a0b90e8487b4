//! Who may ask: names and origins, keys, and how many at once.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Access, App, error::ApiError};

const API_KEY: &str = "x-api-key";

/// Lets a request through, or says why not.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let _answering = app.answering.token();
    if let Err(refused) = check(&app, request.headers()) {
        return refused.into_response();
    }
    // Whoever looks after the server must be able to see it when it is full.
    let is_probe = request.method() == Method::GET && request.uri().path() == "/health";
    let _place = match app.requests.try_acquire() {
        Ok(place) => Some(place),
        Err(_) if is_probe => None,
        Err(_) => {
            let message = format!(
                "{} requests are being answered, and `http.max_requests` allows no more: try again",
                app.config.max_requests
            );
            let full = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message);
            return full.retry_after(1).into_response();
        }
    };
    next.run(request).await
}

fn check(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let access = app.access();
    let host = text(headers.get(header::HOST));
    if !is_known_host(&access, host) {
        return Err(ApiError::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("the host `{host}` is none of this server's: add it to `http.hosts` if it is"),
        ));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = text(Some(origin));
        let is_own = origin.split_once("://").is_some_and(|(_, of)| of == host);
        if !is_own && !access.origins.iter().any(|known| known == origin) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                format!(
                    "pages of `{origin}` may not use this server: add it to `http.origins` if they may"
                ),
            ));
        }
    }
    if !access.keys.are_asked_for() {
        return Ok(());
    }
    let bearer = bearer(text(headers.get(header::AUTHORIZATION)));
    let mut given = [bearer, text(headers.get(API_KEY))].into_iter();
    match given.find_map(|key| access.keys.name_of(key)) {
        Some(name) => {
            tracing::debug!(key = name, "authorized");
            Ok(())
        }
        None => Err(ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized")),
    }
}

/// A page can make a name of its own point here; it cannot do that to an address, nor to `localhost`.
fn is_known_host(access: &Access, host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    address.unwrap_or(name).parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || access
            .hosts
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
}

/// Returns the token of an authorization; the case of its scheme says nothing.
fn bearer(authorization: &str) -> &str {
    match authorization.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => "",
    }
}

fn text(value: Option<&HeaderValue>) -> &str {
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
