//! An [`Error`] as it crosses.

use abi_stable::{StableAbi, std_types::RString};
use serde_json::Value;

use crate::{Error, ErrorCode};

/// An [`Error`] as it crosses. Frozen for 1.x: more facts go into `details`.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Failure {
    /// The [`ErrorCode`]'s number.
    pub code: u32,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// The text for people.
    pub message: RString,
    /// The facts for programs, as JSON; empty where there are none.
    pub details: RString,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            code: error.code().0,
            retryable: error.is_retryable(),
            message: error.message().into(),
            details: match error.details() {
                Value::Null => RString::new(),
                details => details.to_string().into(),
            },
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let details = serde_json::from_str(&failure.details).unwrap_or(Value::Null);
        let error = Self::new(ErrorCode(failure.code), &failure.message).with_details(details);
        if failure.retryable {
            error.retryable()
        } else {
            error
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_whole() {
        let error = Error::new(ErrorCode(900), "m")
            .retryable()
            .with_details(serde_json::json!([1]));
        assert_eq!(Error::from(Failure::from(error.clone())), error);
        let plain = Error::not_found("x");
        assert_eq!(Error::from(Failure::from(plain.clone())), plain);
    }
}
