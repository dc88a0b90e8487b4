//! A host: plugins, the registry that they fill, and the manager of the sandboxes.

use std::{
    collections::BTreeSet,
    fmt, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;

use crate::{
    config::{Config, LiveConfig},
    lease,
    manager::Manager,
    plugin::{DiscoverError, InProcess, Needed, Placement, PluginReport, PluginSet, Scan},
    registry::Registry,
    store::{Opened, Store, StoreError},
};

/// How long plugins have to end at least.
const PLUGINS_END: Duration = Duration::from_secs(1);

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error("cannot use the state directory {}: {source}; name another with `state_dir`", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Opening the store panicked.
    #[error("opening the store failed: {message}")]
    StoreTask {
        /// Why.
        message: String,
    },
    /// Loading plugins panicked.
    #[error("loading plugins failed: {message}")]
    Plugins {
        /// Why.
        message: String,
    },
}

/// A running host. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    config: LiveConfig,
    plugins: Arc<PluginSet>,
    manager: Manager,
}

impl Host {
    /// Searches the plugin directories, loads what is in order, and is ready for sandboxes.
    ///
    /// A plugin that is refused is no error: see [`Host::plugins`].
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_placed(config, InProcess).await
    }

    /// Does [`Host::start`] and loads only the plugins that bring what is needed.
    ///
    /// Where that is not all there, the host loads every plugin, as for a start without a need;
    /// so does [`Host::rescan`].
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start_for(config: Config, needed: Needed) -> Result<Self, StartError> {
        let search = move |plugins: &PluginSet| plugins.rescan_needed(&needed);
        Self::start_searching(config, InProcess, search, None).await
    }

    /// Does [`Host::start`] with the configured store: sandboxes outlive the process where their
    /// backends can recover them, and what an earlier process left is taken up.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start_stored(config: Config) -> Result<Self, StartError> {
        let directory = config.store_dir();
        // Before anything is loaded: two hosts on one store would take each other's sandboxes.
        let opened = spawn_blocking(move || Store::open(&directory)).await;
        let opened = opened.map_err(|error| StartError::StoreTask {
            message: error.to_string(),
        })??;
        Self::start_searching(config, InProcess, PluginSet::rescan, Some(opened)).await
    }

    /// Does [`Host::start`] with plugins whose code runs elsewhere.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start_placed(
        config: Config,
        placement: impl Placement,
    ) -> Result<Self, StartError> {
        Self::start_searching(config, placement, PluginSet::rescan, None).await
    }

    async fn start_searching(
        config: Config,
        placement: impl Placement,
        search: impl FnOnce(&PluginSet) -> Scan + Send + 'static,
        stored: Option<Opened>,
    ) -> Result<Self, StartError> {
        let state_dir = config.state_dir();
        let config = LiveConfig::new(config);
        let state = |source| StartError::State {
            path: state_dir.clone(),
            source,
        };
        let host_id = lease::host_id(&state_dir).map_err(state)?;
        let plugins = Arc::new(PluginSet::new(
            config.clone(),
            host_id.clone(),
            Box::new(placement),
        ));
        let searched = {
            let plugins = Arc::clone(&plugins);
            spawn_blocking(move || search(&plugins)).await
        };
        let scan = searched.map_err(|error| StartError::Plugins {
            message: error.to_string(),
        })?;
        let (lease, store, contents) = match stored {
            Some(opened) => (opened.lease, Some(opened.store), Some(opened.contents)),
            None => (Manager::lease(&config.get()).map_err(state)?, None, None),
        };
        let manager = Manager::new(config.clone(), host_id, scan.registry, lease, store);
        if let Some(contents) = contents {
            manager.restore(contents).await;
        }
        Ok(Self {
            config,
            plugins,
            manager,
        })
    }

    /// Searches the plugin directories again.
    ///
    /// What is new is loaded and offered, what is gone is offered no more; sandboxes that are
    /// there go on.
    pub async fn rescan(&self) -> Vec<PluginReport> {
        let plugins = Arc::clone(&self.plugins);
        let scan = match spawn_blocking(move || plugins.rescan()).await {
            Ok(scan) => scan,
            Err(error) => {
                tracing::error!("searching for plugins failed: {error}");
                self.plugins.last_scan()
            }
        };
        self.manager.set_registry(Arc::clone(&scan.registry));
        scan.reports
    }

    /// Returns every file that looks like a plugin, and what became of it.
    pub fn plugins(&self) -> Vec<PluginReport> {
        self.plugins.last_scan().reports
    }

    /// Returns the plugin directories that could not be searched.
    pub fn plugin_dir_problems(&self) -> Vec<Arc<DiscoverError>> {
        self.plugins.last_scan().problems
    }

    /// Returns the sandbox types and tools that are offered now.
    pub fn registry(&self) -> Arc<Registry> {
        self.manager.registry()
    }

    /// Returns the manager of the sandboxes.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Returns what the host is configured to now.
    pub fn config(&self) -> Arc<Config> {
        self.config.get()
    }

    /// Takes another configuration, and searches the plugin directories again.
    ///
    /// Sandboxes that are there go on as they were asked for. What is used from the start stays until
    /// a restart, and the log warns of each key that differs from it:
    ///
    /// * `log`, `state_dir`, `cache_dir`, `store`;
    /// * of a server, `http.listen`, `http.max_body_bytes`, `http.max_held_bytes`,
    ///   `http.max_archive_bytes`, `http.max_connections`, `http.max_requests`, `http.read_timeout`;
    /// * of each plugin that is loaded, `settings`, `plugin_threads`, `timeouts.probe`,
    ///   `timeouts.create`, `timeouts.start`, `timeouts.stop`, `timeouts.cleanup`,
    ///   `timeouts.cancel_grace`.
    pub async fn reload(&self, config: Config) -> Vec<PluginReport> {
        let mut stays: BTreeSet<String> = self.config.set(config).into_iter().collect();
        let reports = self.rescan().await;
        stays.append(&mut self.plugins.outdated());
        for key in stays {
            tracing::warn!("`{key}` stays as it was until a restart: its change is not in force");
        }
        reports
    }

    /// Deletes every sandbox that is not kept and ends the plugins, within the configured deadline.
    pub async fn shutdown(&self) {
        self.shutdown_within(self.config.get().timeouts.shutdown)
            .await;
    }

    /// Does [`Host::shutdown`] within what is left of a deadline.
    pub(crate) async fn shutdown_within(&self, deadline: Duration) {
        let began = Instant::now();
        self.manager.shutdown(deadline).await;
        // There is some time for that, however long the sandboxes took.
        let left = deadline.saturating_sub(began.elapsed()).max(PLUGINS_END);
        let plugins = Arc::clone(&self.plugins);
        // A panic in there was logged; there is nothing left to do about it.
        let _ = spawn_blocking(move || plugins.shutdown(left)).await;
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("config", &self.config.get())
            .finish_non_exhaustive()
    }
}
