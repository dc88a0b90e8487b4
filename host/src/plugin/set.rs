//! Step 7: the plugins of a host, and what they register.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use boxyard_plugin_api::{
    Error,
    abi::{PluginModuleRef, SandboxTypeObject, ToolObject},
};

use super::{
    InitError, InspectError, Inspected, Needed, PluginReport, PluginStatus, Refused,
    copies::Copies,
    decide::{self, Names},
    discover::{self, DiscoverError},
    init,
    inspect::inspect_with,
    load, verify,
};
use crate::{
    backend::Seam,
    config::{Config, LiveConfig, restart},
    registry::{Registry, SandboxType},
    telemetry::PluginLog,
    tool::Tool,
};

/// What a plugin's runtime may overrun its deadline by before it is left behind.
const SHUTDOWN_SLACK: Duration = Duration::from_millis(500);

/// Where the code of plugins runs: puts proxies between the host and what a plugin offers.
///
/// [`InProcess`] puts nothing between.
pub trait Placement: Send + Sync + 'static {
    /// Returns what the host calls in place of what a plugin offers: as many types and tools,
    /// in the same order.
    ///
    /// Called once for each plugin, on a thread that may block, inside the host's runtime.
    ///
    /// # Errors
    ///
    /// The plugin is quarantined with this message.
    fn place(&self, offer: Offer) -> Result<Offer, Error>;
}

/// What one plugin offers.
#[derive(Debug)]
pub struct Offer {
    /// The plugin's name.
    pub plugin: String,
    /// Its sandbox types, as its manifest lists them.
    pub sandbox_types: Vec<SandboxTypeObject>,
    /// Its tools, as its manifest lists them.
    pub tools: Vec<ToolObject>,
}

/// Plugins run in the host's process.
#[derive(Clone, Copy, Debug)]
pub struct InProcess;

impl Placement for InProcess {
    fn place(&self, offer: Offer) -> Result<Offer, Error> {
        Ok(offer)
    }
}

/// The plugins of a host: loaded once, offered as long as their file is there.
pub(crate) struct PluginSet {
    config: LiveConfig,
    host_id: String,
    copies: Copies,
    placement: Box<dyn Placement>,
    /// Held through a search, which takes as long as plugins take to initialise: one at a time.
    search: Mutex<()>,
    /// What is known, held for no longer than a look or a change takes.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Everything that was ever loaded, by the hash of its content: it stays loaded.
    loaded: BTreeMap<String, Arc<Loaded>>,
    /// Why code that ran is not used, by the hash of its content: it is not run a second time,
    /// for what the first time left behind is still there.
    failed: BTreeMap<String, String>,
    scan: Scan,
}

/// What the last search found.
#[derive(Clone, Default)]
pub(crate) struct Scan {
    pub(crate) reports: Vec<PluginReport>,
    pub(crate) problems: Vec<Arc<DiscoverError>>,
    pub(crate) registry: Arc<Registry>,
    /// What the registry is made of.
    offered: Vec<Arc<Loaded>>,
}

impl Scan {
    /// Logs what went wrong in the search.
    fn announced(self) -> Self {
        for report in &self.reports {
            if report.status == PluginStatus::Quarantined {
                let reason = report.reason.as_deref().unwrap_or_default();
                tracing::warn!(path = %report.path.display(), "plugin quarantined: it {reason}");
            }
        }
        for problem in &self.problems {
            tracing::warn!("{problem}");
        }
        self
    }
}

/// A plugin that is loaded.
struct Loaded {
    manifest: boxyard_plugin_api::Manifest,
    /// What the host was configured to then: the plugin goes on with that.
    config: Arc<Config>,
    module: PluginModuleRef,
    sandbox_types: Vec<Arc<SandboxType>>,
    tools: Vec<Arc<Tool>>,
}

impl PluginSet {
    pub(crate) fn new(config: LiveConfig, host_id: String, placement: Box<dyn Placement>) -> Self {
        Self {
            copies: Copies::new(config.get().cache_dir().join("plugins")),
            config,
            host_id,
            placement,
            search: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Searches the directories and loads what is new. Blocks while plugins initialise.
    pub(crate) fn rescan(&self) -> Scan {
        let _alone = self.alone();
        self.found(self.search(None))
    }

    /// Does [`PluginSet::rescan`] and loads only what is needed; everything where that is not
    /// all there.
    pub(crate) fn rescan_needed(&self, needed: &Needed) -> Scan {
        let _alone = self.alone();
        let mut scan = self.search(Some(needed));
        if !needed.is_offered_by(&scan.registry) {
            scan = self.search(None);
        }
        self.found(scan)
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.search.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, scan: Scan) -> Scan {
        let scan = scan.announced();
        self.state().scan = scan.clone();
        scan
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn search(&self, needed: Option<&Needed>) -> Scan {
        let (candidates, problems) = self.candidates();
        let mut reports = Vec::new();
        let mut inspected = Vec::new();
        for (path, result) in inspect_all(&candidates, &self.copies) {
            match result {
                Ok(plugin) => inspected.push(plugin),
                Err(error) => reports.push(PluginReport::unreadable(path, &error)),
            }
        }
        decide::order(&mut inspected);
        let mut names = Names::of_the_host();
        let mut admitted: BTreeMap<String, Arc<Inspected>> = BTreeMap::new();
        let mut offered: Vec<Arc<Loaded>> = Vec::new();
        for plugin in inspected {
            let plugin = Arc::new(plugin);
            if let Some(winner) = admitted.get(&plugin.manifest.name) {
                reports.push(shadowed(&plugin, winner));
                continue;
            }
            let is_needed = needed.is_none_or(|needed| needed.includes(&plugin.manifest));
            let loaded = self.admit(&plugin, &names).and_then(|()| {
                let wanted = is_needed.then(|| self.loaded(&plugin));
                wanted.transpose()
            });
            match loaded {
                Ok(loaded) => {
                    names.take(&plugin.manifest, &plugin.path);
                    admitted.insert(plugin.manifest.name.clone(), Arc::clone(&plugin));
                    if let Some(loaded) = loaded {
                        offered.push(loaded);
                        reports.push(PluginReport::of(&plugin, PluginStatus::Loaded, None));
                    } else {
                        tracing::debug!(path = %plugin.path.display(), "not needed");
                    }
                }
                Err(refused) => {
                    let reason = Some(refused.to_string());
                    let report = PluginReport::of(&plugin, PluginStatus::Quarantined, reason);
                    reports.push(report);
                }
            }
        }
        reports.sort_by(|a, b| a.path.cmp(&b.path));
        let types = offered.iter().flat_map(|loaded| &loaded.sandbox_types);
        let tools = offered.iter().flat_map(|loaded| &loaded.tools);
        let registry = Registry::new(types.cloned(), tools.cloned());
        Scan {
            reports,
            problems,
            registry: Arc::new(registry),
            offered,
        }
    }

    /// Returns what the last search found.
    pub(crate) fn last_scan(&self) -> Scan {
        self.state().scan.clone()
    }

    /// Returns the keys of the configuration of which plugins that are offered have other values, which
    /// they were loaded with.
    pub(crate) fn outdated(&self) -> BTreeSet<String> {
        let (now, scan) = (self.config.get(), self.last_scan());
        let offered = scan.offered.iter();
        offered
            .flat_map(|plugin| restart::of_plugin(&plugin.manifest.name, &plugin.config, &now))
            .collect()
    }

    fn candidates(&self) -> (Vec<PathBuf>, Vec<Arc<DiscoverError>>) {
        let (directories, named) = self.config.get().plugin_dirs();
        let (mut candidates, mut problems) = (Vec::new(), Vec::new());
        let mut searched = BTreeSet::new();
        for directory in directories {
            let directory = std::path::absolute(&directory).unwrap_or(directory);
            if !searched.insert(directory.clone()) {
                tracing::debug!(directory = %directory.display(), "searched already");
                continue;
            }
            match discover::discover(&directory, named) {
                Ok(found) => candidates.extend(found),
                Err(error) => problems.push(Arc::new(error)),
            }
        }
        (candidates, problems)
    }

    /// Takes a plugin through the steps before it is loaded.
    fn admit(&self, plugin: &Inspected, names: &Names) -> Result<(), Refused> {
        let host = self.config.get();
        let config = host.plugin(&plugin.manifest.name);
        verify::verify(plugin, &config, host.trust_plugin_dirs)?;
        decide::admit(plugin, &config)?;
        Ok(names.check(plugin)?)
    }

    /// Takes a plugin through the steps that are left, or finds it loaded.
    fn loaded(&self, plugin: &Arc<Inspected>) -> Result<Arc<Loaded>, Refused> {
        {
            let state = self.state();
            if let Some(known) = state.loaded.get(&plugin.sha256) {
                return Ok(Arc::clone(known));
            }
            if let Some(reason) = state.failed.get(&plugin.sha256) {
                return Err(Refused::Before(reason.clone()));
            }
        }
        let loaded = self.load(plugin).map(Arc::new);
        let (mut state, sha256) = (self.state(), plugin.sha256.clone());
        match &loaded {
            Ok(new) => {
                state.loaded.insert(sha256, Arc::clone(new));
            }
            Err(refused) if refused.ran() => {
                state.failed.insert(sha256, refused.to_string());
            }
            Err(_) => {}
        }
        loaded
    }

    fn load(&self, plugin: &Arc<Inspected>) -> Result<Loaded, Refused> {
        let copy = load::private_copy(plugin, &self.copies)?;
        let name: Arc<str> = plugin.manifest.name.as_str().into();
        let log = Arc::new(PluginLog::new(Arc::clone(&name)));
        let config = self.config.get();
        let started = init::start(plugin, copy, &config, &self.host_id, &log)?;
        let seam = Arc::new(Seam::new(name, log, config.timeouts));
        let (types, type_objects): (Vec<_>, Vec<_>) = started.sandbox_types.into_iter().unzip();
        let (tools, tool_objects): (Vec<_>, Vec<_>) = started.tools.into_iter().unzip();
        let offer = Offer {
            plugin: plugin.manifest.name.clone(),
            sandbox_types: type_objects,
            tools: tool_objects,
        };
        let placed = self.placement.place(offer);
        let placed = placed.map_err(|source| InitError::Failed { source })?;
        tracing::info!(plugin = %plugin.manifest.name, version = %plugin.version, path = %plugin.path.display(), "plugin loaded");
        Ok(Loaded {
            manifest: plugin.manifest.clone(),
            config,
            module: started.module,
            sandbox_types: types
                .into_iter()
                .zip(placed.sandbox_types)
                .map(|(one, object)| Arc::new(SandboxType::new(one, object, Arc::clone(&seam))))
                .collect(),
            tools: tools
                .into_iter()
                .zip(placed.tools)
                .map(|(one, object)| Arc::new(Tool::new(one, object, Arc::clone(&seam))))
                .collect(),
        })
    }

    /// Ends every plugin's runtime; one that overruns the deadline is left behind.
    pub(crate) fn shutdown(&self, deadline: Duration) {
        // One that is being loaded now is left behind: the process does not wait for what may hang.
        let loaded: Vec<_> = self.state().loaded.values().map(Arc::clone).collect();
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let (done, finished) = mpsc::channel();
        for plugin in loaded {
            let done = done.clone();
            thread::spawn(move || {
                if let Err(failure) = plugin.module.call_shutdown(deadline_ms).into_result() {
                    let name = &plugin.manifest.name;
                    tracing::warn!(plugin = %name, "plugin failed to shut down: {}", failure.message);
                }
                drop(done);
            });
        }
        drop(done);
        // Nothing is ever sent: the channel closes when the last thread is done.
        let waited: Result<(), _> = finished.recv_timeout(deadline + SHUTDOWN_SLACK);
        if waited == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("a plugin overran its shutdown deadline and is left behind");
        }
    }
}

/// Inspects files, as many at once as there are processors; answers in their order.
fn inspect_all(
    paths: &[PathBuf],
    copies: &Copies,
) -> Vec<(PathBuf, Result<Inspected, InspectError>)> {
    let one = |path: &PathBuf| (path.clone(), inspect_with(path, copies));
    if paths.len() < 2 {
        return paths.iter().map(one).collect();
    }
    let next = AtomicUsize::new(0);
    // Whoever is done with a file takes the next one: their lengths differ.
    let work = || {
        let taken = iter::from_fn(|| {
            let index = next.fetch_add(1, Ordering::Relaxed);
            paths.get(index).map(|path| (index, one(path)))
        });
        taken.collect::<Vec<_>>()
    };
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let helpers = at_once.min(paths.len()) - 1;
    let mut done = thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for helper in helpers {
            // Inspecting does not panic; were it to, the panic would go on here.
            done.extend(
                helper
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            );
        }
        done
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, inspected)| inspected).collect()
}

fn shadowed(plugin: &Inspected, winner: &Inspected) -> PluginReport {
    let reason = format!(
        "is shadowed by version {} in {}",
        winner.manifest.version,
        winner.path.display()
    );
    PluginReport::of(plugin, PluginStatus::Shadowed, Some(reason))
}
