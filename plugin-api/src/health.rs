//! What a probe finds.

use serde::{Deserialize, Serialize};

/// Whether a sandbox type can work on this machine now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Sandboxes can be made.
    Healthy,
    /// Sandboxes can be made, with something missing.
    Degraded,
    /// Sandboxes cannot be made.
    Unhealthy,
}

/// The answer of a probe: a status, and the reason with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// Whether sandboxes can be made.
    pub status: HealthStatus,
    /// What is wrong and what to do; empty when healthy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Health {
    /// Makes the answer that all is well.
    pub fn healthy() -> Self {
        Self {
            status: HealthStatus::Healthy,
            message: String::new(),
        }
    }

    /// Makes the answer that sandboxes work, but something is missing.
    pub fn degraded(message: impl Into<String>) -> Self {
        Self {
            status: HealthStatus::Degraded,
            message: message.into(),
        }
    }

    /// Makes the answer that no sandbox can be made.
    pub fn unhealthy(message: impl Into<String>) -> Self {
        Self {
            status: HealthStatus::Unhealthy,
            message: message.into(),
        }
    }
}
