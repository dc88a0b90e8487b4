//! Why a pull failed: engines pass on what registries and the network say as text.

use bollard::errors::Error as EngineError;
use boxyard_plugin_api::prelude::*;

use super::Reference;
use crate::engine::{failure, remedy};

/// What the registry was shown.
#[derive(Debug)]
pub(super) enum Access {
    /// Nothing: docker's config has nothing for it.
    Anonymous,
    /// What docker's config has for it.
    Credentials,
    /// Nothing, for docker's config or a helper of it does not work.
    Unreadable(Error),
}

/// In order: the first that a text contains decides.
const SAYINGS: &[(ErrorCode, &[&str])] = &[
    (
        ErrorCode::RESOURCE_EXHAUSTED,
        &["no space left on device", "disk quota exceeded"],
    ),
    (
        ErrorCode::FAILED_PRECONDITION,
        &[
            "no matching manifest for",
            "does not match the specified platform",
            "no match for platform",
            "server gave http response to https client",
            "x509:",
            "certificate",
            "mediatype",
            "media type",
            "unsupported manifest",
        ],
    ),
    (
        ErrorCode::UNAVAILABLE,
        &[
            "connection refused",
            "no such host",
            "server misbehaving",
            "temporary failure in name resolution",
            "i/o timeout",
            "timeout exceeded",
            "deadline exceeded",
            "handshake timeout",
            "network is unreachable",
            "no route to host",
            "connection reset",
            "broken pipe",
            "unexpected eof",
            ": eof",
            "internal server error",
            "bad gateway",
            "service unavailable",
            "gateway timeout",
        ],
    ),
    // Docker Hub says the same of what is not there and of what is private: the first is likelier.
    (ErrorCode::NOT_FOUND, &["repository does not exist"]),
    (
        ErrorCode::UNAUTHENTICATED,
        &[
            "no basic auth credentials",
            "unauthorized",
            "authentication required",
            "incorrect username or password",
        ],
    ),
    (ErrorCode::PERMISSION_DENIED, &["denied", "forbidden"]),
    (
        ErrorCode::NOT_FOUND,
        &[
            "manifest unknown",
            "name unknown",
            "not found",
            "not known to registry",
        ],
    ),
    (
        ErrorCode::RESOURCE_EXHAUSTED,
        &["toomanyrequests", "too many requests", "rate limit"],
    ),
    (ErrorCode::INVALID_ARGUMENT, &["invalid reference"]),
];

/// Makes the error of a pull: which image, which registry, why, and what to do.
pub(super) fn pull_failure(reference: &Reference, access: &Access, error: EngineError) -> Error {
    let found = match &error {
        EngineError::DockerResponseServerError { message, .. }
        | EngineError::DockerStreamError { error: message } => {
            code_of(message).map(|code| (code, message.trim().to_owned()))
        }
        _ => None,
    };
    let registry = reference.registry();
    let doing = format!("image {reference}: pulling it from {registry}");
    let Some((code, message)) = found else {
        return failure(error).context(doing);
    };
    let advice = match (code, access) {
        (ErrorCode::UNAUTHENTICATED, Access::Anonymous) => {
            format!(
                ": docker's config has no credentials for {registry} (`docker login {registry}`)"
            )
        }
        (ErrorCode::UNAUTHENTICATED, Access::Credentials) => {
            format!(": it refused the credentials of docker's config (`docker login {registry}`)")
        }
        (ErrorCode::UNAUTHENTICATED, Access::Unreadable(error)) => {
            format!(": docker's credentials could not be read: {error}")
        }
        _ if message.contains("HTTP response to HTTPS client") => {
            format!(
                ": the engine must list {registry} under `insecure-registries` to do without TLS"
            )
        }
        _ => remedy(&message.to_lowercase()).into(),
    };
    let error = Error::new(code, format_args!("{doing}: {message}{advice}"));
    let passes = code == ErrorCode::UNAVAILABLE || message.to_lowercase().contains("requests");
    if passes { error.retryable() } else { error }
}

fn code_of(message: &str) -> Option<ErrorCode> {
    let lower = message.to_lowercase();
    let found = SAYINGS
        .iter()
        .find(|(_, parts)| parts.iter().any(|part| lower.contains(part)));
    found.map(|(code, _)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_code() {
        for (message, code, retryable) in [
            (
                "manifest for 127.0.0.1:5000/a:2 not found: manifest unknown: manifest unknown",
                ErrorCode::NOT_FOUND,
                false,
            ),
            (
                "pull access denied for nope, repository does not exist or may require 'docker \
                 login': denied: requested access to the resource is denied",
                ErrorCode::NOT_FOUND,
                false,
            ),
            (
                "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
                ErrorCode::UNAVAILABLE,
                true,
            ),
            (
                "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io \
                 on 10.0.0.1:53: no such host",
                ErrorCode::UNAVAILABLE,
                true,
            ),
            (
                "Get \"https://10.9.9.9/v2/\": net/http: request canceled while waiting for \
                 connection (Client.Timeout exceeded while awaiting headers)",
                ErrorCode::UNAVAILABLE,
                true,
            ),
            (
                "Head \"http://127.0.0.1:5000/v2/a/manifests/1\": no basic auth credentials",
                ErrorCode::UNAUTHENTICATED,
                false,
            ),
            (
                "unauthorized: authentication required",
                ErrorCode::UNAUTHENTICATED,
                false,
            ),
            (
                "denied: requested access to the resource is denied",
                ErrorCode::PERMISSION_DENIED,
                false,
            ),
            (
                "no matching manifest for linux/arm64 in the manifest list entries",
                ErrorCode::FAILED_PRECONDITION,
                false,
            ),
            (
                "http: server gave HTTP response to HTTPS client",
                ErrorCode::FAILED_PRECONDITION,
                false,
            ),
            (
                "failed to register layer: write /a: no space left on device",
                ErrorCode::RESOURCE_EXHAUSTED,
                false,
            ),
            (
                "toomanyrequests: You have reached your pull rate limit.",
                ErrorCode::RESOURCE_EXHAUSTED,
                true,
            ),
        ] {
            let reference = Reference::parse("reg:5000/a:2").unwrap();
            let access = Access::Anonymous;
            let streamed = EngineError::DockerStreamError {
                error: message.into(),
            };
            let answered = EngineError::DockerResponseServerError {
                status_code: 500,
                message: message.into(),
            };
            for error in [streamed, answered] {
                let error = pull_failure(&reference, &access, error);
                assert_eq!(
                    (error.code(), error.is_retryable()),
                    (code, retryable),
                    "{message}"
                );
                let begin = "image reg:5000/a:2: pulling it from reg:5000: ";
                assert!(error.message().starts_with(begin), "{error}");
            }
        }
    }
}
