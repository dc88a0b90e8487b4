//! The manager: owns the sandboxes of a host, finds them, stops and deletes them.

mod create;
mod pools;
mod reaper;
mod request;
mod restore;
mod shutdown;
mod sweep;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::Duration,
};

use boxyard_plugin_api::Error;
use tokio::sync::Notify;
use tracing::Instrument;

use crate::{
    config::{Config, LiveConfig},
    lease::Lease,
    pool::Pool,
    registry::Registry,
    sandbox::Sandbox,
    store::Store,
};

pub use create::CreateError;
pub use pools::CreatePoolError;
pub(crate) use request::ToolsConfig;
pub use request::{CreateRequest, Filter};

/// Why a sandbox was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// There is no such sandbox.
    #[error("there is no sandbox `{id}`")]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// The backend failed; the sandbox stays, as an error, and can be deleted again.
    #[error("cannot delete sandbox `{id}`: {source}")]
    Backend {
        /// The sandbox.
        id: String,
        /// What it says.
        source: Error,
    },
}

/// Owns the sandboxes of a host.
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

struct Inner {
    config: LiveConfig,
    host_id: String,
    lease: Lease,
    /// Where sandboxes are noted that are to outlive the process.
    store: Option<Store>,
    registry: RwLock<Arc<Registry>>,
    sandboxes: Mutex<Sandboxes>,
    /// Told, one at a time, when a creation ended.
    made: Notify,
    pools: Mutex<BTreeMap<String, Arc<Pool>>>,
}

/// A manager that may be gone.
#[derive(Clone)]
pub(crate) struct WeakManager(Weak<Inner>);

impl WeakManager {
    pub(crate) fn upgrade(&self) -> Option<Manager> {
        self.0.upgrade().map(Manager)
    }
}

#[derive(Default)]
struct Sandboxes {
    by_id: BTreeMap<String, Arc<Sandbox>>,
    /// Creations that are under way, by sandbox type.
    creating: BTreeMap<String, usize>,
    closed: bool,
}

impl Manager {
    pub(crate) fn new(
        config: LiveConfig,
        host_id: String,
        registry: Arc<Registry>,
        lease: Lease,
        store: Option<Store>,
    ) -> Self {
        let manager = Self(Arc::new(Inner {
            config,
            host_id,
            lease,
            store,
            registry: RwLock::new(registry),
            sandboxes: Mutex::default(),
            made: Notify::new(),
            pools: Mutex::default(),
        }));
        reaper::run(&manager);
        manager
    }

    /// Takes a lease that lives as long as this process.
    pub(crate) fn lease(config: &Config) -> io::Result<Lease> {
        Lease::take(&leases(config))
    }

    pub(crate) fn downgrade(&self) -> WeakManager {
        WeakManager(Arc::downgrade(&self.0))
    }

    /// Returns the sandbox types and tools that are offered now.
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(
            &self
                .0
                .registry
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Offers other types and tools from now on; sandboxes that are there go on.
    pub(crate) fn set_registry(&self, registry: Arc<Registry>) {
        *self
            .0
            .registry
            .write()
            .unwrap_or_else(PoisonError::into_inner) = registry;
    }

    /// Returns a sandbox by its id.
    pub fn get(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.sandboxes().by_id.get(id).cloned()
    }

    /// Returns all sandboxes, by id.
    pub fn list(&self) -> Vec<Arc<Sandbox>> {
        self.sandboxes().by_id.values().cloned().collect()
    }

    /// Returns those that are wanted, by id.
    pub fn find(&self, filter: &Filter) -> Vec<Arc<Sandbox>> {
        let sandboxes = self.sandboxes();
        let wanted = sandboxes
            .by_id
            .values()
            .filter(|sandbox| filter.wants(sandbox));
        wanted.cloned().collect()
    }

    /// Stops a sandbox and gives back everything that it holds.
    ///
    /// Runs in a task of its own, to its end, also when this future is dropped.
    ///
    /// # Errors
    ///
    /// [`DeleteError`].
    pub async fn delete(&self, id: &str) -> Result<(), DeleteError> {
        let sandbox = self
            .get(id)
            .ok_or_else(|| DeleteError::NotFound { id: id.into() })?;
        for pool in self.pools() {
            pool.forget(id);
        }
        let manager = self.clone();
        let ending = async move {
            sandbox.end().await?;
            sandbox.forget().await;
            manager.sandboxes().by_id.remove(sandbox.id());
            Ok(())
        };
        let ended = tokio::spawn(ending.in_current_span())
            .await
            .unwrap_or_else(|error| Err(Error::internal(error)));
        ended.map_err(|source| DeleteError::Backend {
            id: id.into(),
            source,
        })
    }

    /// Stops a sandbox: everything that runs in it ends, what it holds stays until it is deleted.
    ///
    /// # Errors
    ///
    /// [`DeleteError`].
    pub async fn stop(&self, id: &str) -> Result<(), DeleteError> {
        let sandbox = self
            .get(id)
            .ok_or_else(|| DeleteError::NotFound { id: id.into() })?;
        let stopping = async move { sandbox.stop().await };
        let stopped = tokio::spawn(stopping.in_current_span())
            .await
            .unwrap_or_else(|error| Err(Error::internal(error)));
        stopped.map_err(|source| DeleteError::Backend {
            id: id.into(),
            source,
        })
    }

    fn sandboxes(&self) -> MutexGuard<'_, Sandboxes> {
        self.0
            .sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn leases(config: &Config) -> PathBuf {
    config.state_dir().join("leases")
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
