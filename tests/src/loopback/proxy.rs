//! Objects of the other end, in the shape of plugin-api's traits.

use std::sync::Arc;

use boxyard_host::{ByteSink, ByteSource};
use boxyard_host::{Command, CommandExit, CommandIo, Error, ExecutionContext, Health, Stats};
use boxyard_plugin_api::{
    Call, FileInfo, GetArchive, LogRequest, PutArchive, ReadFile, Result, Sandbox, SandboxHandle,
    SandboxIdentity, SandboxTypeDescriptor, State, SweepRequest, Swept, ToolDescriptor, WriteFile,
    abi::{DynBackend, DynTool, SandboxObject, SandboxServices, SandboxServicesObject},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    remote::{Answer, Remote, Request},
    serve::{Exported, Making},
};

/// Hands the methods of a sandbox, by their shapes, to another macro.
macro_rules! sandbox_methods {
    ($then:ident) => {
        $then! {
            plain: {
                start() -> ();
                stop() -> ();
                cleanup() -> ();
                execution_context() -> Option<ExecutionContext>;
                info() -> Map<String, Value>;
                stats() -> Stats;
                reset() -> ();
                stat(path: String) -> FileInfo;
                list(path: String) -> Vec<FileInfo>;
                remove(request: boxyard_plugin_api::RemovePath) -> ();
                make_directory(request: boxyard_plugin_api::MakeDirectory) -> ();
            }
            to_sink: {
                read_file(ReadFile);
                get_archive(GetArchive);
                logs(LogRequest);
            }
            from_source: {
                write_file(WriteFile);
                put_archive(PutArchive);
            }
        }
    };
}
pub(super) use sandbox_methods;

/// A sandbox type of the other end.
pub(super) struct RemoteType {
    descriptor: SandboxTypeDescriptor,
    remote: Remote,
}

impl RemoteType {
    pub(super) fn new(descriptor: SandboxTypeDescriptor, remote: Remote) -> Self {
        Self { descriptor, remote }
    }

    async fn make(
        &self,
        method: &'static str,
        document: impl Serialize,
        services: SandboxServicesObject,
        call: &Call,
    ) -> Result<Option<SandboxObject>> {
        let identity = services.identity()?;
        let request = Request::new(method, &Making { document, identity })?
            .handing(Exported::Services(Arc::new(services)));
        let answer = self.remote.call(request, call).await?;
        let made = answer.handed.into_iter().next().map(RemoteSandbox::from);
        Ok(made.map(SandboxObject::from_sandbox))
    }
}

impl DynBackend for RemoteType {
    fn describe(&self) -> SandboxTypeDescriptor {
        self.descriptor.clone()
    }

    async fn probe(&self, call: &Call) -> Result<Health> {
        let answer = self.remote.call(Request::plain("probe"), call).await?;
        Ok(serde_json::from_value(answer.value)?)
    }

    async fn create(
        &self,
        config: Value,
        services: SandboxServicesObject,
        call: &Call,
    ) -> Result<SandboxObject> {
        let made = self.make("create", config, services, call).await?;
        made.ok_or_else(|| Error::internal("`create` was answered without a sandbox"))
    }

    async fn recover(
        &self,
        state: State,
        services: SandboxServicesObject,
        call: &Call,
    ) -> Result<Option<SandboxObject>> {
        self.make("recover", state, services, call).await
    }

    async fn sweep(&self, request: SweepRequest, call: &Call) -> Result<Swept> {
        let request = Request::new("sweep", &request)?;
        let answer = self.remote.call(request, call).await?;
        Ok(serde_json::from_value(answer.value)?)
    }
}

/// A tool of the other end.
pub(super) struct RemoteTool {
    descriptor: ToolDescriptor,
    remote: Remote,
}

impl RemoteTool {
    pub(super) fn new(descriptor: ToolDescriptor, remote: Remote) -> Self {
        Self { descriptor, remote }
    }
}

impl DynTool for RemoteTool {
    fn describe(&self) -> ToolDescriptor {
        self.descriptor.clone()
    }

    async fn execute(&self, params: Value, sandbox: SandboxHandle, call: &Call) -> Result<Value> {
        let request = Request::new("execute", &params)?.handing(sandbox.into());
        Ok(self.remote.call(request, call).await?.value)
    }
}

/// A sandbox of the other end: a backend's, or the host's in a tool's hands.
pub(super) struct RemoteSandbox(Remote);

impl From<Remote> for RemoteSandbox {
    fn from(remote: Remote) -> Self {
        Self(remote)
    }
}

impl RemoteSandbox {
    async fn ask(
        &self,
        method: &'static str,
        params: &(impl Serialize + ?Sized + Sync),
        handing: Option<Exported>,
        call: &Call,
    ) -> Result<Answer> {
        let mut request = Request::new(method, params)?;
        request.handing.extend(handing);
        self.0.call(request, call).await
    }
}

macro_rules! proxy_methods {
    (
        plain: { $($plain:ident($($request:ident: $Request:ty)?) -> $Response:ty;)* }
        to_sink: { $($to_sink:ident($ToRequest:ty);)* }
        from_source: { $($from_source:ident($FromRequest:ty);)* }
    ) => {
        impl Sandbox for RemoteSandbox {
            $(async fn $plain(&self, $($request: $Request,)? call: &Call) -> Result<$Response> {
                let params = ($($request,)?);
                let answer = self.ask(stringify!($plain), params.document(), None, call).await?;
                Ok(serde_json::from_value(answer.value)?)
            })*
            $(async fn $to_sink(&self, request: $ToRequest, to: ByteSink, call: &Call) -> Result<()> {
                self.ask(stringify!($to_sink), &request, Some(to.into()), call).await.map(drop)
            })*
            $(async fn $from_source(
                &self,
                request: $FromRequest,
                from: ByteSource,
                call: &Call,
            ) -> Result<()> {
                self.ask(stringify!($from_source), &request, Some(from.into()), call).await.map(drop)
            })*

            async fn execute_command(
                &self,
                command: Command,
                io: CommandIo,
                call: &Call,
            ) -> Result<CommandExit> {
                let request = Request::new("execute_command", &command)?
                    .handing(io.stdin.into())
                    .handing(io.stdout.into())
                    .handing(io.stderr.into())
                    .handing(io.controls.into_source().into());
                let answer = self.0.call(request, call).await?;
                Ok(serde_json::from_value(answer.value)?)
            }
        }
    };
}

sandbox_methods!(proxy_methods);

/// The parameters of a plain method: a document, or nothing.
trait Params {
    type Document: Serialize + Sync;
    fn document(&self) -> &Self::Document;
}

impl Params for () {
    type Document = ();
    fn document(&self) -> &() {
        self
    }
}

impl<T: Serialize + Sync> Params for (T,) {
    type Document = T;
    fn document(&self) -> &T {
        &self.0
    }
}

/// A sandbox's line to the host that is at the other end.
pub(super) struct RemoteServices {
    /// Came with the object: it never changes, and a plugin does not wait for it.
    identity: SandboxIdentity,
    remote: Remote,
}

impl RemoteServices {
    pub(super) fn new(identity: SandboxIdentity, remote: Remote) -> Self {
        Self { identity, remote }
    }
}

impl SandboxServices for RemoteServices {
    fn identity(&self) -> SandboxIdentity {
        self.identity.clone()
    }

    fn event(&self, kind: String, data: Value) {
        self.remote.note("event", json!([kind, data]));
    }

    fn set_metadata(&self, key: String, value: Value) {
        self.remote.note("set_metadata", json!([key, value]));
    }

    fn exited(&self, reason: String) {
        self.remote.note("exited", json!(reason));
    }

    async fn save_state(&self, state: State) -> Result<()> {
        let request = Request::new("save_state", &state)?;
        self.remote.request(request).await.map(drop)
    }
}
