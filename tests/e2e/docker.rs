//! The docker plugin on a real engine: what dies, what is done behind its back, and what tries to
//! get out.
//!
//! Every test has a host of its own, whose label finds what it made; nothing else is touched.

mod behind;
mod chaos;
mod ending;
mod escape;
mod full;
mod inputs;
mod mounts;
mod outage;
mod podman;
mod private;
mod relay;
mod served;
mod starting;
mod tools;

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::{self, Command, Output, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use boxyard_conformance::{Library, Yard, cargo};
use boxyard_host::{CreateError, CreateRequest, Host, PluginConfig, Sandbox};
use serde_json::{Value, json};

use self::private::Private;
use crate::{skip, world};

const PLUGIN: &str = "boxyard-plugin-docker";

/// An image with a shell and little else.
const IMAGE: &str = "boxyard/busybox";
/// An image with a Python.
const PYTHON: &str = "python:3.11-slim";

/// How long an engine may take for what it does by itself.
const SOON: Duration = Duration::from_secs(5);

/// A host of its own on the engine. Its containers are removed with it.
struct Dock {
    yard: Yard,
    id: String,
    /// Where the engine is that is not the machine's.
    engine: Option<String>,
    host: OnceLock<Host>,
}

impl Drop for Dock {
    fn drop(&mut self) {
        // There are some where the test failed, and an engine of the test's own may be gone.
        for container in self.list().unwrap_or_default() {
            let _ = self.ask(&["rm", "-f", "-v", &container]);
        }
    }
}

impl Dock {
    /// Makes one; `None` where there is no engine, or the image is not there.
    fn new(image: &str) -> Option<Self> {
        let found = engine(&["image", "inspect", "--format", "{{.Id}}", image]);
        if let Err(why) = found {
            leave_out(WITHOUT, "the docker plugin", &why);
            return None;
        }
        Some(Self::with(None))
    }

    /// Makes one on an engine of the test's own.
    fn on(engine: &Private) -> Self {
        Self::with(Some(engine.address()))
    }

    fn with(engine: Option<String>) -> Self {
        let mut yard = Yard::new().unwrap();
        let library = Library::package(PLUGIN).unwrap();
        yard.put(&format!("{PLUGIN}.so"), &library).unwrap();
        // As the program has it, so that both are one host.
        let state = yard.root().join("state/boxyard");
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("test-{}-{number}", process::id());
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join("host-id"), &id).unwrap();
        yard.config.state_dir = Some(state);
        yard.config.timeouts.load = Duration::from_secs(60);
        yard.config.timeouts.sweep_grace = Duration::ZERO;
        let mut file = "[timeouts]\nload = '60s'\nsweep_grace = '0s'\n".to_owned();
        if let Some(engine) = &engine {
            let plugin = PluginConfig {
                settings: world::object(json!({ "host": engine })),
                ..PluginConfig::default()
            };
            yard.config.plugins.insert(PLUGIN.into(), plugin);
            file += &format!("[plugins.{PLUGIN}.settings]\nhost = '{engine}'\n");
        }
        fs::write(yard.root().join("boxyard.toml"), file).unwrap();
        Self {
            yard,
            id,
            engine,
            host: OnceLock::new(),
        }
    }

    /// Changes what the program is configured to.
    fn configure(&self, change: impl FnOnce(String) -> String) {
        let path = self.yard.root().join("boxyard.toml");
        let file = fs::read_to_string(&path).unwrap();
        fs::write(path, change(file)).unwrap();
    }

    /// Asks its engine with docker's own tool.
    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        docker(self.engine.as_deref(), arguments)
    }

    /// Starts the host, in this process.
    async fn start(self) -> Self {
        let host = self.yard.host().await.unwrap();
        assert!(self.host.set(host).is_ok());
        self
    }

    fn host(&self) -> &Host {
        self.host.get().unwrap()
    }

    async fn create(&self, config: Value) -> Result<Arc<Sandbox>, CreateError> {
        let mut all = world::object(json!({ "image": IMAGE, "network_enabled": false }));
        all.extend(world::object(config));
        let request = CreateRequest::new("docker").config(all);
        self.host().manager().create(request).await
    }

    async fn sandbox(&self, config: Value) -> Arc<Sandbox> {
        self.create(config).await.unwrap()
    }

    async fn delete(&self, sandbox: &Sandbox) {
        self.host().manager().delete(sandbox.id()).await.unwrap();
    }

    /// Returns a `boxyard run` in a sandbox, that sweeps whatever is left.
    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo::program("boxyard").unwrap());
        let root = self.yard.root();
        command
            .args(["--config-file", root.join("boxyard.toml").to_str().unwrap()])
            .args(["run", "-t", "docker", "-c", &format!("image={IMAGE}")])
            .args(["-c", "network_enabled=false"])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", root)
            .env("XDG_STATE_HOME", root.join("state"))
            .env("XDG_CACHE_HOME", root.join("cache"))
            .env("BOXYARD_PLUGIN_PATH", self.yard.plugins())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Returns the containers that are there of this host, however they are.
    fn containers(&self) -> Vec<String> {
        self.list().unwrap()
    }

    fn list(&self) -> Result<Vec<String>, String> {
        let label = format!("label=dev.boxyard.host={}", self.id);
        let listed = self.ask(&["ps", "-aq", "--no-trunc", "--filter", &label])?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    fn meetings(&self) -> PathBuf {
        let state = self.yard.root().join("state/boxyard/plugins");
        state.join(PLUGIN).join("meetings")
    }

    /// Checks that nothing is there of any sandbox.
    fn is_clean(&self) {
        assert_eq!(self.containers(), <[String; 0]>::default());
        let meetings = fs::read_dir(self.meetings()).map_or(0, Iterator::count);
        assert_eq!(meetings, 0, "meeting places are left");
    }

    /// Ends the host and checks that nothing is left.
    async fn end(mut self) {
        self.host.take().unwrap().shutdown().await;
        self.is_clean();
    }
}

/// What leaves out all that needs the machine's engine.
const WITHOUT: &str = "BOXYARD_WITHOUT_DOCKER";

/// Says what is not tested and why, where that may be: where it was asked for by a variable of the
/// environment, or not everything is required.
fn leave_out(without: &str, what: &str, why: &str) {
    if std::env::var_os(without).is_some_and(|value| value == "1") {
        let mut stderr = io::stderr();
        writeln!(stderr, "SKIPPED {what} ({without}=1): {why}").unwrap();
    } else {
        skip(what, why).unwrap();
    }
}

/// Asks the machine's engine with docker's own tool; returns what that prints.
fn engine(arguments: &[&str]) -> Result<String, String> {
    docker(None, arguments)
}

fn docker(engine: Option<&str>, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("docker");
    if let Some(engine) = engine {
        command.args(["--host", engine]);
    }
    let output = command.args(arguments).output();
    let output = output.map_err(|error| format!("docker: {error}"))?;
    if output.status.success() {
        Ok(text(&output.stdout).trim().to_owned())
    } else {
        Err(text(&output.stderr).trim().to_owned())
    }
}

/// Returns the engine's name of a sandbox's container.
fn container(sandbox: &Sandbox) -> String {
    format!("boxyard-{}", sandbox.id())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ended(output: &Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}
