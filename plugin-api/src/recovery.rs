//! What outlives the host: a sandbox's state document, and the sweep of orphans.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, Result};

/// What a backend needs to find a sandbox again, stored by the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct State {
    /// The version of the document's form; the backend's own to count.
    pub version: u32,
    /// The document. Small: identifiers, not content.
    pub data: Value,
}

impl State {
    /// Makes a state document.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::INVALID_ARGUMENT`](crate::ErrorCode::INVALID_ARGUMENT) where `data` has no JSON form.
    pub fn new(version: u32, data: &impl Serialize) -> Result<Self> {
        Ok(Self {
            version,
            data: serde_json::to_value(data)?,
        })
    }

    /// Reads the document.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::INVALID_ARGUMENT`](crate::ErrorCode::INVALID_ARGUMENT) where the document is not a `T`.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.data).map_err(|error| {
            Error::invalid_argument(format_args!(
                "state document version {}: {error}",
                self.version
            ))
        })
    }
}

/// Which of a backend's leftovers may be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SweepRequest {
    /// The host that asks.
    pub host: String,
    /// Leases whose process is dead. What belongs to any other lease stays.
    pub free_leases: Vec<String>,
    /// Sandboxes that the host knows and wants kept, whatever their lease.
    pub known: Vec<String>,
    /// How old a leftover must be, in milliseconds.
    pub grace_ms: u64,
}

impl SweepRequest {
    /// Asks for what belongs to leases whose process is dead, however young it is.
    pub fn new(
        host: impl Into<String>,
        free_leases: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            host: host.into(),
            free_leases: free_leases.into_iter().map(Into::into).collect(),
            known: Vec::new(),
            grace_ms: 0,
        }
    }

    /// Sets the sandboxes that stay, whatever their lease.
    #[must_use]
    pub fn known(mut self, known: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.known = known.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how old a leftover must be, in milliseconds.
    #[must_use]
    pub fn grace_ms(mut self, grace_ms: u64) -> Self {
        self.grace_ms = grace_ms;
        self
    }

    /// Returns how old a leftover must be.
    pub fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    /// Returns whether what a lease and a sandbox id name is an orphan, its age apart.
    pub fn is_orphan(&self, lease: &str, sandbox: &str) -> bool {
        self.free_leases.iter().any(|free| free == lease)
            && !self.known.iter().any(|known| known == sandbox)
    }
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Swept {
    /// Sandboxes of which nothing is left.
    #[serde(default)]
    pub removed: Vec<String>,
    /// Sandboxes that stay for now: too young, or not removable.
    #[serde(default)]
    pub kept: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unknown_sandboxes_of_free_leases_are_orphans() {
        let request = SweepRequest {
            host: "h".into(),
            free_leases: vec!["dead".into()],
            known: vec!["kept".into()],
            grace_ms: 0,
        };
        assert!(request.is_orphan("dead", "lost"));
        assert!(!request.is_orphan("dead", "kept"));
        assert!(!request.is_orphan("alive", "lost"));
    }

    #[test]
    fn a_state_document_of_another_form_is_refused_with_its_version() {
        let state = State::new(3, &serde_json::json!({"id": 1})).unwrap();
        let error = state.data::<Vec<String>>().unwrap_err();
        assert!(error.message().contains("version 3"), "{error}");
    }
}
