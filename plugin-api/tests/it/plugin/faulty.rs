//! Backends and tools that panic, in every method and in every drop.

use boxyard_plugin_api::{
    FileInfo, GetArchive, LogRequest, MakeDirectory, PutArchive, ReadFile, RemovePath, WriteFile,
    prelude::*,
};
use schemars::{Schema, SchemaGenerator};
use serde::Serializer;
use serde_json::Map;
use std::{borrow::Cow, panic::panic_any};

/// Panics when it is dropped.
pub(crate) struct Bomb(String);

pub(crate) fn bomb(text: impl Into<String>) -> Bomb {
    Bomb(text.into())
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("{}", self.0);
    }
}

pub(super) struct Faulty;

/// What a [`Config`] can make `create` do, with what the error then says.
pub(crate) const FAULTS_OF_CREATE: &[(&str, &str)] = &[
    ("create", "creating went wrong"),
    ("config", "dropping the config went wrong"),
    ("payload", "a value that is no text"),
    ("number", "a value that is no text"),
    ("string", "an owned text"),
];

#[derive(Default, Deserialize, JsonSchema)]
pub(super) struct Config {
    /// Where to panic.
    fault: String,
    /// What to say, where it is not said already.
    #[serde(default)]
    text: String,
}

impl Drop for Config {
    fn drop(&mut self) {
        assert!(self.fault != "config", "dropping the config went wrong");
    }
}

pub(super) struct FaultySandbox {
    context: SandboxContext,
    /// What the sandbox's own drop says, if it panics.
    last_words: Option<String>,
}

impl Drop for FaultySandbox {
    fn drop(&mut self) {
        if let Some(text) = &self.last_words {
            panic!("{text}");
        }
    }
}

impl Backend for Faulty {
    const TYPE: &'static str = "faulty";
    const ISOLATION: Isolation = Isolation::Process;
    type Config = Config;
    type Sandbox = FaultySandbox;

    fn open(plugin: &PluginContext) -> Result<Self> {
        super::opened(plugin, "Faulty")?;
        Ok(Self)
    }

    async fn probe(&self, _call: &Call) -> Result<Health> {
        panic!("probe went wrong");
    }

    async fn create(
        &self,
        config: Config,
        sandbox: SandboxContext,
        _call: &Call,
    ) -> Result<FaultySandbox> {
        match config.fault.as_str() {
            "create" => panic!("creating went wrong"),
            "payload" => panic_any(bomb("the payload's drop")),
            "number" => panic_any(42),
            "string" => panic_any(String::from("an owned text")),
            "task" => {
                let text = config.text.clone();
                sandbox.spawn(async move { panic!("{text}") });
            }
            "task-payload" => {
                let text = config.text.clone();
                sandbox.spawn(async move { panic_any(bomb(text)) });
            }
            "task-local" => {
                let bomb = bomb(&config.text);
                sandbox.spawn(async move { drop(bomb) });
            }
            _ => {}
        }
        Ok(FaultySandbox {
            context: sandbox,
            last_words: (config.fault == "sandbox").then(|| config.text.clone()),
        })
    }

    async fn recover(
        &self,
        _state: State,
        _sandbox: SandboxContext,
        _call: &Call,
    ) -> Result<Recovered<FaultySandbox>> {
        panic!("recover went wrong");
    }

    async fn sweep(&self, _request: SweepRequest, _call: &Call) -> Result<Swept> {
        panic!("sweep went wrong");
    }
}

impl Sandbox for FaultySandbox {
    async fn start(&self, _call: &Call) -> Result<()> {
        panic!("start went wrong");
    }

    async fn stop(&self, _call: &Call) -> Result<()> {
        panic!("stop went wrong");
    }

    async fn cleanup(&self, _call: &Call) -> Result<()> {
        panic!("cleanup went wrong");
    }

    async fn execute_command(
        &self,
        command: Command,
        _io: CommandIo,
        _call: &Call,
    ) -> Result<CommandExit> {
        // Hangs with a local whose drop panics, or panics at once.
        if let Program::Shell(text) = command.program {
            let _bomb = bomb(text);
            self.context.event("hanging", Value::Null);
            std::future::pending::<()>().await;
        }
        panic!("execute_command went wrong");
    }

    async fn execution_context(&self, _call: &Call) -> Result<Option<ExecutionContext>> {
        panic!("execution_context went wrong");
    }

    async fn info(&self, _call: &Call) -> Result<Map<String, Value>> {
        panic!("info went wrong");
    }

    // A panic before there is a future is one too.
    fn stats(&self, _call: &Call) -> impl Future<Output = Result<Stats>> + Send {
        if self.context.id().is_empty() {
            return std::future::ready(Ok(Stats::default()));
        }
        panic!("stats went wrong");
    }

    async fn read_file(&self, _request: ReadFile, _to: ByteSink, _call: &Call) -> Result<()> {
        panic!("read_file went wrong");
    }

    async fn write_file(&self, _request: WriteFile, _from: ByteSource, _call: &Call) -> Result<()> {
        panic!("write_file went wrong");
    }

    async fn stat(&self, _path: String, _call: &Call) -> Result<FileInfo> {
        panic!("stat went wrong");
    }

    async fn list(&self, _path: String, _call: &Call) -> Result<Vec<FileInfo>> {
        panic!("list went wrong");
    }

    async fn remove(&self, _request: RemovePath, _call: &Call) -> Result<()> {
        panic!("remove went wrong");
    }

    async fn make_directory(&self, _request: MakeDirectory, _call: &Call) -> Result<()> {
        panic!("make_directory went wrong");
    }

    async fn put_archive(
        &self,
        _request: PutArchive,
        _from: ByteSource,
        _call: &Call,
    ) -> Result<()> {
        panic!("put_archive went wrong");
    }

    async fn get_archive(&self, _request: GetArchive, _to: ByteSink, _call: &Call) -> Result<()> {
        panic!("get_archive went wrong");
    }

    async fn logs(&self, _request: LogRequest, _to: ByteSink, _call: &Call) -> Result<()> {
        panic!("logs went wrong");
    }

    async fn reset(&self, _call: &Call) -> Result<()> {
        panic!("reset went wrong");
    }
}

/// Its configuration has no schema.
pub(super) struct Indescribable;

#[derive(Deserialize)]
pub(super) struct Shapeless;

impl JsonSchema for Shapeless {
    fn schema_name() -> Cow<'static, str> {
        "Shapeless".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        panic!("describing went wrong");
    }
}

impl Backend for Indescribable {
    const TYPE: &'static str = "indescribable";
    const ISOLATION: Isolation = Isolation::None;
    type Config = Shapeless;
    type Sandbox = FaultySandbox;

    fn open(_plugin: &PluginContext) -> Result<Self> {
        Ok(Self)
    }

    async fn create(
        &self,
        _config: Shapeless,
        sandbox: SandboxContext,
        _call: &Call,
    ) -> Result<FaultySandbox> {
        Ok(FaultySandbox {
            context: sandbox,
            last_words: None,
        })
    }
}

pub(super) struct FaultyTool;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Params {
    fault: String,
}

impl Drop for Params {
    fn drop(&mut self) {
        assert!(self.fault != "params", "dropping the params went wrong");
    }
}

pub(super) struct Output(String);

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != "serialize", "serializing the output went wrong");
        serializer.serialize_unit()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        assert!(self.0 != "output", "dropping the output went wrong");
    }
}

impl Tool for FaultyTool {
    const NAME: &'static str = "faulty";
    const DESCRIPTION: &'static str = "panics";
    type Params = Params;
    type Output = Output;

    fn open(plugin: &PluginContext) -> Result<Self> {
        super::opened(plugin, "FaultyTool")?;
        Ok(Self)
    }

    async fn execute(&self, params: Params, _sandbox: ToolContext, _call: &Call) -> Result<Output> {
        assert!(params.fault != "execute", "executing went wrong");
        Ok(Output(params.fault.clone()))
    }
}

/// Its parameters have no schema.
pub(super) struct IndescribableTool;

impl Tool for IndescribableTool {
    const NAME: &'static str = "indescribable";
    const DESCRIPTION: &'static str = "has no words";
    type Params = Shapeless;
    type Output = ();

    fn open(_plugin: &PluginContext) -> Result<Self> {
        Ok(Self)
    }

    async fn execute(&self, _: Shapeless, _sandbox: ToolContext, _call: &Call) -> Result<()> {
        Ok(())
    }
}
