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
use tokio_util::sync::CancellationToken;
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

/// Why a sandbox was not stopped or deleted.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// There is no such sandbox.
    #[error("there is no sandbox `{id}`")]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// The backend failed; the sandbox stays, as an error, and can be deleted again.
    #[error("cannot {step} sandbox `{id}`: {source}")]
    Backend {
        /// `stop` or `delete`.
        step: &'static str,
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
    /// Cancelled at shutdown: what is being made is given up.
    closing: CancellationToken,
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
            closing: CancellationToken::new(),
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
    /// [`EndError`].
    pub async fn delete(&self, id: &str) -> Result<(), EndError> {
        let sandbox = self.known(id)?;
        for pool in self.pools() {
            if pool.forget(id) {
                self.note_pool_soon(&pool);
            }
        }
        self.remove(sandbox).await
    }

    /// Does [`Manager::delete`] for one that no pool has any more.
    pub(crate) async fn remove(&self, sandbox: Arc<Sandbox>) -> Result<(), EndError> {
        let (manager, id) = (self.clone(), sandbox.id().to_owned());
        let ending = async move {
            sandbox.end().await?;
            sandbox.forget().await;
            manager.sandboxes().by_id.remove(sandbox.id());
            Ok(())
        };
        to_its_end("delete", id, ending).await
    }

    /// Does [`Manager::remove`] in the background.
    fn remove_soon(&self, sandbox: Arc<Sandbox>) {
        let manager = self.clone();
        tokio::spawn(async move {
            // One that cannot be deleted is an error now, and is tried again when that is over.
            if let Err(error) = manager.remove(sandbox).await {
                tracing::warn!("{error}");
            }
        });
    }

    /// Stops a sandbox: everything that runs in it ends, what it holds stays until it is deleted.
    ///
    /// Runs in a task of its own, to its end, also when this future is dropped.
    ///
    /// # Errors
    ///
    /// [`EndError`].
    pub async fn stop(&self, id: &str) -> Result<(), EndError> {
        let sandbox = self.known(id)?;
        to_its_end("stop", id.into(), async move { sandbox.stop().await }).await
    }

    fn known(&self, id: &str) -> Result<Arc<Sandbox>, EndError> {
        self.get(id)
            .ok_or_else(|| EndError::NotFound { id: id.into() })
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

/// Runs what ends a sandbox in a task of its own.
async fn to_its_end(
    step: &'static str,
    id: String,
    ending: impl Future<Output = Result<(), Error>> + Send + 'static,
) -> Result<(), EndError> {
    let ended = tokio::spawn(ending.in_current_span())
        .await
        .unwrap_or_else(|error| Err(Error::internal(error)));
    ended.map_err(|source| EndError::Backend { step, id, source })
}
