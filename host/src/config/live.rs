//! The configuration of a running host, which may be replaced.

use std::sync::{Arc, PoisonError, RwLock};

use super::Config;

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

    /// Replaces it. What was there at the start and cannot change stays as it was.
    pub(crate) fn set(&self, mut config: Config) {
        let mut place = self.0.write().unwrap_or_else(PoisonError::into_inner);
        config.state_dir.clone_from(&place.state_dir);
        config.cache_dir.clone_from(&place.cache_dir);
        config.store.clone_from(&place.store);
        config.log.clone_from(&place.log);
        config.http.listen = place.http.listen;
        *place = Arc::new(config);
    }
}
