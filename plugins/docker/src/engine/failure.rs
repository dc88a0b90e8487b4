//! From the engine's errors to ours: all that is made of what engines say as text, but for what
//! registries say through them, of which [`crate::image`] has a table of its own.

use std::{error::Error as StdError, fmt, io};

use bollard::errors::Error as EngineError;
use boxyard_plugin_api::prelude::*;

/// Puts what was being done in front of what the engine said.
pub(crate) trait Doing<T> {
    /// Makes the engine's error one of ours, with its context.
    ///
    /// # Errors
    ///
    /// The engine's, under the code that fits it.
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T> Doing<T> for Result<T, EngineError> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| failure(error).context(what))
    }
}

/// Makes the engine's error one of ours.
pub(crate) fn failure(error: EngineError) -> Error {
    match error {
        EngineError::DockerResponseServerError {
            status_code,
            message,
        } => refused(status_code, message.trim()),
        EngineError::DockerStreamError { error } => {
            said(error.trim()).unwrap_or_else(|| Error::new(ErrorCode::UNKNOWN, error.trim()))
        }
        EngineError::DockerContainerWaitError { error, .. } => {
            Error::new(ErrorCode::UNKNOWN, error)
        }
        EngineError::RequestTimeoutError => {
            Error::deadline_exceeded("the engine did not answer in time").retryable()
        }
        EngineError::JsonDataError { message, .. } => Error::internal(format_args!(
            "the engine's answer cannot be understood: {message}"
        )),
        EngineError::SocketNotFoundError(path) => silent(format_args!("there is no socket {path}")),
        other => lost(&other),
    }
}

fn refused(status: u16, message: &str) -> Error {
    if let Some(error) = said(message) {
        return error;
    }
    let code = match status {
        400 => ErrorCode::INVALID_ARGUMENT,
        401 => ErrorCode::UNAUTHENTICATED,
        403 => ErrorCode::PERMISSION_DENIED,
        404 => ErrorCode::NOT_FOUND,
        406 | 409 | 412 => ErrorCode::FAILED_PRECONDITION,
        408 | 504 => ErrorCode::DEADLINE_EXCEEDED,
        429 => ErrorCode::RESOURCE_EXHAUSTED,
        501 => ErrorCode::UNIMPLEMENTED,
        500..=599 => ErrorCode::UNAVAILABLE,
        _ => ErrorCode::UNKNOWN,
    };
    let error = Error::new(code, message);
    if status == 429 || code == ErrorCode::UNAVAILABLE || code == ErrorCode::DEADLINE_EXCEEDED {
        error.retryable()
    } else {
        error
    }
}

/// What Podman says of a container that changed while it was at it.
const OVERTAKEN: &str = "container state improper";
/// What is said of a container that somebody else removes.
const BEING_REMOVED: &str = "is already in progress";
/// What is said of a path to mount that the engine does not find.
const UNSEEN: &str = "bind source path does not exist";

/// Whether something else happened to a container meanwhile, so that it is worth another try.
pub(crate) fn is_overtaken(error: &Error) -> bool {
    says(error, OVERTAKEN)
}

/// Whether a container is not removed because that is under way.
pub(crate) fn is_being_removed(error: &Error) -> bool {
    says(error, BEING_REMOVED)
}

/// Whether an engine does not see what it is to mount, as far as words can say.
pub(crate) fn is_unseen_mount(error: &Error) -> bool {
    says(error, UNSEEN)
}

fn says(error: &Error, saying: &str) -> bool {
    error.message().to_lowercase().contains(saying)
}

/// What engines say and what it means: their statuses are the same for many causes.
const SAYINGS: &[(&str, ErrorCode, bool)] = &[
    (
        "no space left on device",
        ErrorCode::RESOURCE_EXHAUSTED,
        false,
    ),
    ("disk quota exceeded", ErrorCode::RESOURCE_EXHAUSTED, false),
    (
        "cannot allocate memory",
        ErrorCode::RESOURCE_EXHAUSTED,
        true,
    ),
    ("too many open files", ErrorCode::RESOURCE_EXHAUSTED, true),
    (
        "could not find an available",
        ErrorCode::RESOURCE_EXHAUSTED,
        true,
    ),
    (
        "port is already allocated",
        ErrorCode::FAILED_PRECONDITION,
        true,
    ),
    (
        "address already in use",
        ErrorCode::FAILED_PRECONDITION,
        true,
    ),
    (
        "is already in use by container",
        ErrorCode::ALREADY_EXISTS,
        false,
    ),
    ("removal of container", ErrorCode::ABORTED, true),
    (BEING_REMOVED, ErrorCode::ABORTED, true),
    (OVERTAKEN, ErrorCode::ABORTED, true),
    (
        "does not match the specified platform",
        ErrorCode::FAILED_PRECONDITION,
        false,
    ),
    ("exec format error", ErrorCode::FAILED_PRECONDITION, false),
    (
        "--storage-opt is supported only",
        ErrorCode::FAILED_PRECONDITION,
        false,
    ),
    ("storage-opt", ErrorCode::FAILED_PRECONDITION, false),
    ("unknown runtime", ErrorCode::FAILED_PRECONDITION, false),
    (
        "decoding seccomp profile failed",
        ErrorCode::INVALID_ARGUMENT,
        false,
    ),
    ("invalid mount config", ErrorCode::INVALID_ARGUMENT, false),
    (
        "error gathering device information",
        ErrorCode::NOT_FOUND,
        false,
    ),
    ("page not found", ErrorCode::UNIMPLEMENTED, false),
];

fn said(message: &str) -> Option<Error> {
    let lower = message.to_lowercase();
    let (_, code, retryable) = SAYINGS.iter().find(|(part, ..)| lower.contains(part))?;
    let error = Error::new(*code, format_args!("{message}{}", remedy(&lower)));
    Some(if *retryable { error.retryable() } else { error })
}

/// What to do about something that an engine said, in lower case, where that is not plain.
pub(crate) fn remedy(said: &str) -> &'static str {
    if said.contains("no space left on device") {
        ": the engine's disk is full: make room on it (`docker system df` says what takes it)"
    } else {
        ""
    }
}

/// Nobody is there to be connected to: a daemon that is down, or is just starting.
fn silent(why: impl fmt::Display) -> Error {
    Error::unavailable(format_args!(
        "the engine does not answer: {why}: start it (`sudo systemctl start docker`) and try again"
    ))
    .retryable()
}

/// What is left is a connection that was not made or broke.
fn lost(error: &EngineError) -> Error {
    let code = match system_error(error) {
        Some(cause) => match cause.kind() {
            io::ErrorKind::PermissionDenied => {
                return Error::permission_denied(format_args!("connecting to the engine: {cause}"));
            }
            io::ErrorKind::ConnectionRefused => return silent("nobody listens on its address"),
            io::ErrorKind::NotFound => return silent("its socket is not there"),
            _ => ErrorCode::UNAVAILABLE,
        },
        None => match error {
            EngineError::HyperResponseError { .. } | EngineError::HyperLegacyError { .. } => {
                ErrorCode::UNAVAILABLE
            }
            _ => return Error::internal(error),
        },
    };
    Error::new(
        code,
        format_args!("the connection to the engine is lost: {}", innermost(error)),
    )
    .retryable()
}

/// Returns the system's error at the bottom of an engine's error, where there is one.
pub(super) fn system_error(error: &EngineError) -> Option<&io::Error> {
    fn below<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
        let deeper = error.source().and_then(below);
        deeper.or_else(|| error.downcast_ref())
    }

    match error {
        // It passes for the error that it holds, whose source it gives as its own.
        EngineError::IOError { err } => Some(err),
        other => below(other),
    }
}

/// The error at the bottom says what happened; those above it only where.
fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    error.source().map_or(error, innermost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_an_engine_has_its_code() {
        for (status, message, code, retryable) in [
            (400, "bad parameter", ErrorCode::INVALID_ARGUMENT, false),
            (401, "who?", ErrorCode::UNAUTHENTICATED, false),
            (403, "no", ErrorCode::PERMISSION_DENIED, false),
            (404, "No such container: x", ErrorCode::NOT_FOUND, false),
            (404, "page not found", ErrorCode::UNIMPLEMENTED, false),
            (406, "not now", ErrorCode::FAILED_PRECONDITION, false),
            (
                409,
                "Container x is not running",
                ErrorCode::FAILED_PRECONDITION,
                false,
            ),
            (
                409,
                "Conflict. The container name \"/x\" is already in use by container \"y\".",
                ErrorCode::ALREADY_EXISTS,
                false,
            ),
            (
                409,
                "removal of container x is already in progress",
                ErrorCode::ABORTED,
                true,
            ),
            (
                500,
                "cannot remove container x as it could not be stopped: sending SIGKILL to \
                 container x: container state improper: stopped",
                ErrorCode::ABORTED,
                true,
            ),
            (429, "slow down", ErrorCode::RESOURCE_EXHAUSTED, true),
            (500, "something", ErrorCode::UNAVAILABLE, true),
            (
                500,
                "driver failed: Bind for 127.0.0.1:80 failed: port is already allocated",
                ErrorCode::FAILED_PRECONDITION,
                true,
            ),
            (
                500,
                "write /x: no space left on device",
                ErrorCode::RESOURCE_EXHAUSTED,
                false,
            ),
            (501, "not here", ErrorCode::UNIMPLEMENTED, false),
            (503, "later", ErrorCode::UNAVAILABLE, true),
            (302, "elsewhere", ErrorCode::UNKNOWN, false),
        ] {
            let error = failure(EngineError::DockerResponseServerError {
                status_code: status,
                message: message.into(),
            });
            assert_eq!(
                (error.code(), error.is_retryable()),
                (code, retryable),
                "{status} {message}"
            );
            assert!(error.message().starts_with(message), "{error}");
        }
    }

    #[test]
    fn what_is_done_about_a_saying_is_known_by_it() {
        type Predicate = fn(&Error) -> bool;
        let predicates: [Predicate; 3] = [is_overtaken, is_being_removed, is_unseen_mount];
        for (message, expected) in [
            (
                "cannot remove container x: container state improper: stopped",
                [true, false, false],
            ),
            (
                "removal of container x is already in progress",
                [false, true, false],
            ),
            (
                "invalid mount config for type \"bind\": bind source path does not exist: /x",
                [false, false, true],
            ),
            ("something else", [false; 3]),
        ] {
            let error = failure(EngineError::DockerResponseServerError {
                status_code: 500,
                message: message.into(),
            });
            assert_eq!(predicates.map(|is| is(&error)), expected, "{message}");
        }
    }

    #[test]
    fn an_engine_that_is_down_is_to_be_started() {
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound] {
            let error = failure(EngineError::IOError { err: kind.into() });
            assert_eq!(error.code(), ErrorCode::UNAVAILABLE);
            assert!(error.is_retryable());
            for named in ["does not answer", "systemctl start docker"] {
                assert!(error.message().contains(named), "{error}");
            }
        }
    }

    #[test]
    fn a_lost_connection_may_come_back() {
        let broken = EngineError::IOError {
            err: io::Error::from(io::ErrorKind::ConnectionReset),
        };
        let error = Err::<(), _>(broken)
            .doing("removing container x")
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::UNAVAILABLE);
        assert!(error.is_retryable());
        assert!(
            error
                .message()
                .starts_with("removing container x: the connection")
        );
        let error = failure(EngineError::RequestTimeoutError);
        assert_eq!(error.code(), ErrorCode::DEADLINE_EXCEEDED);
    }
}
