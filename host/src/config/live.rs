//! The configuration of a running host, which may be replaced.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Config, restart};

/// What a host is configured to now. Cheap to clone; all clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct LiveConfig(Arc<RwLock<Arc<Config>>>);

impl LiveConfig {
    pub(crate) fn new(config: Config) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// Returns what holds now; a caller that needs two things of one configuration asks once.
    pub(crate) fn get(&self) -> Arc<Config> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces it. What the process has from its start stays as it was; returns the keys of that which
    /// were to change.
    pub(crate) fn set(&self, mut config: Config) -> Vec<String> {
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changed = restart::keep(&mut config, &place);
        *place = Arc::new(config);
        changed
    }
}
