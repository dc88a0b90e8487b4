//! A host in miniature: the plugin initialised once, sandboxes of one's own, bounded waits.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use abi_stable::{library::RootModuleResult, std_types::RStr};
use boxyard_plugin_api::{
    CallController, Controls, SandboxHandle, SandboxIdentity,
    abi::{
        HostServices, HostServicesObject, InitRequest, PluginModuleRef, SandboxServices,
        SandboxServicesObject, SandboxTypeObject, Telemetry,
    },
    pipe,
    prelude::*,
    register::{Registration, SandboxEntry, module, root_header},
};
use tokio::time::{sleep, timeout};

use crate::backend::LocalProcess;

/// The lease of every sandbox whose host lives.
pub(super) const LEASE: &str = "lease-alive";
/// How long anything may take that must happen.
pub(super) const BOUND: Duration = Duration::from_secs(60);

static REGISTRATION: Registration = Registration {
    manifest: b"{}",
    sandboxes: &[SandboxEntry::of::<LocalProcess>()],
    tools: &[],
};

extern "C" fn construct() -> RootModuleResult {
    module(&REGISTRATION)
}

/// What the plugin logged, as `LEVEL sandbox: message`.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Host;

impl HostServices for Host {
    fn telemetry(&self, record: Telemetry) {
        if let Telemetry::Event {
            level,
            message,
            labels,
            fields,
            ..
        } = record
        {
            if level == "ERROR" {
                // Panics of tests, too: the plugin's hook sends them here.
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "{message} {fields:?}");
            }
            LOG.lock()
                .unwrap()
                .push(format!("{level} {}: {message}", labels.sandbox));
        }
    }
}

struct Plugin {
    sandbox_type: SandboxTypeObject,
    data_dir: PathBuf,
}

fn plugin() -> &'static Plugin {
    static PLUGIN: OnceLock<Plugin> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        // Beside the test itself, for a static is never dropped. Runs may share it.
        let exe = std::env::current_exe().unwrap();
        let data_dir = exe.with_file_name("local-process-tests");
        std::fs::create_dir_all(&data_dir).unwrap();
        let module: PluginModuleRef = root_header(construct).init_root_module().unwrap();
        let request = InitRequest {
            host_id: "host".into(),
            data_dir: data_dir.to_str().unwrap().into(),
            runtime_threads: 2,
            log_filter: "info".into(),
            ..InitRequest::default()
        };
        let request = serde_json::to_string(&request).unwrap();
        let host = HostServicesObject::from_services(Host);
        let initialised = module.call_init(RStr::from(request.as_str()), host);
        initialised.into_result().map_err(Error::from).unwrap();
        let sandbox_type = module.call_sandbox_types().into_iter().next().unwrap();
        Plugin {
            sandbox_type,
            data_dir,
        }
    })
}

pub(super) fn sandbox_type() -> &'static SandboxTypeObject {
    &plugin().sandbox_type
}

pub(super) fn logged(sandbox: &str) -> Vec<String> {
    let log = LOG.lock().unwrap();
    let of_sandbox = |line: &&String| line.contains(&format!(" {sandbox}: "));
    log.iter().filter(of_sandbox).cloned().collect()
}

pub(super) fn call() -> Call {
    CallController::new(0).call()
}

/// The services of one sandbox, which keep what is saved.
pub(super) struct Services {
    identity: SandboxIdentity,
    told: Arc<Mutex<Told>>,
}

/// What a sandbox told its host.
#[derive(Default)]
pub(super) struct Told {
    saved: Option<State>,
    exited: Option<String>,
}

impl SandboxServices for Services {
    fn identity(&self) -> SandboxIdentity {
        self.identity.clone()
    }

    fn event(&self, _kind: String, _data: Value) {}

    fn set_metadata(&self, _key: String, _value: Value) {}

    fn exited(&self, reason: String) {
        self.told.lock().unwrap().exited = Some(reason);
    }

    async fn save_state(&self, state: State) -> Result<()> {
        let directory = directory_of(&self.identity.lease, &self.identity.id);
        assert!(!directory.exists(), "the state is saved first");
        self.told.lock().unwrap().saved = Some(state);
        Ok(())
    }
}

pub(super) fn directory_of(lease: &str, id: &str) -> PathBuf {
    plugin().data_dir.join(format!("sandboxes/{lease}.{id}"))
}

pub(super) fn services(lease: &str, id: &str) -> SandboxServicesObject {
    SandboxServicesObject::from_services(Services {
        identity: SandboxIdentity::new(id, "host", lease),
        told: Arc::default(),
    })
}

/// A name that no test had, in this run or another.
pub(super) fn new_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    static RUN: OnceLock<u128> = OnceLock::new();
    let run = RUN.get_or_init(|| SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("t{}-{run:x}-{number}", std::process::id())
}

/// A sandbox that was started.
pub(super) struct TestSandbox {
    pub(super) id: String,
    pub(super) handle: SandboxHandle,
    pub(super) directory: PathBuf,
    pub(super) state: State,
    told: Arc<Mutex<Told>>,
}

pub(super) async fn sandbox_of(lease: &str, config: Value) -> Result<TestSandbox> {
    let id = new_id();
    let told = Arc::<Mutex<Told>>::default();
    let services = SandboxServicesObject::from_services(Services {
        identity: SandboxIdentity::new(&*id, "host", lease),
        told: told.clone(),
    });
    let handle = sandbox_type().create(&config, services, call()).await?;
    handle.start(call()).await?;
    let state = told.lock().unwrap().saved.take().unwrap();
    Ok(TestSandbox {
        directory: directory_of(lease, &id),
        id,
        handle,
        state,
        told,
    })
}

pub(super) async fn sandbox(config: Value) -> TestSandbox {
    sandbox_of(LEASE, config).await.unwrap()
}

/// The output of a command that ended.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) exit: CommandExit,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Output {
    pub(super) fn out(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub(super) fn err(&self) -> &str {
        std::str::from_utf8(&self.stderr).unwrap()
    }
}

/// The streams of a command, the caller's ends and the command's.
pub(super) fn io(stdin: ByteSource, controls: Controls) -> (CommandIo, ByteSource, ByteSource) {
    let (stdout_sink, stdout) = pipe();
    let (stderr_sink, stderr) = pipe();
    let io = CommandIo {
        stdin,
        stdout: stdout_sink,
        stderr: stderr_sink,
        controls,
    };
    (io, stdout, stderr)
}

impl TestSandbox {
    pub(super) async fn try_run(&self, command: Command) -> Result<Output> {
        self.run_with(command, ByteSource::empty(), Controls::none())
            .await
    }

    pub(super) async fn run(&self, command: Command) -> Output {
        self.try_run(command).await.unwrap()
    }

    pub(super) async fn run_with(
        &self,
        command: Command,
        stdin: ByteSource,
        controls: Controls,
    ) -> Result<Output> {
        let (io, stdout, stderr) = io(stdin, controls);
        let all = async {
            tokio::join!(
                self.handle.execute_command(&command, io, call()),
                stdout.read_to_end(usize::MAX),
                stderr.read_to_end(usize::MAX),
            )
        };
        let (exit, stdout, stderr) = within(all).await;
        // Its own error first: streams break off where there is one.
        let (exit, stdout, stderr) = (exit?, stdout?, stderr?);
        Ok(Output {
            exit,
            stdout,
            stderr,
        })
    }

    /// Why it ended by itself, if it did.
    pub(super) fn exited(&self) -> Option<String> {
        self.told.lock().unwrap().exited.clone()
    }

    /// Stops and cleans up; nothing of the sandbox may be left.
    pub(super) async fn close(self) {
        within(self.handle.stop(call())).await.unwrap();
        within(self.handle.cleanup(call())).await.unwrap();
        assert!(!self.directory.exists());
        assert_eq!(self.processes(), Vec::<String>::new());
    }

    /// The command lines of its processes.
    pub(super) fn processes(&self) -> Vec<String> {
        let entry = format!("BOXYARD_SANDBOX={}", self.id);
        let mut found = Vec::new();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            if environment
                .split(|byte| *byte == 0)
                .any(|part| part == entry.as_bytes())
            {
                let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        found
    }
}

pub(super) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(BOUND, work).await.expect("it takes too long")
}

/// Waits until a condition holds.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < BOUND, "never: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Reads a pid that a command wrote into a file, once it is whole.
pub(super) async fn pid_in(file: &Path) -> u32 {
    let mut pid = None;
    eventually("a pid in a file", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        pid = text.strip_suffix('\n').map(|text| text.parse().unwrap());
        pid.is_some()
    })
    .await;
    pid.unwrap()
}

/// Whether a process is there and no zombie.
pub(super) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    state.is_some_and(|state| !b"ZX".contains(&state))
}

/// Whether a number names a process, zombies included.
pub(super) fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
