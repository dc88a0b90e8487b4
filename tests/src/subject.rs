//! The plugin under test, as a case has it: loaded by a real host, called over its own ABI.

pub(crate) mod bench;
mod live;
pub(crate) mod log;
pub(crate) mod process;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use boxyard_host::{
    Config, Error, Host, PluginReport, PluginStatus,
    plugin::{Inspected, Offer, Placement, inspect},
};
use boxyard_plugin_api::{
    Call, CallController, Health, SandboxHandle, SandboxTypeDescriptor, State, SweepRequest, Swept,
    ToolDescriptor,
    abi::{
        DynBackend, DynTool, SandboxObject, SandboxServicesObject, SandboxTypeObject, ToolObject,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::verdict::Outcome;

use process::ProcessState;

pub(crate) use live::{Live, collect, driven, identity, services, streams, within};

/// What a case is about: a plugin, one of its types, and how to make sandboxes of that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The library; in the process of a case, alone in its directory.
    pub plugin: PathBuf,
    /// The sandbox type; the plugin's first where `None`.
    #[serde(default)]
    pub sandbox_type: Option<String>,
    /// The configuration of sandboxes; what the schema's defaults make of it.
    #[serde(default)]
    pub config: Map<String, Value>,
}

/// What a plugin offers, as its code says it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Offered {
    /// Its sandbox types.
    pub sandbox_types: Vec<SandboxTypeDescriptor>,
    /// Its tools.
    pub tools: Vec<ToolDescriptor>,
}

/// A plugin under test, in the process of one case.
#[derive(Debug)]
pub struct Subject {
    target: Target,
    seed: u64,
    lease: String,
    /// This process as it was before the plugin was loaded.
    before: ProcessState,
    /// How long loading it took.
    loading: Duration,
    /// For everything that the case writes; gone with it.
    root: TempDir,
    host: Host,
    report: PluginReport,
    types: Vec<Arc<SandboxTypeObject>>,
    tools: Vec<Arc<ToolObject>>,
}

impl Subject {
    /// Loads the plugin.
    ///
    /// # Errors
    ///
    /// There is no plugin at all, or no place to put one; that it is refused is in its report.
    pub async fn load(target: Target, seed: u64, place: Place) -> Result<Self> {
        log::keep();
        let Place { root, cache, lease } = place;
        let captured = Captured::default();
        let config = config(&target, root.path(), cache)?;
        let before = ProcessState::now()?;
        let began = Instant::now();
        let host = Host::start_placed(config, captured.clone()).await?;
        let loading = began.elapsed();
        let report = host.plugins().into_iter().next();
        let report = report.context("the host found no plugin")?;
        let (types, tools) = captured.take();
        Ok(Self {
            target,
            seed,
            lease,
            before,
            loading,
            root,
            host,
            report,
            types,
            tools,
        })
    }

    /// Inspects the library's bytes.
    pub(crate) fn inspect(&self) -> Result<Inspected> {
        Ok(inspect(&self.target.plugin)?)
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn report(&self) -> &PluginReport {
        &self.report
    }

    /// What everything random in the case comes from.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The lease of the host that the case is.
    pub(crate) fn lease(&self) -> &str {
        &self.lease
    }

    /// The lease of a host that is dead.
    pub(crate) fn dead_lease(&self) -> String {
        dead(&self.lease)
    }

    /// Removes what is left of cases that are over.
    pub(crate) async fn sweep(&self, cases: &[String]) -> Result<()> {
        let leases = cases.iter().flat_map(|lease| [lease.clone(), dead(lease)]);
        let request = SweepRequest::new("conformance", leases);
        self.sandbox_type()?.sweep(&request, call()).await?;
        Ok(())
    }

    pub(crate) fn before(&self) -> &ProcessState {
        &self.before
    }

    pub(crate) fn loading(&self) -> Duration {
        self.loading
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The directory that the plugin was given for itself.
    pub(crate) fn data_dir(&self) -> Result<PathBuf> {
        let name = self.report.name.as_deref().context("it has no name")?;
        Ok(self.root().join("state/plugins").join(name))
    }

    /// Whether the plugin is loaded, and why not.
    pub(crate) fn loaded(&self) -> Result<()> {
        ensure!(
            self.report.status == PluginStatus::Loaded,
            "the host does not load it: {}",
            self.report.reason.as_deref().unwrap_or("without a reason")
        );
        Ok(())
    }

    /// What the plugin offers.
    pub fn offered(&self) -> Result<Offered> {
        self.loaded()?;
        let types = self.types.iter().map(|object| object.describe());
        let tools = self.tools.iter().map(|object| object.describe());
        Ok(Offered {
            sandbox_types: types.collect::<Result<_, _>>()?,
            tools: tools.collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn tools(&self) -> &[Arc<ToolObject>] {
        &self.tools
    }

    /// The sandbox type under test.
    pub(crate) fn sandbox_type(&self) -> Result<&Arc<SandboxTypeObject>> {
        self.loaded()?;
        let Some(wanted) = &self.target.sandbox_type else {
            return self.types.first().context("it has no sandbox type");
        };
        for object in &self.types {
            if object.describe()?.name == *wanted {
                return Ok(object);
            }
        }
        anyhow::bail!("it has no sandbox type `{wanted}`")
    }

    pub(crate) fn descriptor(&self) -> Result<SandboxTypeDescriptor> {
        Ok(self.sandbox_type()?.describe()?)
    }

    pub(crate) fn declares(&self, capability: &str) -> Result<bool> {
        let declared = self.descriptor()?.capabilities;
        Ok(declared.iter().any(|declared| declared == capability))
    }

    /// The configuration under test, checked and with its defaults.
    pub(crate) fn config(&self) -> Result<Value> {
        self.config_with(json!({}))
    }

    /// The same with other keys.
    pub(crate) fn config_with(&self, changes: Value) -> Result<Value> {
        let mut config = self.target.config.clone();
        if let Value::Object(changes) = changes {
            config.extend(changes);
        }
        let name = self.descriptor()?.name;
        let registry = self.host.registry();
        let sandbox_type = registry.sandbox_type(&name)?;
        Ok(sandbox_type.check_config(Value::Object(config))?)
    }

    /// A sandbox that was made and started.
    pub(crate) async fn sandbox(&self) -> Outcome<Live> {
        let live = self.created().await?;
        live.start().await?;
        Ok(live)
    }

    /// A sandbox that was made and not started.
    pub(crate) async fn created(&self) -> Outcome<Live> {
        let config = self.config()?;
        Ok(Live::create(self.sandbox_type()?, &config, self.lease()).await?)
    }

    /// Ends the host, as every host ends.
    pub(crate) async fn shut_down(self) {
        self.host.shutdown().await;
    }
}

/// A call that nobody gives up.
pub(crate) fn call() -> Call {
    CallController::new(0).call()
}

/// Where a case writes.
#[derive(Debug)]
pub struct Place {
    /// For everything of the case alone; gone with it.
    pub root: TempDir,
    /// For the private copies of plugins, which all cases of a run share.
    pub cache: PathBuf,
    /// The lease of the host that the case is: nobody else's, for others run on the same engine.
    pub lease: String,
}

/// The lease of a host that is dead, in the case whose own lease this is.
fn dead(lease: &str) -> String {
    format!("{lease}-dead")
}

/// A host with this plugin alone, and everything it writes under `root`.
fn config(target: &Target, root: &Path, cache: PathBuf) -> Result<Config> {
    let plugins = target
        .plugin
        .parent()
        .context("the plugin has no directory")?;
    Ok(Config {
        plugin_dirs: Some(vec![plugins.into()]),
        state_dir: Some(root.join("state")),
        cache_dir: Some(cache),
        // What lies where an author builds belongs to whoever can write there.
        trust_plugin_dirs: true,
        log: "trace".into(),
        ..Config::default()
    })
}

/// Keeps what the plugin offers for the case, and gives the host something in its place.
#[derive(Clone, Debug, Default)]
struct Captured(Arc<Mutex<Objects>>);

type Objects = (Vec<Arc<SandboxTypeObject>>, Vec<Arc<ToolObject>>);

impl Captured {
    fn take(&self) -> Objects {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Placement for Captured {
    fn place(&self, offer: Offer) -> Result<Offer, Error> {
        let types: Vec<_> = offer.sandbox_types.into_iter().map(Arc::new).collect();
        let tools: Vec<_> = offer.tools.into_iter().map(Arc::new).collect();
        let described = types.iter().map(|object| object.describe());
        let described = described.collect::<Result<Vec<_>, _>>()?;
        let of_tools = tools.iter().map(|object| object.describe());
        let of_tools = of_tools.collect::<Result<Vec<_>, _>>()?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (types, tools);
        let absent = described.into_iter().map(Absent);
        let absent_tools = of_tools.into_iter().map(AbsentTool);
        Ok(Offer {
            plugin: offer.plugin,
            sandbox_types: absent.map(SandboxTypeObject::from_backend).collect(),
            tools: absent_tools.map(ToolObject::from_tool).collect(),
        })
    }
}

/// A type that only describes itself: cases call the plugin's own.
struct Absent(SandboxTypeDescriptor);

fn absent<T>() -> Result<T, Error> {
    Err(Error::unsupported("what a case keeps for itself"))
}

impl DynBackend for Absent {
    fn describe(&self) -> SandboxTypeDescriptor {
        self.0.clone()
    }

    async fn probe(&self, _call: &Call) -> Result<Health, Error> {
        Ok(Health::healthy())
    }

    async fn create(
        &self,
        _config: Value,
        _services: SandboxServicesObject,
        _call: &Call,
    ) -> Result<SandboxObject, Error> {
        absent()
    }

    async fn recover(
        &self,
        _state: State,
        _services: SandboxServicesObject,
        _call: &Call,
    ) -> Result<Option<SandboxObject>, Error> {
        absent()
    }

    async fn sweep(&self, _request: SweepRequest, _call: &Call) -> Result<Swept, Error> {
        absent()
    }
}

/// A tool that only describes itself.
struct AbsentTool(ToolDescriptor);

impl DynTool for AbsentTool {
    fn describe(&self) -> ToolDescriptor {
        self.0.clone()
    }

    async fn execute(
        &self,
        _params: Value,
        _sandbox: SandboxHandle,
        _call: &Call,
    ) -> Result<Value, Error> {
        absent()
    }
}
