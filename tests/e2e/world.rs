//! A host of its own for a test, with the `wild` plugin, whose steps it watches.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use boxyard_conformance::{Library, Yard, loopback::Loopback};
use boxyard_host::{
    Command, CommandResult, Config, CreateError, CreateRequest, Error, Event, Host, PluginConfig,
    Sandbox, Status, ToolResult, plugin::InProcess,
};
use serde_json::{Map, Value, json};

/// Where plugins run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    InProcess,
    Loopback,
}

/// Makes two tests of each function: in process, and through the loopback proxy.
macro_rules! at_both {
    ($($promise:ident),* $(,)?) => {$(
        mod $promise {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_process() {
                let promise = super::$promise($crate::world::At::InProcess);
                $crate::world::bounded(promise).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn loopback() {
                let promise = super::$promise($crate::world::At::Loopback);
                $crate::world::bounded(promise).await;
            }
        }
    )*};
}
pub(crate) use at_both;

/// The name of the plugin that does as it is told.
pub(crate) const PLUGIN: &str = "wild";

/// A host of its own, and the journal in which its `wild` plugin notes every step.
pub(crate) struct World {
    pub(crate) host: Host,
    yard: Yard,
}

/// Fails a test that hangs.
pub(crate) async fn bounded(promise: impl Future<Output = ()>) {
    let done = tokio::time::timeout(Duration::from_secs(120), promise).await;
    done.expect("the test hangs");
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(30), wait).await;
    assert!(done.is_ok(), "never came true: {what}");
}

impl World {
    pub(crate) async fn new(at: At) -> Self {
        Self::with(at, |_| {}).await
    }

    /// Makes a world whose host is configured otherwise.
    pub(crate) async fn with(at: At, tune: impl FnOnce(&mut Config)) -> Self {
        crate::logs::collect();
        let mut yard = Yard::new().unwrap();
        yard.put("wild.so", &Library::example("wild").unwrap())
            .unwrap();
        let journal = yard.root().join("journal");
        let config = &mut yard.config;
        config.timeouts.load = Duration::from_secs(60);
        config.timeouts.sweep_grace = Duration::ZERO;
        config.plugins.insert(
            PLUGIN.into(),
            PluginConfig {
                settings: object(json!({ "journal": journal })),
                ..PluginConfig::default()
            },
        );
        tune(config);
        Self {
            host: start(at, yard.config.clone()).await,
            yard,
        }
    }

    /// Starts another host on the same plugins and the same state.
    pub(crate) async fn neighbour(&self, at: At) -> Host {
        let config = Config {
            cache_dir: Some(self.path("neighbours-cache")),
            ..Config::clone(&self.host.config())
        };
        start(at, config).await
    }

    /// Puts the `visitor` fixture beside `wild`.
    pub(crate) async fn invite_visitor(&self) {
        let visitor = Library::example("visitor").unwrap();
        self.yard.put("visitor.so", &visitor).unwrap();
        let reports = self.host.rescan().await;
        let visitor = self.host.registry().tool("visitor", "wild").is_ok();
        assert!(visitor, "{reports:?}");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.yard.root().join(name)
    }

    /// Asks for a `wild` sandbox that misbehaves so.
    pub(crate) fn request(&self, config: Value) -> CreateRequest {
        let mut config = object(config);
        config.insert("journal".into(), json!(self.path("journal")));
        CreateRequest::new("wild").config(config)
    }

    pub(crate) async fn create(&self, config: Value) -> Result<Arc<Sandbox>, CreateError> {
        self.host.manager().create(self.request(config)).await
    }

    pub(crate) async fn sandbox(&self, config: Value) -> Arc<Sandbox> {
        self.create(config).await.unwrap()
    }

    /// Checks that the host goes on: another sandbox of the plugin lives its whole life.
    pub(crate) async fn goes_on(&self) {
        let sandbox = self.sandbox(json!({})).await;
        let result = run(&sandbox, &["echo", "still", "here"]).await.unwrap();
        assert_eq!(result.stdout_text(), "still here");
        self.host.manager().delete(sandbox.id()).await.unwrap();
    }

    /// Returns what the plugin's sandboxes did, oldest first.
    pub(crate) fn journal(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("journal")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn clear_journal(&self) {
        // There may be none yet.
        let _ = fs::remove_file(self.path("journal"));
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.journal().iter().filter(|noted| *noted == line).count()
    }

    /// Waits until the plugin noted something.
    pub(crate) async fn noted(&self, line: &str) {
        eventually(&format!("`{line}` in the journal"), || self.count(line) > 0).await;
    }

    /// Lets what waits for a gate pass.
    pub(crate) fn open_gate(&self, name: &str) {
        fs::write(self.path("journal").with_extension(name), "").unwrap();
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.path("state/leases")
    }
}

async fn start(at: At, config: Config) -> Host {
    let host = match at {
        At::InProcess => Host::start_placed(config, InProcess).await,
        At::Loopback => Host::start_placed(config, Loopback).await,
    };
    host.unwrap()
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is no object"),
    }
}

pub(crate) async fn run(sandbox: &Arc<Sandbox>, argv: &[&str]) -> Result<CommandResult, Error> {
    sandbox.run(Command::argv(argv.iter().copied()), None).await
}

pub(crate) async fn tool(sandbox: &Arc<Sandbox>, action: &str) -> ToolResult {
    let params = json!({ "action": action });
    sandbox
        .execute_tool("wild_tool", params, None)
        .await
        .unwrap()
}

pub(crate) fn error_of(sandbox: &Sandbox) -> String {
    let events = sandbox.events();
    let error = events.iter().find(|event| event.kind == "error").unwrap();
    error.data["error"].as_str().unwrap().to_owned()
}

pub(crate) async fn status_is(sandbox: &Sandbox, status: Status) {
    let what = format!("{status} of {}", sandbox.id());
    eventually(&what, || sandbox.status() == status).await;
}

pub(crate) fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

pub(crate) fn files_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}
