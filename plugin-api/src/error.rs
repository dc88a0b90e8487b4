//! The one error that crosses the boundary.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The result of everything that an author implements or calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is.
///
/// Codes 1 to 16 are gRPC's, with gRPC's meaning; Boxyard's own start at 100. A code
/// that this version does not know is kept as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ErrorCode(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Returns the code's canonical name, or `None` for a number this version does not know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// The caller asked for the work to stop.
    CANCELLED = 1, "CANCELLED";
    /// No better code is known.
    UNKNOWN = 2, "UNKNOWN";
    /// The request is wrong whatever the state of the system.
    INVALID_ARGUMENT = 3, "INVALID_ARGUMENT";
    /// The deadline passed first.
    DEADLINE_EXCEEDED = 4, "DEADLINE_EXCEEDED";
    /// What was named is not there.
    NOT_FOUND = 5, "NOT_FOUND";
    /// What was to be made is there already.
    ALREADY_EXISTS = 6, "ALREADY_EXISTS";
    /// The caller may not do this.
    PERMISSION_DENIED = 7, "PERMISSION_DENIED";
    /// Memory, disk, a quota or a limit is used up.
    RESOURCE_EXHAUSTED = 8, "RESOURCE_EXHAUSTED";
    /// The request is right, but not in this state.
    FAILED_PRECONDITION = 9, "FAILED_PRECONDITION";
    /// The work was broken off, by a conflict for example.
    ABORTED = 10, "ABORTED";
    /// The request reaches past the end.
    OUT_OF_RANGE = 11, "OUT_OF_RANGE";
    /// The sandbox type or the plugin does not do this.
    UNIMPLEMENTED = 12, "UNIMPLEMENTED";
    /// An invariant is broken.
    INTERNAL = 13, "INTERNAL";
    /// The engine or service behind the plugin does not answer.
    UNAVAILABLE = 14, "UNAVAILABLE";
    /// Data is lost for good.
    DATA_LOSS = 15, "DATA_LOSS";
    /// The caller did not prove who it is.
    UNAUTHENTICATED = 16, "UNAUTHENTICATED";
    /// The plugin's code panicked; the message is the panic's.
    PANICKED = 100, "PANICKED";
    /// The instance panicked earlier and takes only `stop` and `cleanup`.
    POISONED = 101, "POISONED";
    /// The other end of a stream, or the host's service, is gone.
    CLOSED = 102, "CLOSED";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "CODE_{}", self.0),
        }
    }
}

/// A failure: a code for programs, a message for people, and whether to try again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Error {
    code: ErrorCode,
    message: String,
    #[serde(default)]
    retryable: bool,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    details: Value,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $code:ident;)*) => {
        $($(#[$doc])* pub fn $name(message: impl fmt::Display) -> Self {
            Self::new(ErrorCode::$code, message)
        })*
    };
}

impl Error {
    /// Makes an error that is not retryable and has no details.
    ///
    /// The message is a lower-case fragment that says what was expected, what was
    /// found and what to do.
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
            retryable: false,
            details: Value::Null,
        }
    }

    constructors! {
        /// Makes an [`ErrorCode::CANCELLED`].
        cancelled => CANCELLED;
        /// Makes an [`ErrorCode::INVALID_ARGUMENT`].
        invalid_argument => INVALID_ARGUMENT;
        /// Makes an [`ErrorCode::DEADLINE_EXCEEDED`].
        deadline_exceeded => DEADLINE_EXCEEDED;
        /// Makes an [`ErrorCode::NOT_FOUND`].
        not_found => NOT_FOUND;
        /// Makes an [`ErrorCode::PERMISSION_DENIED`].
        permission_denied => PERMISSION_DENIED;
        /// Makes an [`ErrorCode::RESOURCE_EXHAUSTED`].
        resource_exhausted => RESOURCE_EXHAUSTED;
        /// Makes an [`ErrorCode::FAILED_PRECONDITION`].
        failed_precondition => FAILED_PRECONDITION;
        /// Makes an [`ErrorCode::INTERNAL`].
        internal => INTERNAL;
        /// Makes an [`ErrorCode::UNAVAILABLE`].
        unavailable => UNAVAILABLE;
        /// Makes an [`ErrorCode::CLOSED`].
        closed => CLOSED;
    }

    /// Makes the answer of an operation that a backend does not have.
    pub fn unsupported(operation: impl fmt::Display) -> Self {
        Self::new(
            ErrorCode::UNIMPLEMENTED,
            format_args!("{operation} is not supported by this sandbox type"),
        )
    }

    /// Marks the error as one that may go away when the call is tried again.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Adds facts for programs; a later call replaces an earlier one's.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Returns the kind of failure.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Returns the text for people, without the code.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Returns the facts for programs; `Null` where there are none.
    pub fn details(&self) -> &Value {
        &self.details
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The only table from the system's errors to ours; where gRPC's own libraries have a row, it
/// is theirs.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let code = match error.kind() {
            ErrorKind::NotFound => ErrorCode::NOT_FOUND,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                ErrorCode::PERMISSION_DENIED
            }
            ErrorKind::AlreadyExists => ErrorCode::ALREADY_EXISTS,
            ErrorKind::InvalidInput
            | ErrorKind::InvalidData
            | ErrorKind::ArgumentListTooLong
            | ErrorKind::NotSeekable => ErrorCode::INVALID_ARGUMENT,
            ErrorKind::DirectoryNotEmpty
            | ErrorKind::IsADirectory
            | ErrorKind::NotADirectory
            | ErrorKind::ResourceBusy
            | ErrorKind::ExecutableFileBusy
            | ErrorKind::CrossesDevices => ErrorCode::FAILED_PRECONDITION,
            ErrorKind::TimedOut => ErrorCode::DEADLINE_EXCEEDED,
            // What would block where nothing waits is a process or a lock too many.
            ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::OutOfMemory
            | ErrorKind::FileTooLarge
            | ErrorKind::TooManyLinks
            | ErrorKind::WouldBlock => ErrorCode::RESOURCE_EXHAUSTED,
            ErrorKind::Deadlock | ErrorKind::StaleNetworkFileHandle => ErrorCode::ABORTED,
            ErrorKind::BrokenPipe => ErrorCode::CLOSED,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown => ErrorCode::UNAVAILABLE,
            ErrorKind::Unsupported => ErrorCode::UNIMPLEMENTED,
            _ => error
                .raw_os_error()
                .and_then(without_kind)
                .unwrap_or(ErrorCode::UNKNOWN),
        };
        Self::new(code, error)
    }
}

/// Returns the code of an error that has a number and, for the oldest compiler that this crate
/// builds with, no kind.
fn without_kind(number: i32) -> Option<ErrorCode> {
    const ESRCH: i32 = 3;
    const ENXIO: i32 = 6;
    const ENODEV: i32 = 19;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENAMETOOLONG: i32 = if cfg!(target_os = "linux") { 36 } else { 63 };
    const ELOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };
    const EOPNOTSUPP: i32 = if cfg!(target_os = "linux") { 95 } else { 102 };
    match number {
        ESRCH | ENXIO | ENODEV => Some(ErrorCode::NOT_FOUND),
        ENFILE | EMFILE => Some(ErrorCode::RESOURCE_EXHAUSTED),
        ENAMETOOLONG => Some(ErrorCode::INVALID_ARGUMENT),
        ELOOP => Some(ErrorCode::FAILED_PRECONDITION),
        EOPNOTSUPP => Some(ErrorCode::UNIMPLEMENTED),
        _ => None,
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::invalid_argument(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_grpc_names_and_unknown_ones_survive() {
        assert_eq!(ErrorCode::UNIMPLEMENTED.to_string(), "UNIMPLEMENTED");
        assert_eq!(Error::unsupported("pause").code(), ErrorCode::UNIMPLEMENTED);
        assert_eq!(ErrorCode(4711).to_string(), "CODE_4711");
    }

    #[test]
    fn an_error_survives_json_and_a_missing_field_has_its_default() {
        let error = Error::unavailable("no engine")
            .retryable()
            .with_details(serde_json::json!({"a": 1}));
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<Error>(&text).unwrap(), error);
        let short: Error =
            serde_json::from_str(r#"{"code":5,"message":"m","later":true}"#).unwrap();
        assert_eq!(short.code(), ErrorCode::NOT_FOUND);
        assert!(!short.is_retryable());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn every_error_of_the_system_has_its_code() {
        for (name, number, code) in [
            ("EPERM", 1, ErrorCode::PERMISSION_DENIED),
            ("ENOENT", 2, ErrorCode::NOT_FOUND),
            ("ESRCH", 3, ErrorCode::NOT_FOUND),
            ("EIO", 5, ErrorCode::UNKNOWN),
            ("ENXIO", 6, ErrorCode::NOT_FOUND),
            ("E2BIG", 7, ErrorCode::INVALID_ARGUMENT),
            ("EAGAIN", 11, ErrorCode::RESOURCE_EXHAUSTED),
            ("ENOMEM", 12, ErrorCode::RESOURCE_EXHAUSTED),
            ("EACCES", 13, ErrorCode::PERMISSION_DENIED),
            ("EBUSY", 16, ErrorCode::FAILED_PRECONDITION),
            ("EEXIST", 17, ErrorCode::ALREADY_EXISTS),
            ("EXDEV", 18, ErrorCode::FAILED_PRECONDITION),
            ("ENODEV", 19, ErrorCode::NOT_FOUND),
            ("ENOTDIR", 20, ErrorCode::FAILED_PRECONDITION),
            ("EISDIR", 21, ErrorCode::FAILED_PRECONDITION),
            ("EINVAL", 22, ErrorCode::INVALID_ARGUMENT),
            ("ENFILE", 23, ErrorCode::RESOURCE_EXHAUSTED),
            ("EMFILE", 24, ErrorCode::RESOURCE_EXHAUSTED),
            ("ETXTBSY", 26, ErrorCode::FAILED_PRECONDITION),
            ("EFBIG", 27, ErrorCode::RESOURCE_EXHAUSTED),
            ("ENOSPC", 28, ErrorCode::RESOURCE_EXHAUSTED),
            ("ESPIPE", 29, ErrorCode::INVALID_ARGUMENT),
            ("EROFS", 30, ErrorCode::PERMISSION_DENIED),
            ("EMLINK", 31, ErrorCode::RESOURCE_EXHAUSTED),
            ("EPIPE", 32, ErrorCode::CLOSED),
            ("EDEADLK", 35, ErrorCode::ABORTED),
            ("ENAMETOOLONG", 36, ErrorCode::INVALID_ARGUMENT),
            ("ENOSYS", 38, ErrorCode::UNIMPLEMENTED),
            ("ENOTEMPTY", 39, ErrorCode::FAILED_PRECONDITION),
            ("ELOOP", 40, ErrorCode::FAILED_PRECONDITION),
            ("EOPNOTSUPP", 95, ErrorCode::UNIMPLEMENTED),
            ("ENETUNREACH", 101, ErrorCode::UNAVAILABLE),
            ("ECONNRESET", 104, ErrorCode::UNAVAILABLE),
            ("ENOTCONN", 107, ErrorCode::UNAVAILABLE),
            ("ETIMEDOUT", 110, ErrorCode::DEADLINE_EXCEEDED),
            ("ECONNREFUSED", 111, ErrorCode::UNAVAILABLE),
            ("ESTALE", 116, ErrorCode::ABORTED),
            ("EDQUOT", 122, ErrorCode::RESOURCE_EXHAUSTED),
        ] {
            let error = Error::from(std::io::Error::from_raw_os_error(number));
            assert_eq!(error.code(), code, "{name}");
        }
    }
}
