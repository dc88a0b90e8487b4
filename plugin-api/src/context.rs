//! What a plugin knows and may ask: about itself, about a sandbox, and from within a tool.

use std::{collections::BTreeMap, future::Future, path::Path, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    ByteSink, ByteSource, Call, CallController, Command, CommandExit, CommandIo, ErrorCode,
    FileInfo, GetArchive, MakeDirectory, PutArchive, ReadFile, RemovePath, Result, SandboxHandle,
    State, Stats, WriteFile,
    abi::{InitRequest, SandboxServicesObject},
    descriptor::typed_document,
    register::runtime::{AbortOnDrop, Executor},
};

/// What a plugin is told when it is opened.
#[derive(Clone, Debug)]
pub struct PluginContext {
    request: InitRequest,
}

impl PluginContext {
    pub(crate) fn new(request: InitRequest) -> Self {
        Self { request }
    }

    /// Returns the name of the host, unique among those that share an engine.
    pub fn host_id(&self) -> &str {
        &self.request.host_id
    }

    /// Returns the version of the host program.
    pub fn host_version(&self) -> &str {
        &self.request.host_version
    }

    /// Returns where the plugin was found.
    pub fn path(&self) -> &Path {
        Path::new(&self.request.path)
    }

    /// Returns a directory for this plugin alone, which is there.
    pub fn data_dir(&self) -> &Path {
        Path::new(&self.request.data_dir)
    }

    /// Reads the operator's settings for this plugin; the empty object where there are none.
    ///
    /// Derive `Deserialize` with `deny_unknown_fields`, so that a misspelt key is an error.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::INVALID_ARGUMENT`](crate::ErrorCode::INVALID_ARGUMENT), naming the key.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        let settings = match &self.request.settings {
            Value::Null => Value::Object(Map::new()),
            settings => settings.clone(),
        };
        typed_document(settings).map_err(|error| error.context("plugin settings"))
    }
}

/// Which sandbox it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SandboxIdentity {
    /// Unique among all sandboxes.
    pub id: String,
    /// The name that its owner gave it; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The labels that its owner gave it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The host that owns it.
    pub host: String,
    /// The lease that lives as long as the host's process.
    pub lease: String,
    /// How long it waits for a later host to recover it when its own is gone, in milliseconds;
    /// not at all where 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub linger_ms: u64,
}

impl SandboxIdentity {
    /// Names a sandbox, the host that owns it and the lease of that host's process.
    pub fn new(id: impl Into<String>, host: impl Into<String>, lease: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            host: host.into(),
            lease: lease.into(),
            ..Self::default()
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One sandbox's line to the host; cheap to clone, usable from any task.
#[derive(Clone, Debug)]
pub struct SandboxContext(Arc<SandboxContextInner>);

#[derive(Debug)]
struct SandboxContextInner {
    identity: SandboxIdentity,
    services: SandboxServicesObject,
    executor: Executor,
}

impl SandboxContext {
    pub(crate) fn new(
        services: SandboxServicesObject,
        sandbox_type: &str,
        executor: Executor,
    ) -> Result<Self> {
        let identity = services.identity()?;
        let executor = executor.for_sandbox(sandbox_type, &identity.id);
        Ok(Self(Arc::new(SandboxContextInner {
            identity,
            services,
            executor,
        })))
    }

    /// Returns the sandbox's id.
    pub fn id(&self) -> &str {
        &self.0.identity.id
    }

    /// Returns the sandbox's id, name, labels, host and lease.
    ///
    /// Whatever outlives the process is marked with host, lease and id, so that
    /// [`Backend::sweep`](crate::Backend::sweep) can tell orphans.
    pub fn identity(&self) -> &SandboxIdentity {
        &self.0.identity
    }

    /// Adds an event to the sandbox's history: a short kebab-case kind, and facts.
    pub fn event(&self, kind: impl Into<String>, data: Value) {
        self.0.services.event(kind.into(), data);
    }

    /// Sets one of the sandbox's metadata, which its information shows; `error` and `expired` are the
    /// host's to set.
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Into<Value>) {
        self.0.services.set_metadata(key.into(), value.into());
    }

    /// Tells the host that the sandbox ended by itself, and why.
    pub fn exited(&self, reason: impl Into<String>) {
        self.0.services.exited(reason.into());
    }

    /// Stores what [`Backend::recover`](crate::Backend::recover) will need; durable when it returns.
    ///
    /// Call it before the first side effect that a dead host could not undo.
    ///
    /// # Errors
    ///
    /// What the host answers; do not go on to the side effect then.
    pub async fn save_state(&self, state: State) -> Result<()> {
        self.0.services.save_state(&state).await
    }

    /// Runs a task of the sandbox's own on the plugin's runtime.
    ///
    /// Its events carry the sandbox's name, and a panic in it is logged instead of lost.
    pub fn spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        self.0.executor.spawn_task(task)
    }
}

/// A tool's line to the sandbox that it runs against.
///
/// What it starts here ends with the tool: with its deadline, and when its caller gives up.
#[derive(Debug)]
pub struct ToolContext {
    sandbox: SandboxHandle,
    controller: CallController,
    /// Passes on that the tool's caller gave up, as long as the tool runs.
    _forward: AbortOnDrop<()>,
}

/// The output of [`ToolContext::run`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunOutput {
    /// How the command ended.
    pub exit: CommandExit,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl ToolContext {
    /// How much of each stream [`ToolContext::run`] takes.
    pub const MAX_OUTPUT: usize = 16 * 1024 * 1024;

    /// Must be called inside the plugin's runtime.
    pub(crate) fn new(sandbox: SandboxHandle, call: &Call) -> Self {
        let controller = call.child();
        let (asked, child) = (call.cancelled(), controller.clone());
        let forward = AbortOnDrop::new(tokio::spawn(async move {
            asked.await;
            child.cancel();
        }));
        Self {
            sandbox,
            controller,
            _forward: forward,
        }
    }

    fn call(&self) -> Call {
        self.controller.call()
    }

    /// Returns the sandbox's information: `id`, `type`, `status`, `metadata` and more.
    ///
    /// # Errors
    ///
    /// The sandbox is gone.
    pub async fn info(&self) -> Result<Map<String, Value>> {
        self.sandbox.info(self.call()).await
    }

    /// Runs a command with streams of the tool's own.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::execute_command`](crate::Sandbox::execute_command).
    pub async fn execute_command(&self, command: &Command, io: CommandIo) -> Result<CommandExit> {
        self.sandbox.execute_command(command, io, self.call()).await
    }

    /// Runs a command, gives it `stdin`, and keeps its output.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::execute_command`](crate::Sandbox::execute_command), and output of more
    /// than [`ToolContext::MAX_OUTPUT`].
    pub async fn run(&self, mut command: Command, stdin: Option<Vec<u8>>) -> Result<RunOutput> {
        let (stdout_sink, stdout) = crate::pipe();
        let (stderr_sink, stderr) = crate::pipe();
        command.stdin = stdin.is_some();
        let io = CommandIo {
            stdin: ByteSource::from_bytes(stdin.unwrap_or_default()),
            stdout: stdout_sink,
            stderr: stderr_sink,
            controls: crate::Controls::none(),
        };
        let (exit, stdout, stderr) = tokio::try_join!(
            self.execute_command(&command, io),
            unless_broken_off(stdout.read_to_end(Self::MAX_OUTPUT)),
            unless_broken_off(stderr.read_to_end(Self::MAX_OUTPUT)),
        )?;
        Ok(RunOutput {
            exit,
            stdout: stdout?,
            stderr: stderr?,
        })
    }

    /// Measures the sandbox.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::stats`](crate::Sandbox::stats).
    pub async fn stats(&self) -> Result<Stats> {
        self.sandbox.stats(self.call()).await
    }

    /// Reads a file whole.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::read_file`](crate::Sandbox::read_file), and more than [`ToolContext::MAX_OUTPUT`].
    pub async fn read_file(&self, request: &ReadFile) -> Result<Vec<u8>> {
        let (sink, source) = crate::pipe();
        let (bytes, ()) = tokio::try_join!(
            unless_broken_off(source.read_to_end(Self::MAX_OUTPUT)),
            self.sandbox.read_file(request, sink, self.call()),
        )?;
        bytes
    }

    /// Writes a file whole.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::write_file`](crate::Sandbox::write_file).
    pub async fn write_file(&self, request: &WriteFile, content: impl Into<Vec<u8>>) -> Result<()> {
        self.sandbox
            .write_file(request, ByteSource::from_bytes(content), self.call())
            .await
    }

    /// Returns what is at a path.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::stat`](crate::Sandbox::stat).
    pub async fn stat(&self, path: &str) -> Result<FileInfo> {
        self.sandbox.stat(path, self.call()).await
    }

    /// Returns what is in a directory.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::list`](crate::Sandbox::list).
    pub async fn list(&self, path: &str) -> Result<Vec<FileInfo>> {
        self.sandbox.list(path, self.call()).await
    }

    /// Removes a file or a directory.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::remove`](crate::Sandbox::remove).
    pub async fn remove(&self, request: &RemovePath) -> Result<()> {
        self.sandbox.remove(request, self.call()).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::make_directory`](crate::Sandbox::make_directory).
    pub async fn make_directory(&self, request: &MakeDirectory) -> Result<()> {
        self.sandbox.make_directory(request, self.call()).await
    }

    /// Unpacks a tar stream.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::put_archive`](crate::Sandbox::put_archive).
    pub async fn put_archive(&self, request: &PutArchive, from: ByteSource) -> Result<()> {
        self.sandbox.put_archive(request, from, self.call()).await
    }

    /// Packs a path into a tar stream.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::get_archive`](crate::Sandbox::get_archive).
    pub async fn get_archive(&self, request: &GetArchive, to: ByteSink) -> Result<()> {
        self.sandbox.get_archive(request, to, self.call()).await
    }
}

impl Drop for ToolContext {
    fn drop(&mut self) {
        self.controller.cancel();
    }
}

/// Reads what a call streams, for joining with the call: a stream that its writer broke off is
/// no error yet, because the call that broke it off says why.
async fn unless_broken_off<T>(read: impl Future<Output = Result<T>>) -> Result<Result<T>> {
    match read.await {
        Err(error) if error.code() != ErrorCode::ABORTED => Err(error),
        read => Ok(read),
    }
}
