//! What is at the far end in the tests: a type whose sandboxes say what they were asked.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use boxyard_host::{
    ByteSink, ByteSource, Command, CommandExit, CommandIo, Error, ErrorCode, ExecutionContext,
    Health, Isolation, Stats,
};
use boxyard_plugin_api::{
    Call, FileInfo, FileKind, GetArchive, LogRequest, MakeDirectory, PutArchive, ReadFile,
    RemovePath, Result, Sandbox, SandboxIdentity, SandboxTypeDescriptor, State, SweepRequest,
    Swept, WriteFile,
    abi::{DynBackend, SandboxObject, SandboxServices, SandboxServicesObject},
};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

/// What happened at the far end, in order.
#[derive(Clone, Default)]
pub(super) struct Journal(Arc<(Mutex<Vec<String>>, Notify)>);

impl Journal {
    fn note(&self, line: impl Into<String>) {
        self.0.0.lock().unwrap().push(line.into());
        self.0.1.notify_waiters();
    }

    pub(super) fn has(&self, line: &str) -> bool {
        self.0.0.lock().unwrap().iter().any(|noted| noted == line)
    }

    pub(super) async fn until(&self, line: &str) {
        let noted = async {
            loop {
                let mut told = std::pin::pin!(self.0.1.notified());
                told.as_mut().enable();
                if self.has(line) {
                    return;
                }
                told.await;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(20), noted).await;
        assert!(done.is_ok(), "`{line}` never happened");
    }
}

struct NotesDrop(Journal, &'static str);

impl Drop for NotesDrop {
    fn drop(&mut self) {
        self.0.note(self.1);
    }
}

pub(super) struct Far(pub(super) Journal);

impl DynBackend for Far {
    fn describe(&self) -> SandboxTypeDescriptor {
        let description = json!({
            "name": "far",
            "description": "Far away.",
            "isolation": Isolation::Vm,
            "capabilities": ["commands"],
            "config_schema": { "type": "object" },
        });
        serde_json::from_value(description).unwrap()
    }

    async fn probe(&self, _call: &Call) -> Result<Health> {
        Ok(Health::degraded("far"))
    }

    async fn create(
        &self,
        config: Value,
        services: SandboxServicesObject,
        call: &Call,
    ) -> Result<SandboxObject> {
        self.0
            .note(format!("create {config} {}", services.identity()?.id));
        services.event("made".into(), json!([1]));
        services.set_metadata("pid".into(), json!(7));
        services.exited("at once".into());
        services.save_state(&State::new(3, &"state")?).await?;
        if config == json!("late") {
            self.0.note("waits to be asked");
            call.cancelled().await;
        }
        self.0.note("made");
        let dropped = NotesDrop(self.0.clone(), "sandbox dropped");
        Ok(SandboxObject::from_sandbox(FarSandbox(
            self.0.clone(),
            dropped,
        )))
    }

    async fn recover(
        &self,
        state: State,
        services: SandboxServicesObject,
        call: &Call,
    ) -> Result<Option<SandboxObject>> {
        if state.data == json!("gone") {
            return Ok(None);
        }
        self.create(state.data, services, call).await.map(Some)
    }

    async fn sweep(&self, request: SweepRequest, _call: &Call) -> Result<Swept> {
        let mut swept = Swept::default();
        swept.removed = request.free_leases;
        swept.kept = request.known;
        Ok(swept)
    }
}

struct FarSandbox(
    Journal,
    #[expect(dead_code, reason = "dropped with it")] NotesDrop,
);

impl Sandbox for FarSandbox {
    async fn start(&self, call: &Call) -> Result<()> {
        self.0.note(format!("start {} {}", call.id(), call.span()));
        Ok(())
    }

    async fn stop(&self, call: &Call) -> Result<()> {
        let _dropped = NotesDrop(self.0.clone(), "stop dropped");
        self.0.note("stop");
        call.cancelled().await;
        self.0.note("stop asked");
        std::future::pending().await
    }

    async fn cleanup(&self, call: &Call) -> Result<()> {
        let remaining = call.remaining().unwrap();
        assert!(remaining > Duration::from_secs(50) && remaining <= Duration::from_secs(60));
        Err(Error::new(ErrorCode::PANICKED, "cleanup")
            .retryable()
            .with_details(json!({ "a": [null] })))
    }

    async fn execute_command(
        &self,
        command: Command,
        mut io: CommandIo,
        _call: &Call,
    ) -> Result<CommandExit> {
        let control = io.controls.next().await?.unwrap();
        io.stdout
            .write(format!("{control:?} ").into_bytes())
            .await?;
        let bytes = io.stdin.read_to_end(usize::MAX).await?;
        io.stdout.write(bytes).await?;
        io.stderr
            .write(command.program.to_argv().concat().into_bytes())
            .await?;
        io.stdout.finish().await?;
        io.stderr.finish().await?;
        Ok(CommandExit::signalled(9))
    }

    async fn execution_context(&self, _call: &Call) -> Result<Option<ExecutionContext>> {
        Ok(Some(ExecutionContext::Process { pid: 7 }))
    }

    async fn info(&self, _call: &Call) -> Result<Map<String, Value>> {
        Ok([("far".to_owned(), json!(true))].into_iter().collect())
    }

    async fn stats(&self, _call: &Call) -> Result<Stats> {
        let mut stats = Stats::default();
        stats.processes = Some(3);
        Ok(stats)
    }

    async fn read_file(&self, request: ReadFile, to: ByteSink, _call: &Call) -> Result<()> {
        to.write(format!("{request:?}").into_bytes()).await?;
        to.finish().await
    }

    async fn write_file(&self, request: WriteFile, from: ByteSource, _call: &Call) -> Result<()> {
        let text = String::from_utf8(from.read_to_end(1000).await?).unwrap();
        self.0.note(format!("{request:?} {text}"));
        Ok(())
    }

    async fn stat(&self, path: String, _call: &Call) -> Result<FileInfo> {
        let mut info = FileInfo::new(path, FileKind::Symlink);
        info.size = 1 << 60;
        info.mode = 0o777;
        info.modified_ms = 5;
        info.target = Some("t".into());
        Ok(info)
    }

    async fn list(&self, path: String, call: &Call) -> Result<Vec<FileInfo>> {
        Ok(vec![self.stat(path, call).await?])
    }

    async fn remove(&self, request: RemovePath, _call: &Call) -> Result<()> {
        self.0.note(format!("{request:?}"));
        Ok(())
    }

    async fn make_directory(&self, request: MakeDirectory, _call: &Call) -> Result<()> {
        self.0.note(format!("{request:?}"));
        Ok(())
    }

    async fn put_archive(&self, request: PutArchive, from: ByteSource, _call: &Call) -> Result<()> {
        let restless = request.directory == "restless";
        let text = String::from_utf8(read(&from, restless).await?).unwrap();
        self.0.note(format!("{request:?} {text}"));
        Ok(())
    }

    async fn get_archive(&self, request: GetArchive, to: ByteSink, _call: &Call) -> Result<()> {
        to.write(format!("{request:?}").into_bytes()).await?;
        to.finish().await
    }

    async fn logs(&self, request: LogRequest, to: ByteSink, _call: &Call) -> Result<()> {
        to.write(format!("{request:?}").into_bytes()).await?;
        to.finish().await
    }

    async fn reset(&self, _call: &Call) -> Result<()> {
        self.0.note("reset");
        Ok(())
    }
}

/// Reads to the end; a restless reader leaves again and again while it waits.
async fn read(from: &ByteSource, restless: bool) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for patience in 0_u32.. {
        let leaves = async {
            for _ in 0..patience % 5 {
                tokio::task::yield_now().await;
            }
            if !restless {
                std::future::pending::<()>().await;
            }
        };
        let chunk = tokio::select! {
            biased;
            chunk = from.read(3) => chunk?,
            () = leaves => continue,
        };
        match chunk {
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => break,
        }
    }
    Ok(bytes)
}

pub(super) struct Near(pub(super) Journal);

impl SandboxServices for Near {
    fn identity(&self) -> SandboxIdentity {
        SandboxIdentity::new("id", "host", "lease")
    }

    fn event(&self, kind: String, data: Value) {
        self.0.note(format!("event {kind} {data}"));
    }

    fn set_metadata(&self, key: String, value: Value) {
        self.0.note(format!("metadata {key} {value}"));
    }

    fn exited(&self, reason: String) {
        self.0.note(format!("exited {reason}"));
    }

    async fn save_state(&self, state: State) -> Result<()> {
        self.0
            .note(format!("state {} {}", state.version, state.data));
        Ok(())
    }
}
