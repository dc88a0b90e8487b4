//! One sandbox of the plugin under test, and what it tells its host.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use boxyard_host::Error;
use boxyard_plugin_api::{
    ByteSink, ByteSource, Command, CommandExit, CommandIo, Controls, ErrorCode, ReadFile,
    SandboxHandle, SandboxIdentity, State, WriteFile,
    abi::{SandboxServices, SandboxServicesObject, SandboxTypeObject},
    pipe,
};
use serde_json::Value;
use tokio::time::timeout;

use super::call;
use crate::verdict::{Finding, Outcome};

/// What a sandbox told its host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) events: Vec<(String, Value)>,
    pub(crate) metadata: Vec<(String, Value)>,
    pub(crate) exited: Option<String>,
    pub(crate) saved: Vec<State>,
}

/// A sandbox, and the host's side of it.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) handle: SandboxHandle,
    pub(crate) identity: SandboxIdentity,
    told: Arc<Mutex<Told>>,
}

/// What a command wrote and how it ended.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) exit: CommandExit,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

struct Services {
    identity: SandboxIdentity,
    told: Arc<Mutex<Told>>,
}

impl Services {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SandboxServices for Services {
    fn identity(&self) -> SandboxIdentity {
        self.identity.clone()
    }

    fn event(&self, kind: String, data: Value) {
        self.told().events.push((kind, data));
    }

    fn set_metadata(&self, key: String, value: Value) {
        self.told().metadata.push((key, value));
    }

    fn exited(&self, reason: String) {
        self.told().exited = Some(reason);
    }

    async fn save_state(&self, state: State) -> Result<(), Error> {
        self.told().saved.push(state);
        Ok(())
    }
}

/// Makes the host's services of a new sandbox.
pub(crate) fn services(lease: &str) -> (SandboxServicesObject, SandboxIdentity, Arc<Mutex<Told>>) {
    services_for(identity(lease))
}

/// Makes the name of a new sandbox.
pub(crate) fn identity(lease: &str) -> SandboxIdentity {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = format!("case{}-{number}", std::process::id());
    SandboxIdentity::new(id, "conformance", lease)
}

/// Makes the host's services of a sandbox.
pub(crate) fn services_for(
    identity: SandboxIdentity,
) -> (SandboxServicesObject, SandboxIdentity, Arc<Mutex<Told>>) {
    let told = Arc::<Mutex<Told>>::default();
    let services = Services {
        identity: identity.clone(),
        told: told.clone(),
    };
    (
        SandboxServicesObject::from_services(services),
        identity,
        told,
    )
}

impl Live {
    /// Makes a sandbox from a configuration that was checked.
    pub(crate) async fn create(
        sandbox_type: &SandboxTypeObject,
        config: &Value,
        lease: &str,
    ) -> Result<Self, Error> {
        Self::create_as(sandbox_type, config, identity(lease)).await
    }

    /// Makes a sandbox of that name.
    pub(crate) async fn create_as(
        sandbox_type: &SandboxTypeObject,
        config: &Value,
        identity: SandboxIdentity,
    ) -> Result<Self, Error> {
        let (services, identity, told) = services_for(identity);
        let handle = sandbox_type.create(config, services, call()).await?;
        Ok(Self {
            handle,
            identity,
            told,
        })
    }

    /// Takes a sandbox that was found again.
    pub(crate) async fn recover(
        sandbox_type: &SandboxTypeObject,
        state: &State,
        identity: SandboxIdentity,
    ) -> Result<Option<Self>, Error> {
        let (services, identity, told) = services_for(identity);
        let found = sandbox_type.recover(state, services, call()).await?;
        Ok(found.map(|object| Self {
            handle: object,
            identity,
            told,
        }))
    }

    pub(crate) fn told(&self) -> Told {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) async fn start(&self) -> Result<(), Error> {
        self.handle.start(call()).await
    }

    /// Runs a command without input.
    pub(crate) async fn run(&self, command: Command) -> Result<Output, Error> {
        self.run_with(command, ByteSource::empty(), Controls::none())
            .await
    }

    /// Runs a command with an input and controls.
    pub(crate) async fn run_with(
        &self,
        command: Command,
        stdin: ByteSource,
        controls: Controls,
    ) -> Result<Output, Error> {
        let (io, stdout, stderr) = streams(stdin, controls);
        let (exit, stdout, stderr) = tokio::join!(
            self.handle.execute_command(&command, io, call()),
            stdout.read_to_end(usize::MAX),
            stderr.read_to_end(usize::MAX),
        );
        // Its own error first: streams break off where there is one.
        let (exit, stdout, stderr) = (exit?, stdout?, stderr?);
        Ok(Output {
            exit,
            stdout,
            stderr,
        })
    }

    /// Runs a command of which only the exit code counts, or that of the error.
    pub(crate) async fn code(&self, command: Command) -> Result<i32, ErrorCode> {
        let ran = self.run(command).await;
        ran.map(|output| output.exit.exit_code)
            .map_err(|error| error.code())
    }

    /// Runs a shell line that must succeed; returns what it printed.
    pub(crate) async fn sh(&self, line: &str) -> Outcome<String> {
        let output = self.run(Command::shell(line)).await?;
        if output.exit.exit_code != 0 {
            return Err(Finding::Failed(format!(
                "`{line}` ended with exit code {}, and said {:?}",
                output.exit.exit_code,
                output.err()
            )));
        }
        Ok(output.out())
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let request = ReadFile::new(path);
        let (sink, source) = pipe();
        collect(self.handle.read_file(&request, sink, call()), source).await
    }

    pub(crate) async fn write(&self, path: &str, content: impl Into<Vec<u8>>) -> Result<(), Error> {
        let request = WriteFile::new(path);
        let content = ByteSource::from_bytes(content.into());
        self.handle.write_file(&request, content, call()).await
    }

    /// Stops and cleans up.
    pub(crate) async fn close(&self) -> Outcome {
        self.handle.stop(call()).await?;
        self.handle.cleanup(call()).await?;
        Ok(())
    }
}

/// Collects what a call writes.
pub(crate) async fn collect(
    work: impl Future<Output = Result<(), Error>>,
    source: ByteSource,
) -> Result<Vec<u8>, Error> {
    let (done, bytes) = tokio::join!(work, source.read_to_end(usize::MAX));
    done?;
    bytes
}

/// The streams of a command: what the command has, its output and its errors.
pub(crate) fn streams(
    stdin: ByteSource,
    controls: Controls,
) -> (CommandIo, ByteSource, ByteSource) {
    let (stdout_sink, stdout): (ByteSink, ByteSource) = pipe();
    let (stderr_sink, stderr) = pipe();
    let io = CommandIo {
        stdin,
        stdout: stdout_sink,
        stderr: stderr_sink,
        controls,
    };
    (io, stdout, stderr)
}

/// Waits for a call and for what drives it at the same time; what the driver found comes first.
pub(crate) async fn driven<T>(
    call: impl Future<Output = T>,
    driver: impl Future<Output = Outcome>,
) -> Outcome<T> {
    let (ended, driven) = tokio::join!(call, driver);
    driven?;
    Ok(ended)
}

/// Waits for something that must happen within a time; says what it was.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = T>,
) -> Outcome<T> {
    timeout(limit, work).await.map_err(|_| {
        Finding::Failed(format!(
            "{what}: expected within {} ms, and it took longer",
            limit.as_millis()
        ))
    })
}
