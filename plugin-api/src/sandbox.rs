//! One sandbox: what an author implements, and the handle that others call it by.

use std::future::{Future, ready};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    ByteSink, ByteSource, Call, Command, CommandExit, CommandIo, Error, ExecutionContext, FileInfo,
    GetArchive, MakeDirectory, PutArchive, ReadFile, RemovePath, Result, Stats, WriteFile,
    abi::SandboxObject, register::CallFuture,
};

/// One live sandbox. Shared: several calls may run at once.
///
/// The host keeps the lifecycle: it calls `start` once, then anything else, then `stop`, then
/// `cleanup`, which comes last and always, after a failed `start` too. What is not implemented
/// answers `Unsupported`. Write the methods as `async fn`.
pub trait Sandbox: Send + Sync + 'static {
    /// Makes the sandbox ready for commands.
    ///
    /// # Errors
    ///
    /// The sandbox becomes `error` with this message, and is stopped and cleaned up.
    fn start(&self, call: &Call) -> impl Future<Output = Result<()>> + Send;

    /// Ends everything that runs in the sandbox; again is no error.
    ///
    /// # Errors
    ///
    /// Something still runs.
    fn stop(&self, call: &Call) -> impl Future<Output = Result<()>> + Send;

    /// Gives back everything that the sandbox holds; again is no error.
    ///
    /// # Errors
    ///
    /// Something is left; the host tries again or sweeps later.
    fn cleanup(&self, call: &Call) -> impl Future<Output = Result<()>> + Send;

    /// Runs a command to its end. Any number may run at once.
    ///
    /// # Errors
    ///
    /// The command could not be tried; how it ended is no error but a [`CommandExit`].
    fn execute_command(
        &self,
        command: Command,
        io: CommandIo,
        call: &Call,
    ) -> impl Future<Output = Result<CommandExit>> + Send {
        let _ = (command, io, call);
        ready(Err(Error::unsupported("running commands")))
    }

    /// Returns where commands run, for tools and people that look from outside.
    ///
    /// # Errors
    ///
    /// The backend cannot tell now.
    fn execution_context(
        &self,
        call: &Call,
    ) -> impl Future<Output = Result<Option<ExecutionContext>>> + Send {
        let _ = call;
        ready(Ok(None))
    }

    /// Returns what the backend adds to the sandbox's information: ids, addresses, limits.
    ///
    /// # Errors
    ///
    /// The backend cannot tell now.
    fn info(&self, call: &Call) -> impl Future<Output = Result<Map<String, Value>>> + Send {
        let _ = call;
        ready(Ok(Map::new()))
    }

    /// Measures the sandbox.
    ///
    /// # Errors
    ///
    /// The backend cannot tell now.
    fn stats(&self, call: &Call) -> impl Future<Output = Result<Stats>> + Send {
        let _ = call;
        ready(Err(Error::unsupported("measuring")))
    }

    /// Reads a file into `to` and finishes it.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND`, `PERMISSION_DENIED`, and what the file system answers.
    fn read_file(
        &self,
        request: ReadFile,
        to: ByteSink,
        call: &Call,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (request, to, call);
        ready(Err(Error::unsupported("reading files")))
    }

    /// Writes a file from `from`: the whole of it or, on any error, nothing.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND`, `PERMISSION_DENIED`, and what the file system answers.
    fn write_file(
        &self,
        request: WriteFile,
        from: ByteSource,
        call: &Call,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (request, from, call);
        ready(Err(Error::unsupported("writing files")))
    }

    /// Returns what is at a path, a symbolic link itself included.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND`, `PERMISSION_DENIED`, and what the file system answers.
    fn stat(&self, path: String, call: &Call) -> impl Future<Output = Result<FileInfo>> + Send {
        let _ = (path, call);
        ready(Err(Error::unsupported("looking at files")))
    }

    /// Returns what is in a directory, by name.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND`, `PERMISSION_DENIED`, and what the file system answers.
    fn list(
        &self,
        path: String,
        call: &Call,
    ) -> impl Future<Output = Result<Vec<FileInfo>>> + Send {
        let _ = (path, call);
        ready(Err(Error::unsupported("listing directories")))
    }

    /// Removes a file or a directory.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND`, `FAILED_PRECONDITION` for a directory that is not empty, and what the file
    /// system answers.
    fn remove(&self, request: RemovePath, call: &Call) -> impl Future<Output = Result<()>> + Send {
        let _ = (request, call);
        ready(Err(Error::unsupported("removing files")))
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// `ALREADY_EXISTS`, `NOT_FOUND` for a missing parent, and what the file system answers.
    fn make_directory(
        &self,
        request: MakeDirectory,
        call: &Call,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (request, call);
        ready(Err(Error::unsupported("making directories")))
    }

    /// Unpacks a tar stream.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for what is no tar or would leave the directory.
    fn put_archive(
        &self,
        request: PutArchive,
        from: ByteSource,
        call: &Call,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (request, from, call);
        ready(Err(Error::unsupported("putting archives")))
    }

    /// Packs a path into a tar stream and finishes it.
    ///
    /// # Errors
    ///
    /// `NOT_FOUND`, and what the file system answers.
    fn get_archive(
        &self,
        request: GetArchive,
        to: ByteSink,
        call: &Call,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (request, to, call);
        ready(Err(Error::unsupported("getting archives")))
    }

    /// Writes what the sandbox itself printed to `to` and finishes it.
    ///
    /// # Errors
    ///
    /// The backend cannot read it.
    fn logs(
        &self,
        request: LogRequest,
        to: ByteSink,
        call: &Call,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (request, to, call);
        ready(Err(Error::unsupported("keeping logs")))
    }

    /// Brings the sandbox back to the state it started in.
    ///
    /// # Errors
    ///
    /// The sandbox cannot be used again, and is replaced.
    fn reset(&self, call: &Call) -> impl Future<Output = Result<()>> + Send {
        let _ = call;
        ready(Err(Error::unsupported("resetting")))
    }
}

/// Which part of a sandbox's log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct LogRequest {
    /// Whether to go on with what is still to come.
    pub follow: bool,
    /// How many of the last lines; all where `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
}

impl LogRequest {
    /// Sets whether to go on with what is still to come.
    #[must_use]
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// Sets how many of the last lines are wanted.
    #[must_use]
    pub fn tail(mut self, tail: impl Into<Option<u64>>) -> Self {
        self.tail = tail.into();
        self
    }
}

/// A sandbox of the other side's: a backend's in the host's hands, or the host's in a tool's.
///
/// Each method takes a [`Call`] and answers what the method of [`Sandbox`] of the same name
/// answers, and [`ErrorCode::PANICKED`](crate::ErrorCode::PANICKED) where that panicked.
#[derive(Debug)]
pub struct SandboxHandle(SandboxObject);

impl From<SandboxObject> for SandboxHandle {
    fn from(object: SandboxObject) -> Self {
        Self(object)
    }
}

impl From<SandboxHandle> for SandboxObject {
    fn from(handle: SandboxHandle) -> Self {
        handle.0
    }
}

/// Defines methods of [`SandboxHandle`] that pass a request on.
macro_rules! handle_methods {
    (
        plain: { $($plain:ident($($request:ident: $Request:ty)?) -> $Response:ty;)* }
        to_sink: { $($to_sink:ident($ToRequest:ty);)* }
        from_source: { $($from_source:ident($FromRequest:ty);)* }
    ) => {
        impl SandboxHandle {
            $(
                #[doc = concat!("Does [`Sandbox::", stringify!($plain), "`].")]
                pub fn $plain(&self, $($request: &$Request,)? call: Call) -> CallFuture<$Response> {
                    self.0.plain(|vtable| vtable.$plain(), handle_methods!(@request $($request)?), call)
                }
            )*
            $(
                #[doc = concat!("Does [`Sandbox::", stringify!($to_sink), "`].")]
                pub fn $to_sink(&self, request: &$ToRequest, to: ByteSink, call: Call) -> CallFuture<()> {
                    self.0.with_sink(|vtable| vtable.$to_sink(), request, to, call)
                }
            )*
            $(
                #[doc = concat!("Does [`Sandbox::", stringify!($from_source), "`].")]
                pub fn $from_source(&self, request: &$FromRequest, from: ByteSource, call: Call) -> CallFuture<()> {
                    self.0.with_source(|vtable| vtable.$from_source(), request, from, call)
                }
            )*
        }
    };
    (@request) => { &() };
    (@request $request:ident) => { $request };
}

handle_methods! {
    plain: {
        start() -> ();
        stop() -> ();
        cleanup() -> ();
        execution_context() -> Option<ExecutionContext>;
        info() -> Map<String, Value>;
        stats() -> Stats;
        reset() -> ();
        stat(path: str) -> FileInfo;
        list(path: str) -> Vec<FileInfo>;
        remove(request: RemovePath) -> ();
        make_directory(request: MakeDirectory) -> ();
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

impl SandboxHandle {
    /// Does [`Sandbox::execute_command`].
    pub fn execute_command(
        &self,
        command: &Command,
        io: CommandIo,
        call: Call,
    ) -> CallFuture<CommandExit> {
        self.0.execute_command(command, io, call)
    }
}
