//! A backend whose sandboxes do everything, and one whose sandboxes do nothing.

use boxyard_plugin_api::{
    Controls, FileInfo, FileKind, GetArchive, LogRequest, MakeDirectory, PutArchive, ReadFile,
    RemovePath, WriteFile, prelude::*,
};
use serde_json::Map;
use std::collections::BTreeMap;
use tokio::sync::Barrier;

/// Answers every method with [`answer`], and tells the host what it was asked.
pub(super) struct Model {
    opened_with: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub(super) struct Config {
    label: String,
    #[serde(default)]
    limits: Limits,
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Limits {
    memory: u32,
}

pub(super) struct ModelSandbox {
    context: SandboxContext,
    /// Where two commands meet.
    meeting: Barrier,
}

impl ModelSandbox {
    fn new(context: SandboxContext) -> Self {
        Self {
            context,
            meeting: Barrier::new(2),
        }
    }

    fn asked(&self, method: &str, request: impl Serialize) {
        self.context
            .event(method, serde_json::to_value(request).unwrap());
    }
}

impl Backend for Model {
    const TYPE: &'static str = "model";
    const ISOLATION: Isolation = Isolation::Vm;
    const DESCRIPTION: &'static str = "does everything";
    const CAPABILITIES: &'static [Capability] = &[Capability::COMMANDS, Capability("dreams")];
    type Config = Config;
    type Sandbox = ModelSandbox;

    fn open(plugin: &PluginContext) -> Result<Self> {
        super::opened(plugin, "Model")?;
        Ok(Self {
            opened_with: format!(
                "{} {} {} {}",
                plugin.host_id(),
                plugin.host_version(),
                plugin.path().display(),
                plugin.data_dir().display(),
            ),
        })
    }

    async fn probe(&self, _call: &Call) -> Result<Health> {
        Ok(Health::degraded(&self.opened_with))
    }

    async fn create(
        &self,
        config: Config,
        sandbox: SandboxContext,
        call: &Call,
    ) -> Result<ModelSandbox> {
        tracing::info!("creating {}", sandbox.id());
        sandbox.event("identity", json!(sandbox.identity()));
        sandbox.event("config", json!(config));
        sandbox.set_metadata("label", config.label.as_str());
        sandbox
            .save_state(State::new(3, &json!({ "id": sandbox.id() }))?)
            .await?;
        if config.label == "slow" {
            call.cancelled().await;
            sandbox.event("undone", Value::Null);
            return Err(Error::cancelled("the caller gave up"));
        }
        Ok(ModelSandbox::new(sandbox))
    }

    async fn recover(
        &self,
        state: State,
        sandbox: SandboxContext,
        _call: &Call,
    ) -> Result<Recovered<ModelSandbox>> {
        sandbox.event("recovering", json!(state));
        match state.data::<String>()?.as_str() {
            "gone" => Ok(Recovered::Gone),
            _ => Ok(Recovered::Running(ModelSandbox::new(sandbox))),
        }
    }

    async fn sweep(&self, request: SweepRequest, _call: &Call) -> Result<Swept> {
        let mut swept = Swept::default();
        swept.kept = vec![
            request.known.join(","),
            request.host,
            request.grace_ms.to_string(),
        ];
        swept.removed = request.free_leases;
        Ok(swept)
    }
}

/// Returns what a method of a [`ModelSandbox`] answers; what it wrote where it fills a sink.
pub(crate) fn answer(method: &str) -> Value {
    match method {
        "execute_command" => json!({
            "exit": command_exit(),
            "stdout": "printed",
            "stderr": "complained",
        }),
        "execution_context" => json!(ExecutionContext::Container {
            engine: "model".into(),
            id: "c0ffee".into(),
        }),
        "info" => json!({ "address": "10.0.0.7", "ports": [80, 443] }),
        "stats" => json!(stats()),
        "stat" => json!(file_info("link")),
        "list" => json!([file_info("a"), file_info("b")]),
        "read_file" | "get_archive" | "logs" => json!(format!("content of {method}")),
        _ => Value::Null,
    }
}

fn command_exit() -> CommandExit {
    let mut exit = CommandExit::signalled(9);
    exit.killed = Some(4);
    exit.out_of_memory = true;
    exit.duration_ms = 12;
    exit
}

fn stats() -> Stats {
    let mut stats = Stats::default();
    stats.cpu_us = Some(1);
    stats.memory_bytes = Some(u64::MAX);
    stats.memory_limit_bytes = Some(3);
    stats.processes = Some(4);
    stats.network_received_bytes = Some(5);
    stats.network_sent_bytes = Some(6);
    stats.disk_read_bytes = Some(7);
    stats.disk_written_bytes = Some(8);
    stats.other = BTreeMap::from([("load".into(), 0.5)]);
    stats
}

fn file_info(name: &str) -> FileInfo {
    let mut info = FileInfo::new(name, FileKind::Symlink);
    info.size = 1 << 50;
    info.mode = 0o640;
    info.modified_ms = 1_700_000_000_000;
    info.target = Some("/over/there".into());
    info
}

fn typed<T: serde::de::DeserializeOwned>(method: &str) -> T {
    serde_json::from_value(answer(method)).unwrap()
}

async fn fill(sink: &ByteSink, method: &str) -> Result<()> {
    sink.write(typed::<String>(method).into_bytes()).await?;
    sink.finish().await
}

async fn text_of(source: &ByteSource) -> Result<String> {
    String::from_utf8(source.read_to_end(usize::MAX).await?).map_err(Error::internal)
}

impl Sandbox for ModelSandbox {
    async fn start(&self, _call: &Call) -> Result<()> {
        self.asked("start", ());
        Ok(())
    }

    async fn stop(&self, _call: &Call) -> Result<()> {
        self.asked("stop", ());
        Ok(())
    }

    async fn cleanup(&self, _call: &Call) -> Result<()> {
        self.asked("cleanup", ());
        Ok(())
    }

    async fn execute_command(
        &self,
        command: Command,
        mut io: CommandIo,
        call: &Call,
    ) -> Result<CommandExit> {
        let argv = command.program.to_argv();
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["describe", ..] => {
                let content = text_of(&io.stdin).await?;
                let mut controls = Vec::new();
                while let Some(control) = io.controls.next().await? {
                    controls.push(control);
                }
                let request = json!({
                    "request": command,
                    "content": content,
                    "controls": controls,
                });
                self.asked("execute_command", request);
                io.stdout.write(b"printed".as_slice()).await?;
                io.stdout.finish().await?;
                io.stderr.write(b"complained".as_slice()).await?;
                io.stderr.finish().await?;
                return Ok(command_exit());
            }
            ["cat"] => {
                while let Some(chunk) = io.stdin.read(64 * 1024).await? {
                    io.stdout.write(chunk).await?;
                }
            }
            ["obey"] => obey(io.controls, &io.stdout).await?,
            ["yes"] => loop {
                io.stdout.write(vec![b'y'; 1000]).await?;
            },
            ["abandon"] => {
                io.stdout.write(b"half".as_slice()).await?;
                return Ok(CommandExit::exited(0));
            }
            ["refuse"] => {
                return Err(Error::new(ErrorCode(4711), "not today")
                    .retryable()
                    .with_details(json!({ "tomorrow": [1, 2] })));
            }
            ["context"] => {
                let remaining = call.remaining().map(|left| left.as_secs());
                self.asked(
                    "context",
                    json!({ "id": call.id(), "span": call.span(), "seconds": remaining }),
                );
            }
            ["wait-for-cancel"] => {
                self.asked("waiting", ());
                call.cancelled().await;
                // The future lives on while the author cleans up.
                tokio::task::yield_now().await;
                self.asked("cleaned-up", call.is_cancelled());
                return Err(Error::cancelled("cleaned up"));
            }
            ["hang"] => {
                let _guard = SaysWhenDropped(self.context.clone());
                self.asked("hanging", ());
                std::future::pending::<()>().await;
            }
            ["meet"] => {
                self.meeting.wait().await;
            }
            ["end"] => self.context.exited("it had enough"),
            ["log"] => log(),
            ["log-live", text] => {
                tracing::debug!(target: "live", "quiet {text}");
                tracing::info!(target: "live", "loud {text}");
            }
            ["spawn", text] => {
                let text = (*text).to_owned();
                let task = async move { tracing::info!("{text}") };
                self.context.spawn(task).await.map_err(Error::internal)?;
            }
            _ => return Err(Error::not_found(format_args!("no command `{words:?}`"))),
        }
        io.stdout.finish().await?;
        io.stderr.finish().await?;
        Ok(CommandExit::exited(0))
    }

    async fn execution_context(&self, _call: &Call) -> Result<Option<ExecutionContext>> {
        self.asked("execution_context", ());
        Ok(typed("execution_context"))
    }

    async fn info(&self, _call: &Call) -> Result<Map<String, Value>> {
        self.asked("info", ());
        Ok(typed("info"))
    }

    async fn stats(&self, _call: &Call) -> Result<Stats> {
        self.asked("stats", ());
        Ok(stats())
    }

    async fn read_file(&self, request: ReadFile, to: ByteSink, _call: &Call) -> Result<()> {
        self.asked("read_file", request);
        fill(&to, "read_file").await
    }

    async fn write_file(&self, request: WriteFile, from: ByteSource, _call: &Call) -> Result<()> {
        let content = text_of(&from).await?;
        self.asked(
            "write_file",
            json!({ "request": request, "content": content }),
        );
        Ok(())
    }

    async fn stat(&self, path: String, _call: &Call) -> Result<FileInfo> {
        self.asked("stat", path);
        Ok(typed("stat"))
    }

    async fn list(&self, path: String, _call: &Call) -> Result<Vec<FileInfo>> {
        self.asked("list", path);
        Ok(typed("list"))
    }

    async fn remove(&self, request: RemovePath, _call: &Call) -> Result<()> {
        self.asked("remove", request);
        Ok(())
    }

    async fn make_directory(&self, request: MakeDirectory, _call: &Call) -> Result<()> {
        self.asked("make_directory", request);
        Ok(())
    }

    async fn put_archive(&self, request: PutArchive, from: ByteSource, _call: &Call) -> Result<()> {
        let content = text_of(&from).await?;
        self.asked(
            "put_archive",
            json!({ "request": request, "content": content }),
        );
        Ok(())
    }

    async fn get_archive(&self, request: GetArchive, to: ByteSink, _call: &Call) -> Result<()> {
        self.asked("get_archive", request);
        fill(&to, "get_archive").await
    }

    async fn logs(&self, request: LogRequest, to: ByteSink, _call: &Call) -> Result<()> {
        self.asked("logs", request);
        fill(&to, "logs").await
    }

    async fn reset(&self, _call: &Call) -> Result<()> {
        self.asked("reset", ());
        Ok(())
    }
}

impl Drop for ModelSandbox {
    fn drop(&mut self) {
        self.asked("dropped-inside-a-runtime", runtime_is_entered());
    }
}

fn runtime_is_entered() -> bool {
    tokio::runtime::Handle::try_current().is_ok()
}

/// Prints each control as soon as it comes.
async fn obey(mut controls: Controls, stdout: &ByteSink) -> Result<()> {
    while let Some(control) = controls.next().await? {
        stdout.write(format!("{control:?}\n").into_bytes()).await?;
    }
    Ok(())
}

fn log() {
    let span = tracing::info_span!("outer", size = 42, late = tracing::field::Empty);
    span.in_scope(|| {
        tracing::debug!("filtered");
        let _inner = tracing::debug_span!("filtered").entered();
        tracing::warn!(count = 3, ratio = 0.5, ok = true, who = "me", "said {}", 1);
    });
    span.record("late", "now");
}

/// Tells the host that the future which holds it is gone.
struct SaysWhenDropped(SandboxContext);

impl Drop for SaysWhenDropped {
    fn drop(&mut self) {
        self.0.event("future-dropped", Value::Null);
    }
}

/// Implements what every backend must, and nothing else.
pub(super) struct Bare;

#[derive(Deserialize, JsonSchema)]
pub(super) struct Nothing;

pub(super) struct BareSandbox;

impl Backend for Bare {
    const TYPE: &'static str = "bare";
    const ISOLATION: Isolation = Isolation::None;
    type Config = Nothing;
    type Sandbox = BareSandbox;

    fn open(_plugin: &PluginContext) -> Result<Self> {
        Ok(Self)
    }

    async fn create(
        &self,
        _config: Nothing,
        _sandbox: SandboxContext,
        _call: &Call,
    ) -> Result<BareSandbox> {
        Ok(BareSandbox)
    }
}

impl Sandbox for BareSandbox {
    async fn start(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    async fn stop(&self, _call: &Call) -> Result<()> {
        Ok(())
    }

    async fn cleanup(&self, _call: &Call) -> Result<()> {
        Ok(())
    }
}
