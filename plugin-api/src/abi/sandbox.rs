//! A sandbox as it crosses; implemented by backends, and by the host towards tools.

use std::{future::Future, sync::Arc};

use abi_stable::{
    StableAbi,
    std_types::{RResult, RString},
};
use async_ffi::FfiFuture;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    ByteSink, ByteSource, Call, Command, Result, Sandbox,
    abi::{
        self, CommandIo, Failure, Instance, Object, SinkObject, SourceObject,
        object::{impl_vtable, vtable_ref},
    },
    register::{
        runtime::Executor,
        shim::{self, CallFuture, Reply},
    },
};

/// One sandbox. Requests and replies are JSON documents; `null` where there is nothing to say.
///
/// Every entry may be called while others run, but `cleanup` is the last.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = SandboxVTableRef, prefix_fields = SandboxVTablePrefix)))]
#[sabi(missing_field(option))]
pub struct SandboxVTable {
    /// Gives the instance back.
    pub release: unsafe extern "C" fn(this: Instance),
    /// Makes it ready for commands.
    pub start: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Ends everything that runs in it.
    pub stop: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Gives back everything that it holds.
    pub cleanup: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Runs a [`Command`]; answers a [`CommandExit`](crate::CommandExit).
    pub execute_command: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
        io: CommandIo,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Answers an [`ExecutionContext`](crate::ExecutionContext) or `null`.
    pub execution_context: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Answers an object with what the backend adds to the sandbox's information.
    pub info: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Answers [`Stats`](crate::Stats).
    pub stats: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Does a [`ReadFile`](crate::ReadFile).
    pub read_file: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
        to: SinkObject,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Does a [`WriteFile`](crate::WriteFile).
    pub write_file: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
        from: SourceObject,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Answers the [`FileInfo`](crate::FileInfo) of a path, a link itself included.
    pub stat: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Answers the [`FileInfo`](crate::FileInfo)s in a directory, by name.
    pub list: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Does a [`RemovePath`](crate::RemovePath).
    pub remove: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Does a [`MakeDirectory`](crate::MakeDirectory).
    pub make_directory: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Does a [`PutArchive`](crate::PutArchive).
    pub put_archive: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
        from: SourceObject,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Does a [`GetArchive`](crate::GetArchive).
    pub get_archive: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
        to: SinkObject,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Does a [`LogRequest`](crate::LogRequest).
    pub logs: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
        to: SinkObject,
    ) -> FfiFuture<RResult<RString, Failure>>,
    /// Brings it back to the state it started in.
    #[sabi(last_prefix_field)]
    pub reset: unsafe extern "C" fn(
        this: Instance,
        call: abi::Call,
        request: RString,
    ) -> FfiFuture<RResult<RString, Failure>>,
}

impl_vtable!(SandboxVTableRef, SandboxVTable);

/// A sandbox that lives on the side that made it.
pub type SandboxObject = Object<SandboxVTableRef>;

/// A sandbox with the runtime that its methods run on.
struct Live<S> {
    sandbox: S,
    executor: Executor,
}

impl<S: Sandbox> Live<S> {
    const TABLE: SandboxVTable = SandboxVTable {
        release: Self::release,
        start: Self::start,
        stop: Self::stop,
        cleanup: Self::cleanup,
        execute_command: Self::execute_command,
        execution_context: Self::execution_context,
        info: Self::info,
        stats: Self::stats,
        read_file: Self::read_file,
        write_file: Self::write_file,
        stat: Self::stat,
        list: Self::list,
        remove: Self::remove,
        make_directory: Self::make_directory,
        put_archive: Self::put_archive,
        get_archive: Self::get_archive,
        logs: Self::logs,
        reset: Self::reset,
    };
    vtable_ref!(SandboxVTableRef);

    /// Runs one method on the sandbox's runtime.
    ///
    /// # Safety
    ///
    /// `this` is an instance of this table.
    unsafe fn run<Request, Response, Fut>(
        this: Instance,
        call: abi::Call,
        request: RString,
        method: impl FnOnce(Arc<Self>, Request, Call) -> Fut + Send + 'static,
    ) -> FfiFuture<Reply>
    where
        Request: DeserializeOwned,
        Response: Serialize,
        Fut: Future<Output = Result<Response>> + Send,
    {
        // SAFETY: `SandboxObject::on` joins this table to a `Self`.
        let live = unsafe { this.get::<Self>() };
        let executor = live.executor.clone();
        shim::on_runtime(&executor, Call::from(call), move |call| async move {
            let work = method(live, serde_json::from_str(&request)?, call);
            work.await
        })
    }

    unsafe extern "C" fn release(this: Instance) {
        // SAFETY: `SandboxObject::on` joins this table to a `Self`, and releases it once.
        let live = unsafe { this.release::<Self>() };
        live.executor.clone().drop_there(live);
    }

    unsafe extern "C" fn execute_command(
        this: Instance,
        call: abi::Call,
        request: RString,
        io: CommandIo,
    ) -> FfiFuture<Reply> {
        let method = |live: Arc<Self>, command: Command, call| async move {
            live.sandbox
                .execute_command(command, io.into(), &call)
                .await
        };
        // SAFETY: entries are called with instances of their table.
        unsafe { Self::run(this, call, request, method) }
    }
}

/// Implements entries: the ones that answer a document, that fill a sink, that empty a source.
macro_rules! entries {
    (
        plain: $($plain:ident($($request:ident)?)),*;
        to_sink: $($to_sink:ident),*;
        from_source: $($from_source:ident),*;
    ) => {
        impl<S: Sandbox> Live<S> {
            $(unsafe extern "C" fn $plain(
                this: Instance,
                call: abi::Call,
                request: RString,
            ) -> FfiFuture<Reply> {
                let method = |live: Arc<Self>, request, call| async move {
                    entries!(@call live $plain request call $($request)?)
                };
                // SAFETY: entries are called with instances of their table.
                unsafe { Self::run(this, call, request, method) }
            })*

            $(unsafe extern "C" fn $to_sink(
                this: Instance,
                call: abi::Call,
                request: RString,
                to: SinkObject,
            ) -> FfiFuture<Reply> {
                let method = |live: Arc<Self>, request, call| async move {
                    live.sandbox.$to_sink(request, ByteSink::from(to), &call).await
                };
                // SAFETY: entries are called with instances of their table.
                unsafe { Self::run(this, call, request, method) }
            })*

            $(unsafe extern "C" fn $from_source(
                this: Instance,
                call: abi::Call,
                request: RString,
                from: SourceObject,
            ) -> FfiFuture<Reply> {
                let method = |live: Arc<Self>, request, call| async move {
                    live.sandbox.$from_source(request, ByteSource::from(from), &call).await
                };
                // SAFETY: entries are called with instances of their table.
                unsafe { Self::run(this, call, request, method) }
            })*
        }
    };
    (@call $live:ident $method:ident $request:ident $call:ident) => {{
        let () = $request;
        $live.sandbox.$method(&$call).await
    }};
    (@call $live:ident $method:ident $request:ident $call:ident request) => {
        $live.sandbox.$method($request, &$call).await
    };
}

entries! {
    plain: start(), stop(), cleanup(), execution_context(), info(), stats(), reset(),
        stat(request), list(request), remove(request), make_directory(request);
    to_sink: read_file, get_archive, logs;
    from_source: write_file, put_archive;
}

/// The shapes of the entries.
pub(crate) type PlainEntry = unsafe extern "C" fn(Instance, abi::Call, RString) -> FfiFuture<Reply>;
pub(crate) type ToSinkEntry =
    unsafe extern "C" fn(Instance, abi::Call, RString, SinkObject) -> FfiFuture<Reply>;
pub(crate) type FromSourceEntry =
    unsafe extern "C" fn(Instance, abi::Call, RString, SourceObject) -> FfiFuture<Reply>;

impl SandboxObject {
    /// Erases a sandbox whose methods run on the current tokio runtime.
    ///
    /// For hosts and proxies; what [`register_plugin!`](crate::register_plugin) registers is
    /// erased by itself.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn from_sandbox(sandbox: impl Sandbox) -> Self {
        Self::on(sandbox, Executor::current())
    }

    pub(crate) fn on<S: Sandbox>(sandbox: S, executor: Executor) -> Self {
        // SAFETY: the table is the one for `Live<S>`.
        unsafe { Self::new(Arc::new(Live { sandbox, executor }), Live::<S>::REF) }
    }

    pub(crate) fn plain<Response: DeserializeOwned + 'static>(
        &self,
        entry: impl FnOnce(SandboxVTableRef) -> PlainEntry,
        request: &(impl Serialize + ?Sized),
        call: Call,
    ) -> CallFuture<Response> {
        let entry = entry(self.vtable());
        shim::request(request, |request| {
            // SAFETY: the entry is one of this object's vtable, and `self` keeps the instance
            // alive for the call; the future keeps what it needs alive by itself.
            unsafe { entry(self.instance(), call.into(), request) }
        })
    }

    pub(crate) fn with_sink(
        &self,
        entry: impl FnOnce(SandboxVTableRef) -> ToSinkEntry,
        request: &(impl Serialize + ?Sized),
        to: ByteSink,
        call: Call,
    ) -> CallFuture<()> {
        let entry = entry(self.vtable());
        shim::request(request, |request| {
            // SAFETY: as for `plain`.
            unsafe { entry(self.instance(), call.into(), request, to.into()) }
        })
    }

    pub(crate) fn with_source(
        &self,
        entry: impl FnOnce(SandboxVTableRef) -> FromSourceEntry,
        request: &(impl Serialize + ?Sized),
        from: ByteSource,
        call: Call,
    ) -> CallFuture<()> {
        let entry = entry(self.vtable());
        shim::request(request, |request| {
            // SAFETY: as for `plain`.
            unsafe { entry(self.instance(), call.into(), request, from.into()) }
        })
    }

    pub(crate) fn execute_command(
        &self,
        command: &Command,
        io: crate::CommandIo,
        call: Call,
    ) -> CallFuture<crate::CommandExit> {
        let entry = self.vtable().execute_command();
        shim::request(command, |request| {
            // SAFETY: as for `plain`.
            unsafe { entry(self.instance(), call.into(), request, io.into()) }
        })
    }
}
