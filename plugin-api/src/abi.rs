//! What crosses between a host and a plugin, and by which rules.
//!
//! Authors of plugins need nothing from here: the traits at the top of the crate and
//! [`register_plugin!`](crate::register_plugin) cover it. Hosts, proxies and conformance
//! tests use it.
//!
//! * **Types.** Only `abi_stable` types cross. Documents that may grow cross as JSON, whose
//!   unknown fields are ignored; vtables grow at their end and are read as `None` where an
//!   older side ends earlier. [`Call`], [`CommandIo`], [`Failure`], [`Object`] and
//!   [`Instance`] cross by value and are frozen for all of 1.x.
//! * **Who frees.** An [`Object`] is released once, by whoever holds it, through its own
//!   vtable: memory goes back to the side that made it.
//! * **Who may unwind.** Nobody. Author code is polled and dropped under a catch; a panic
//!   arrives as [`ErrorCode::PANICKED`](crate::ErrorCode::PANICKED).
//! * **Which thread.** Entries that return a future may begin at once; they run author code on
//!   the plugin's own runtime, and dropping the future aborts it there. Entries that
//!   return a value are quick and do not block. An object is dropped inside the runtime of
//!   the side that made it.
//! * **The process.** Only the host owns signal handlers, the working directory, the umask,
//!   the environment (frozen before the first plugin is loaded) and descriptors 0 to 2.
//!   Nothing in the host process is a subreaper or waits for pids that it did not spawn.
//!   A plugin that overruns its shutdown deadline is left behind; host services then answer
//!   [`ErrorCode::CLOSED`](crate::ErrorCode::CLOSED).
//! * **Bytes.** Everything here has a byte form: no descriptors, no borrows that outlive a
//!   call, no callback without an object. A plugin can therefore run in another process.

#![expect(
    unsafe_code,
    reason = "values are erased, crossed and found again in this room"
)]

mod call;
mod command;
mod failure;
mod host;
pub mod layout;
mod module;
mod object;
mod sandbox;
mod sandbox_type;
mod stream;
mod tool;

pub use call::{Call, CallVTable, CallVTableRef};
pub use command::CommandIo;
pub use failure::Failure;
pub use host::{
    HostServices, HostServicesObject, HostServicesVTable, HostServicesVTableRef, InitRequest,
    SandboxServices, SandboxServicesObject, SandboxServicesVTable, SandboxServicesVTableRef,
    Telemetry, TelemetryLabels,
};
pub use module::{PluginModule, PluginModuleRef};
pub use object::{Instance, Object, VTable};
pub use sandbox::{SandboxObject, SandboxVTable, SandboxVTableRef};
pub use sandbox_type::{DynBackend, SandboxTypeObject, SandboxTypeVTable, SandboxTypeVTableRef};
pub use stream::{
    ByteSinkVTable, ByteSinkVTableRef, ByteSourceVTable, ByteSourceVTableRef, SinkObject,
    SourceObject,
};
pub use tool::{DynTool, ToolObject, ToolVTable, ToolVTableRef};
