//! One live sandbox: commands and tools in it, its information.

mod beginning;
mod end;
mod events;
mod facade;
mod files;
mod info;
mod journal;
mod record;
mod services;
mod status;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use boxyard_plugin_api::{
    ByteSource, Call, Command, CommandExit, CommandIo, Controls, Error, ErrorCode, Result,
    SandboxHandle, abi::SandboxObject, register::CallFuture,
};
use serde_json::Value;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    backend::{Instance, Terms},
    config::Config,
    output::{Capture, CommandResult},
    registry::{Registry, SandboxType},
    tool::{Language, Notebook, Tool, ToolError, ToolResult},
};

pub(crate) use beginning::{Beginning, Lifetime, Past};
use end::End;
pub(crate) use end::clean_up_remains;
pub use events::Event;
pub(crate) use events::KEPT as EVENTS_KEPT;
pub use info::SandboxInfo;
pub(crate) use journal::Journal;
pub(crate) use record::{Activity, Record};
pub use status::{Status, StatusError};

/// How long after a command's own timeout the host ends the call itself.
const TIMEOUT_BACKSTOP: Duration = Duration::from_secs(2);

/// One live sandbox. The host makes every move of its status.
#[derive(Debug)]
pub struct Sandbox {
    record: Arc<Record>,
    /// What its backend gave; nothing where an earlier process had it and nothing runs any more.
    instance: Option<Instance>,
    sandbox_type: Arc<SandboxType>,
    tools: Vec<Arc<Tool>>,
    /// What the host is configured to.
    host: Arc<Config>,
    notebook: Notebook,
    end: Mutex<End>,
    /// Cancelled once it was stopped: what still runs in it is asked to stop.
    over: CancellationToken,
}

impl Sandbox {
    pub(crate) fn new(
        record: Arc<Record>,
        instance: impl Into<Option<Instance>>,
        sandbox_type: Arc<SandboxType>,
        registry: &Registry,
        host: Arc<Config>,
    ) -> Self {
        let tools = tools(&record, &sandbox_type, registry);
        Self {
            record,
            instance: instance.into(),
            sandbox_type,
            tools,
            host,
            notebook: Notebook::default(),
            end: Mutex::new(End::Live),
            over: CancellationToken::new(),
        }
    }

    /// Returns the name that its owner gave it; empty for none.
    pub fn name(&self) -> &str {
        self.record.name()
    }

    /// Returns the labels that its owner gave it.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.record.labels()
    }

    /// Returns its id.
    pub fn id(&self) -> &str {
        self.record.id()
    }

    /// Returns its sandbox type.
    pub fn sandbox_type(&self) -> &SandboxType {
        &self.sandbox_type
    }

    /// Returns its status.
    pub fn status(&self) -> Status {
        self.record.status()
    }

    /// Waits until its status is another than `known`, and returns it.
    pub async fn status_changed(&self, known: Status) -> Status {
        self.record.status_changed(known).await
    }

    /// Returns what the host knows of it, without asking its backend.
    pub fn summary(&self) -> SandboxInfo {
        let mut info = self.record.info();
        self.sandbox_type.hide_secrets(&mut info.config);
        info.plugin = self.sandbox_type.plugin().into();
        info.isolation = self.sandbox_type.isolation();
        info.available_tools = self.tool_names();
        info
    }

    /// Notes whether it waits in a pool.
    pub(crate) fn park(&self, parked: bool) {
        self.record.park(parked);
    }

    /// Makes it as it was when it was new.
    pub(crate) async fn reset(self: &Arc<Self>) -> Result<()> {
        // Somebody may have left a cell running in it.
        let limit = self.host.timeouts.start;
        let ended = timeout(limit, self.notebook.end()).await;
        ended.map_err(|_| Error::deadline_exceeded("its notebook does not end"))?;
        self.call(Terms::within(limit), |handle, call| handle.reset(call))
            .await
    }

    /// Takes no more calls where its time is over; returns why it is.
    pub(crate) fn expire(&self) -> Option<String> {
        self.record.expire()
    }

    /// Returns what happened to it, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.record.events()
    }

    /// Notes something that happened to it.
    pub(crate) fn note(&self, kind: &str, data: Value) {
        self.record.event(kind, data);
    }

    /// Returns the tools that can run in it.
    pub fn tools(&self) -> &[Arc<Tool>] {
        &self.tools
    }

    /// Returns everything there is to know about it.
    ///
    /// What the backend adds is left out while it does not answer.
    pub async fn info(self: &Arc<Self>) -> SandboxInfo {
        let mut info = self.summary();
        if self.record.status().takes_calls() {
            let terms = Terms::within(Duration::from_secs(5));
            let backend = self.call_instance(terms, |handle, call| handle.info(call));
            let context = self.call_instance(terms, |handle, call| handle.execution_context(call));
            let (backend, context) = tokio::join!(backend, context);
            info.backend = backend.unwrap_or_default();
            info.execution_context = context.unwrap_or_default();
        }
        info
    }

    /// Returns what its backend gave.
    fn instance(&self) -> Result<&Instance> {
        let instance = self.instance.as_ref();
        instance.ok_or_else(|| Error::failed_precondition("nothing of the sandbox runs any more"))
    }

    /// Calls a method of the sandbox, whatever its status.
    async fn call_instance<T: Send + 'static>(
        self: &Arc<Self>,
        terms: Terms<'_>,
        start: impl FnOnce(&SandboxHandle, Call) -> CallFuture<T>,
    ) -> Result<T> {
        let instance = self.instance()?;
        instance.call(terms, self.panicked(), start).await
    }

    /// Takes up a sandbox that an earlier process left running.
    pub(crate) fn resume(&self) -> Result<()> {
        self.record.recovered()
    }

    /// Takes up what an earlier process had stopped.
    pub(crate) fn resume_stopped(&mut self) {
        *self.end.get_mut() = End::Stopped;
        self.record.take_up(Status::Stopped);
    }

    /// Takes up what had failed under an earlier process.
    pub(crate) fn resume_error(&self) {
        self.record.take_up(Status::Error);
    }

    /// Takes up what did not outlive an earlier process.
    pub(crate) fn resume_failed(&self, error: &str) {
        self.record.fail(error);
    }

    /// Takes up what cannot be reached now, and maybe by the next process.
    pub(crate) fn resume_unreached(&self, why: &str) {
        tracing::warn!(sandbox = self.id(), "{why}");
        self.record.out_of_reach(why);
    }

    /// Forgets it in the store.
    pub(crate) async fn forget(&self) {
        if let Err(error) = self.record.journal().remove().await {
            // The next host finds nothing of it, and says so.
            tracing::warn!(sandbox = self.id(), "it stays in the store: {error}");
        }
    }

    /// Returns the line to what is kept of it.
    pub(crate) fn journal(&self) -> &Journal {
        self.record.journal()
    }

    /// Makes it ready for commands.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<()> {
        let started = self.instance()?.start().await;
        match started {
            Ok(()) => {
                let moved = self.record.move_to(Status::Running);
                // It ended by itself while it started: that is the reason, not the move.
                moved.map_err(|illegal| {
                    let why = self.record.error();
                    why.map_or(illegal, Error::failed_precondition)
                })?;
                let names: Vec<&str> = self.tools.iter().map(|tool| tool.name()).collect();
                self.record
                    .event("tools-initialized", serde_json::json!({ "tools": names }));
                Ok(())
            }
            Err(error) => {
                self.record.fail(&error.to_string());
                Err(error)
            }
        }
    }

    /// Runs a command with streams of the caller's own. Any number may run at once.
    ///
    /// Dropping the future ends the command and everything that it started.
    ///
    /// # Errors
    ///
    /// The command could not be tried; how it ended is no error but a [`CommandExit`].
    pub async fn execute_command(
        self: &Arc<Self>,
        command: &Command,
        io: CommandIo,
    ) -> Result<CommandExit> {
        self.execute(command, io, None).await
    }

    /// Runs a command, gives it `stdin`, and keeps the head and the tail of its output.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::execute_command`].
    pub async fn run(
        self: &Arc<Self>,
        mut command: Command,
        stdin: Option<Vec<u8>>,
    ) -> Result<CommandResult> {
        command.stdin = stdin.is_some();
        let stdin = ByteSource::from_bytes(stdin.unwrap_or_default());
        self.run_with(command, stdin, Controls::none()).await
    }

    /// Runs a command with input and controls of the caller's, and keeps its output.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::execute_command`].
    pub async fn run_with(
        self: &Arc<Self>,
        command: Command,
        stdin: ByteSource,
        controls: Controls,
    ) -> Result<CommandResult> {
        let (stdout, stderr) = (
            Capture::new(self.max_output_bytes()),
            Capture::new(self.max_output_bytes()),
        );
        let io = CommandIo {
            stdin,
            stdout: stdout.sink(),
            stderr: stderr.sink(),
            controls,
        };
        let exit = self.execute_command(&command, io).await?;
        let ((stdout, stdout_cut), (stderr, stderr_cut)) = (stdout.take(), stderr.take());
        Ok(CommandResult {
            exit,
            stdout,
            stderr,
            truncated: stdout_cut || stderr_cut,
        })
    }

    async fn execute(
        self: &Arc<Self>,
        command: &Command,
        io: CommandIo,
        parent: Option<&Call>,
    ) -> Result<CommandExit> {
        command.validate()?;
        let backstop = (command.timeout).map(|timeout| timeout.saturating_add(TIMEOUT_BACKSTOP));
        let began = Instant::now();
        let terms = Terms {
            timeout: backstop,
            parent,
            until: None,
        };
        let answer = self
            .call(terms, |handle, call| {
                handle.execute_command(command, io, call)
            })
            .await;
        let late = backstop.is_some_and(|backstop| began.elapsed() >= backstop);
        match answer {
            // The backend forgot the command's timeout: the host has ended the call.
            Ok(mut exit) if late => {
                exit.exit_code = CommandExit::TIMED_OUT;
                exit.timed_out = true;
                Ok(exit)
            }
            Err(error) if late && error.code() == ErrorCode::DEADLINE_EXCEEDED => {
                let mut exit = CommandExit::timed_out();
                exit.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                Ok(exit)
            }
            answer => answer,
        }
    }

    /// Runs a tool.
    ///
    /// # Errors
    ///
    /// [`ToolError`] where it was not tried; that it failed is a [`ToolResult`].
    pub async fn execute_tool(
        self: &Arc<Self>,
        name: &str,
        params: Value,
        timeout: Option<Duration>,
    ) -> Result<ToolResult, ToolError> {
        let tool = self.tools.iter().find(|tool| tool.name() == name);
        let tool = tool.ok_or_else(|| ToolError::Unknown {
            name: name.into(),
            near: crate::spelling::nearest(name, &self.tool_names()).map(str::to_owned),
            known: self.tool_names(),
        })?;
        let params = tool.check_params(params)?;
        let activity = self.record.begin()?;
        let terms = Terms {
            timeout,
            parent: None,
            until: Some(&self.over),
        };
        Ok(tool.execute(params, self, terms, activity).await)
    }

    /// Returns the sandbox as a plugin's tool sees it.
    pub(crate) fn facade(self: &Arc<Self>) -> SandboxObject {
        SandboxObject::from_sandbox(facade::Facade::new(Arc::clone(self)))
    }

    /// Runs a command that is no activity: the sandbox is idle beside it, and it ends with the sandbox.
    pub(crate) async fn execute_in_background(
        self: &Arc<Self>,
        command: &Command,
        io: CommandIo,
    ) -> Result<CommandExit> {
        let activity = self.record.begin_in_background()?;
        let start = |handle: &SandboxHandle, call| handle.execute_command(command, io, call);
        self.call_counted(activity, Terms::default(), start).await
    }

    pub(crate) fn notebook(&self) -> &Notebook {
        &self.notebook
    }

    /// Returns how much of each output stream a buffered result holds, in bytes.
    pub(crate) fn max_output_bytes(&self) -> usize {
        self.host.max_output_bytes
    }

    /// Returns the languages that the configuration adds.
    pub(crate) fn languages(&self) -> &BTreeMap<String, Language> {
        &self.host.languages
    }

    fn tool_names(&self) -> Vec<String> {
        self.tools
            .iter()
            .map(|tool| tool.name().to_owned())
            .collect()
    }

    /// Calls a method of the sandbox while it is running, as one more activity of it.
    async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        terms: Terms<'_>,
        start: impl FnOnce(&SandboxHandle, Call) -> CallFuture<T>,
    ) -> Result<T> {
        let activity = self.record.begin()?;
        self.call_counted(activity, terms, start).await
    }

    /// Calls a method of the sandbox, which ends with the sandbox.
    async fn call_counted<T: Send + 'static>(
        self: &Arc<Self>,
        activity: Activity,
        terms: Terms<'_>,
        start: impl FnOnce(&SandboxHandle, Call) -> CallFuture<T>,
    ) -> Result<T> {
        let terms = Terms {
            until: Some(&self.over),
            ..terms
        };
        let start = |handle: &SandboxHandle, call| activity.during(start(handle, call));
        self.call_instance(terms, start).await
    }

    /// Returns what to do when a method of it panicked.
    fn panicked(self: &Arc<Self>) -> impl FnOnce(&Error) + Send + 'static {
        let sandbox = Arc::clone(self);
        move |error| {
            sandbox.record.fail(&error.to_string());
            // Nobody can use it any more: give back what it holds now, not at its deletion.
            let ending = async move { sandbox.end().await };
            tokio::spawn(ending.in_current_span());
        }
    }
}

/// Returns the tools that a sandbox has: those that it was asked to have, of those that can run in it.
fn tools(record: &Record, sandbox_type: &SandboxType, registry: &Registry) -> Vec<Arc<Tool>> {
    let fitting = registry
        .tools()
        .filter(|tool| tool.runs_in(sandbox_type.name()));
    let Some(wanted) = record.tools() else {
        return fitting.cloned().collect();
    };
    let tools: Vec<_> = fitting
        .filter(|tool| wanted.has(tool.name()))
        .cloned()
        .collect();
    let is_missing = |name: &&String| !tools.iter().any(|tool| tool.name() == name.as_str());
    let missing: Vec<_> = wanted.names().filter(is_missing).collect();
    if !missing.is_empty() {
        tracing::warn!(
            sandbox = record.id(),
            ?missing,
            "tools that cannot run in it are left out"
        );
        record.event("tools-left-out", serde_json::json!({ "tools": missing }));
    }
    tools
}
