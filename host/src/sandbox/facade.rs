//! A sandbox as a tool sees it: commands, files, information; never its lifecycle.

use std::sync::Arc;

use boxyard_plugin_api as api;
use boxyard_plugin_api::{
    ByteSink, ByteSource, Call, Command, CommandExit, CommandIo, Error, ExecutionContext, FileInfo,
    GetArchive, LogRequest, MakeDirectory, PutArchive, ReadFile, RemovePath, Result, SandboxHandle,
    Stats, WriteFile, register::CallFuture,
};
use serde_json::{Map, Value};
use tracing::{Instrument, Span};

use super::Sandbox;
use crate::backend::Terms;

/// A sandbox in a tool's hands. What the tool starts ends with the tool's own call.
pub(super) struct Facade {
    sandbox: Arc<Sandbox>,
    /// The span that the tool was called in; what it starts lies in it too.
    span: Span,
}

impl Facade {
    pub(super) fn new(sandbox: Arc<Sandbox>) -> Self {
        Self {
            sandbox,
            span: Span::current(),
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        call: &Call,
        start: impl FnOnce(&SandboxHandle, Call) -> CallFuture<T>,
    ) -> Result<T> {
        let terms = Terms {
            parent: Some(call),
            ..Terms::default()
        };
        let answer = self.sandbox.call(terms, start);
        answer.instrument(self.span.clone()).await
    }
}

fn not_a_tools_business(what: &str) -> Error {
    Error::permission_denied(format_args!(
        "a tool cannot {what} the sandbox that it runs in"
    ))
}

impl api::Sandbox for Facade {
    async fn start(&self, _call: &Call) -> Result<()> {
        Err(not_a_tools_business("start"))
    }

    async fn stop(&self, _call: &Call) -> Result<()> {
        Err(not_a_tools_business("stop"))
    }

    async fn cleanup(&self, _call: &Call) -> Result<()> {
        Err(not_a_tools_business("clean up"))
    }

    async fn reset(&self, _call: &Call) -> Result<()> {
        Err(not_a_tools_business("reset"))
    }

    async fn execute_command(
        &self,
        command: Command,
        io: CommandIo,
        call: &Call,
    ) -> Result<CommandExit> {
        let exit = self.sandbox.execute(&command, io, Some(call));
        exit.instrument(self.span.clone()).await
    }

    async fn info(&self, _call: &Call) -> Result<Map<String, Value>> {
        match serde_json::to_value(self.sandbox.info().await)? {
            Value::Object(info) => Ok(info),
            _ => Err(Error::internal("a sandbox's information is no object")),
        }
    }

    async fn execution_context(&self, call: &Call) -> Result<Option<ExecutionContext>> {
        self.call(call, |handle, call| handle.execution_context(call))
            .await
    }

    async fn stats(&self, call: &Call) -> Result<Stats> {
        self.call(call, |handle, call| handle.stats(call)).await
    }

    async fn stat(&self, path: String, call: &Call) -> Result<FileInfo> {
        self.call(call, |handle, call| handle.stat(&path, call))
            .await
    }

    async fn list(&self, path: String, call: &Call) -> Result<Vec<FileInfo>> {
        self.call(call, |handle, call| handle.list(&path, call))
            .await
    }

    async fn remove(&self, request: RemovePath, call: &Call) -> Result<()> {
        self.call(call, |handle, call| handle.remove(&request, call))
            .await
    }

    async fn make_directory(&self, request: MakeDirectory, call: &Call) -> Result<()> {
        self.call(call, |handle, call| handle.make_directory(&request, call))
            .await
    }

    async fn read_file(&self, request: ReadFile, to: ByteSink, call: &Call) -> Result<()> {
        self.call(call, |handle, call| handle.read_file(&request, to, call))
            .await
    }

    async fn write_file(&self, request: WriteFile, from: ByteSource, call: &Call) -> Result<()> {
        self.call(call, |handle, call| handle.write_file(&request, from, call))
            .await
    }

    async fn put_archive(&self, request: PutArchive, from: ByteSource, call: &Call) -> Result<()> {
        self.call(call, |handle, call| {
            handle.put_archive(&request, from, call)
        })
        .await
    }

    async fn get_archive(&self, request: GetArchive, to: ByteSink, call: &Call) -> Result<()> {
        self.call(call, |handle, call| handle.get_archive(&request, to, call))
            .await
    }

    async fn logs(&self, request: LogRequest, to: ByteSink, call: &Call) -> Result<()> {
        self.call(call, |handle, call| handle.logs(&request, to, call))
            .await
    }
}
