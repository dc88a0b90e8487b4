//! Why a request failed, as the client reads it.

use std::{fmt, io};

use boxyard_agent::protocol::Reply;
use rustix::io::Errno;
use serde::Serialize;

/// A failure: the system's number where the system said no, a code of the plugin API where
/// the agent did.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    message: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    retryable: bool,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Writes how a request ended as the client reads it, a [`Reply`].
pub(crate) fn document<T: Serialize>(answer: &Result<T>) -> Vec<u8> {
    let reply = match answer {
        Ok(value) => Reply::Ok(value),
        Err(failure) => Reply::Error(failure),
    };
    // Our own documents are always text.
    serde_json::to_vec(&reply).unwrap_or_default()
}

macro_rules! constructors {
    ($($name:ident => $code:literal;)*) => {
        $(pub(crate) fn $name(message: impl fmt::Display) -> Self {
            Self { errno: None, code: Some($code), message: message.to_string(), retryable: false }
        })*
    };
}

impl Failure {
    constructors! {
        invalid_argument => 3;
        not_found => 5;
        permission_denied => 7;
        resource_exhausted => 8;
        failed_precondition => 9;
        aborted => 10;
        internal => 13;
        unavailable => 14;
    }

    /// Puts what was being done in front of the message.
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = if self.message.is_empty() {
            doing.to_string()
        } else {
            format!("{doing}: {}", self.message)
        };
        self
    }

    /// Returns whether it is this answer of the system's.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.errno == Some(errno.raw_os_error())
    }

    pub(crate) fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self {
            errno: Some(errno.raw_os_error()),
            code: None,
            message: String::new(),
            retryable: false,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Errno::from_raw_os_error(errno).into(),
            None => Self::internal(error),
        }
    }
}
