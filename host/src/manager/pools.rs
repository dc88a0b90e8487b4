//! The pools of a manager, by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use super::{CreateError, Manager};
use crate::{
    pool::{Pool, PoolError, PoolSpec, TooLarge},
    store::Change,
};

/// Why there is no new pool.
#[derive(Debug, thiserror::Error)]
pub enum CreatePoolError {
    /// There is one of that name.
    #[error("there is a pool `{name}` already")]
    Exists {
        /// The name.
        name: String,
    },
    /// No sandbox of it could ever be made.
    #[error(transparent)]
    Sandbox(#[from] CreateError),
    /// It is to be too large.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl Manager {
    /// Makes a pool, which begins to fill itself in the background.
    ///
    /// # Errors
    ///
    /// [`CreatePoolError`]. That it cannot be filled is no error here: see [`Pool::acquire`].
    pub fn create_pool(&self, spec: PoolSpec) -> Result<Arc<Pool>, CreatePoolError> {
        self.make_pool(spec, true)
    }

    /// Does [`Manager::create_pool`] for one that the configuration has, which makes it at each start.
    pub(crate) fn create_configured_pool(
        &self,
        spec: PoolSpec,
    ) -> Result<Arc<Pool>, CreatePoolError> {
        self.make_pool(spec, false)
    }

    /// Checks what a pool is to be made from.
    ///
    /// # Errors
    ///
    /// As [`Manager::create_pool`], that it exists apart.
    pub(crate) fn check_pool(&self, spec: &PoolSpec) -> Result<(), CreatePoolError> {
        PoolSpec::check_size(spec.size)?;
        Ok(self.check(spec.request())?)
    }

    fn make_pool(&self, spec: PoolSpec, is_noted: bool) -> Result<Arc<Pool>, CreatePoolError> {
        self.check_pool(&spec)?;
        let pool = {
            let mut pools = self.pools_by_name();
            if pools.contains_key(&spec.name) {
                return Err(CreatePoolError::Exists { name: spec.name });
            }
            let pool = Pool::new(self, spec, is_noted);
            pools.insert(pool.name().into(), Arc::clone(&pool));
            self.note_pool(&pool);
            pool
        };
        pool.fill();
        Ok(pool)
    }

    /// Puts in a pool of an earlier process, which is not filled yet.
    pub(super) fn put_pool(&self, pool: Arc<Pool>) {
        let name = pool.name().to_owned();
        self.pools_by_name().insert(name, pool);
    }

    /// Notes what a pool is to be, where it outlives the process and is there.
    pub(crate) fn note_pool_soon(&self, pool: &Arc<Pool>) {
        let pools = self.pools_by_name();
        if is_in(&pools, pool) {
            self.note_pool(pool);
        }
    }

    /// Called with the pools locked, as [`Manager::forget_pool`] is: what is noted of a name is in the
    /// order in which it happened.
    fn note_pool(&self, pool: &Pool) {
        if let (Some(store), Some(spec)) = (&self.0.store, pool.to_note()) {
            store.note(Change::PutPool(Box::new(spec)));
        }
    }

    fn forget_pool(&self, name: &str) {
        if let Some(store) = &self.0.store {
            store.note(Change::RemovePool { name: name.into() });
        }
    }

    /// Returns a pool by its name.
    ///
    /// # Errors
    ///
    /// [`PoolError::Unknown`].
    pub fn pool(&self, name: &str) -> Result<Arc<Pool>, PoolError> {
        let pool = self.pools_by_name().get(name).cloned();
        pool.ok_or_else(|| PoolError::Unknown { name: name.into() })
    }

    /// Returns all pools, by name.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.pools_by_name().values().cloned().collect()
    }

    /// Closes a pool: what is idle is deleted, what is in use when it comes back.
    ///
    /// # Errors
    ///
    /// [`PoolError::Unknown`].
    pub fn delete_pool(&self, name: &str) -> Result<(), PoolError> {
        let pool = self.pool(name)?;
        self.remove_pool(&pool);
        Ok(())
    }

    /// Does [`Manager::delete_pool`] for this very pool: another of its name stays.
    pub(crate) fn remove_pool(&self, pool: &Arc<Pool>) {
        {
            let mut pools = self.pools_by_name();
            if is_in(&pools, pool) {
                pools.remove(pool.name());
                self.forget_pool(pool.name());
            }
        }
        pool.close();
    }

    /// Closes every pool.
    pub(super) fn close_pools(&self) {
        for pool in self.pools() {
            self.remove_pool(&pool);
        }
    }

    fn pools_by_name(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pool>>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_in(pools: &BTreeMap<String, Arc<Pool>>, pool: &Arc<Pool>) -> bool {
    let known = pools.get(pool.name());
    known.is_some_and(|known| Arc::ptr_eq(known, pool))
}
