//! What a pool is to be.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::manager::CreateRequest;

/// More sandboxes than a machine holds: a larger number is a mistake.
const MOST: usize = 10_000;

/// A pool is to be larger than a pool may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pool of {found} sandboxes is too large: expected at most {most}")]
pub struct TooLarge {
    /// What was asked for.
    pub found: usize,
    /// What may be.
    pub most: usize,
}

/// What becomes of a sandbox that was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reuse {
    /// It is deleted, and a new one made.
    #[default]
    Replace,
    /// Its backend makes it as new; it is replaced where that cannot.
    Reset,
    /// It is used again as it is, with everything that the last user left in it.
    Keep,
}

/// What a pool is to be; in the configuration under `[pools.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// Its name; that of its table in a configuration file.
    #[serde(default)]
    pub name: String,
    /// The sandbox type.
    #[serde(rename = "type")]
    pub sandbox_type: String,
    /// How many sandboxes it holds.
    #[schemars(range(max = MOST))]
    pub size: usize,
    /// Their configuration.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Their labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What becomes of one that was used.
    #[serde(default)]
    pub reuse: Reuse,
}

impl PoolSpec {
    /// Describes a pool whose sandboxes have the default configuration and are used once.
    pub fn new(name: impl Into<String>, sandbox_type: impl Into<String>, size: usize) -> Self {
        Self {
            name: name.into(),
            sandbox_type: sandbox_type.into(),
            size,
            config: Map::new(),
            labels: BTreeMap::new(),
            reuse: Reuse::default(),
        }
    }

    /// Returns whether another pool's sandboxes are made as this one's.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let size = self.size;
        *self
            == Self {
                size,
                ..other.clone()
            }
    }

    /// Checks how many sandboxes a pool is to hold.
    pub(crate) fn check_size(size: usize) -> Result<usize, TooLarge> {
        if size > MOST {
            return Err(TooLarge {
                found: size,
                most: MOST,
            });
        }
        Ok(size)
    }

    /// Returns what one of its sandboxes is made from.
    pub(crate) fn request(&self) -> CreateRequest {
        let mut request = CreateRequest::new(&self.sandbox_type).config(self.config.clone());
        request.labels = self.labels.clone();
        request.pool = Some(self.name.clone());
        // The pool of the next host makes its own.
        request.keep = Some(false);
        request
    }
}
