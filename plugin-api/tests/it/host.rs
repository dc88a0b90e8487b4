//! The host's end: opens the plugin as a host does, once a process, and keeps what it says.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    process::Command,
    sync::{Arc, Mutex, OnceLock, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use abi_stable::std_types::{RResult, RStr};
use boxyard_plugin_api::{
    API_VERSION, Call, CallController, Error, Result, SandboxHandle, SandboxIdentity, State,
    abi::{
        HostServices, HostServicesObject, InitRequest, PluginModuleRef, SandboxServices,
        SandboxServicesObject, SandboxTypeObject, Telemetry, TelemetryLabels, ToolObject,
        layout::{Older, open_root_module},
    },
    register::CallFuture,
};
use serde_json::Value;
use tokio::{sync::Notify, task::JoinHandle};

use crate::plugin;

/// How long anything may take that is bound to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The plugin in the host's hands.
pub(crate) struct Plugin {
    pub module: PluginModuleRef,
    sandbox_types: BTreeMap<String, SandboxTypeObject>,
    tools: BTreeMap<String, ToolObject>,
    /// Every record that the plugin sent.
    pub log: Arc<Recorder<Telemetry>>,
}

impl Plugin {
    pub(crate) fn sandbox_type(&self, name: &str) -> &SandboxTypeObject {
        &self.sandbox_types[name]
    }

    pub(crate) fn tool(&self, name: &str) -> &ToolObject {
        &self.tools[name]
    }

    /// Makes a sandbox, which is not started.
    pub(crate) async fn create(
        &self,
        sandbox_type: &str,
        config: Value,
    ) -> (SandboxHandle, Services) {
        let services = Services::new();
        let sandbox = self
            .sandbox_type(sandbox_type)
            .create(&config, services.object(), call())
            .await
            .unwrap();
        (sandbox, services)
    }

    /// Waits until the plugin logged a message that contains `text`; returns the event.
    pub(crate) async fn logged(&self, text: &str) -> LoggedEvent {
        let found = self.log.wait_for(text, |record| match record {
            Telemetry::Event { message, .. } => message.contains(text),
            _ => false,
        });
        LoggedEvent::try_from(found.await).unwrap()
    }
}

/// A [`Telemetry::Event`].
#[derive(Debug)]
pub(crate) struct LoggedEvent {
    pub level: String,
    pub target: String,
    pub message: String,
    pub fields: BTreeMap<String, Value>,
    pub span: u64,
    pub labels: TelemetryLabels,
}

impl TryFrom<Telemetry> for LoggedEvent {
    type Error = Telemetry;

    fn try_from(record: Telemetry) -> Result<Self, Telemetry> {
        match record {
            Telemetry::Event {
                level,
                target,
                message,
                fields,
                span,
                labels,
            } => Ok(Self {
                level,
                target,
                message,
                fields,
                span,
                labels,
            }),
            other => Err(other),
        }
    }
}

/// Returns the plugin that the tests of this process share.
///
/// `init` sets the process's log and panic hook: it can be done once.
pub(crate) fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| open(Value::Null).unwrap())
}

/// Opens the plugin with an operator's settings.
pub(crate) fn open(settings: Value) -> Result<Plugin> {
    // Entries are called from threads of the host's own, never from an async task.
    std::thread::scope(|scope| scope.spawn(|| init(settings)).join().unwrap())
}

/// Does nothing but call `init`.
pub(crate) fn call_init(
    module: PluginModuleRef,
    settings: Value,
    log: Arc<Recorder<Telemetry>>,
) -> Result<()> {
    let request = InitRequest {
        host_version: "9.8.7".into(),
        host_api: API_VERSION.into(),
        host_id: "test-host".into(),
        path: "/plugins/test.so".into(),
        data_dir: "/var/lib/test".into(),
        runtime_threads: 2,
        log_filter: "info".into(),
        settings,
    };
    let request = serde_json::to_string(&request).unwrap();
    let host = HostServicesObject::from_services(Log(log));
    answer(module.call_init(RStr::from_str(&request), host))
}

fn init(settings: Value) -> Result<Plugin> {
    let module = open_root_module(plugin::header(), Older::Host).unwrap();
    let log = Arc::new(Recorder::new());
    let standard_hook = std::panic::take_hook();
    call_init(module, settings, Arc::clone(&log))?;
    // Both sides share one standard library here: the plugin's hook must not swallow what a
    // failing test says.
    let plugin_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        plugin_hook(info);
        if std::thread::current().name() != Some("boxyard-plugin") {
            standard_hook(info);
        }
    }));
    // What cannot describe itself is known by the name that its manifest gives it.
    let name = |described: Result<String>| described.unwrap_or_else(|_| "indescribable".into());
    let sandbox_types = module.call_sandbox_types().into_iter();
    let tools = module.call_tools().into_iter();
    Ok(Plugin {
        module,
        sandbox_types: sandbox_types
            .map(|object| (name(object.describe().map(|of| of.name)), object))
            .collect(),
        tools: tools
            .map(|object| (name(object.describe().map(|of| of.name)), object))
            .collect(),
        log,
    })
}

/// Turns what a plain entry answers into a [`Result`].
pub(crate) fn answer<T, E: Into<Error>>(result: RResult<T, E>) -> Result<T> {
    result.into_result().map_err(Into::into)
}

/// Returns the context of a call without a deadline that nobody cancels.
pub(crate) fn call() -> Call {
    CallController::new(0).call()
}

/// Makes a call go on by itself until it is aborted, as a host's task does.
pub(crate) fn going<T: Send + 'static>(answer: CallFuture<T>) -> JoinHandle<Result<T>> {
    tokio::spawn(answer)
}

/// Returns whether this process is the one that runs the test named `test` alone.
///
/// Otherwise it makes such a process and checks that the test passes there: for what can be
/// done once a process, or would disturb the other tests.
pub(crate) fn alone(test: &str) -> bool {
    const VARIABLE: &str = "BOXYARD_TEST_ALONE";
    if std::env::var_os(VARIABLE).is_some_and(|alone| alone == test) {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(VARIABLE, test)
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "alone, `{test}` ended with {}:\n{stdout}\n{stderr}",
        output.status
    );
    false
}

/// What was said to the host, in order, and a way to wait for it.
#[derive(Debug)]
pub(crate) struct Recorder<T> {
    items: Mutex<Vec<T>>,
    added: Notify,
}

impl<T: Clone + Debug> Recorder<T> {
    pub(crate) fn new() -> Self {
        Self {
            items: Mutex::new(Vec::new()),
            added: Notify::new(),
        }
    }

    pub(crate) fn push(&self, item: T) {
        self.items.lock().unwrap().push(item);
        self.added.notify_waiters();
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.items.lock().unwrap().clone()
    }

    /// Waits for an item, one that is there already included.
    pub(crate) async fn wait_for(&self, what: &str, matches: impl Fn(&T) -> bool) -> T {
        let search = async {
            loop {
                let added = self.added.notified();
                if let Some(found) = self.all().into_iter().find(&matches) {
                    return found;
                }
                added.await;
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for `{what}`; there is {:#?}", self.all()),
        }
    }
}

/// The host's log.
struct Log(Arc<Recorder<Telemetry>>);

impl HostServices for Log {
    fn telemetry(&self, record: Telemetry) {
        self.0.push(record);
    }
}

/// What a sandbox told the host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Notice {
    Event(String, Value),
    Metadata(String, Value),
    Exited(String),
    Saved(State),
}

/// The services of one sandbox.
#[derive(Clone)]
pub(crate) struct Services {
    pub identity: SandboxIdentity,
    pub notices: Arc<Recorder<Notice>>,
    /// The answer to [`SandboxServices::save_state`].
    save: Result<()>,
}

impl Services {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("sandbox-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut identity = SandboxIdentity::new(id, "test-host", "test-lease");
        identity.name = "a name".into();
        identity.labels = BTreeMap::from([("team".into(), "red".into())]);
        Self {
            identity,
            notices: Arc::new(Recorder::new()),
            save: Ok(()),
        }
    }

    pub(crate) fn refusing_to_save(error: Error) -> Self {
        Self {
            save: Err(error),
            ..Self::new()
        }
    }

    pub(crate) fn object(&self) -> SandboxServicesObject {
        SandboxServicesObject::from_services(self.clone())
    }

    pub(crate) fn id(&self) -> &str {
        &self.identity.id
    }

    /// Waits for an event of this kind; returns its data.
    pub(crate) async fn event(&self, kind: &str) -> Value {
        let is_it = |notice: &Notice| matches!(notice, Notice::Event(found, _) if found == kind);
        match self.notices.wait_for(kind, is_it).await {
            Notice::Event(_, data) => data,
            _ => Value::Null,
        }
    }
}

impl SandboxServices for Services {
    fn identity(&self) -> SandboxIdentity {
        self.identity.clone()
    }

    fn event(&self, kind: String, data: Value) {
        self.notices.push(Notice::Event(kind, data));
    }

    fn set_metadata(&self, key: String, value: Value) {
        self.notices.push(Notice::Metadata(key, value));
    }

    fn exited(&self, reason: String) {
        self.notices.push(Notice::Exited(reason));
    }

    async fn save_state(&self, state: State) -> Result<()> {
        self.notices.push(Notice::Saved(state));
        self.save.clone()
    }
}
