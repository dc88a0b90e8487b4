#![doc = include_str!("../README.md")]

pub mod abi;
mod backend;
mod call;
mod capability;
mod command;
mod context;
mod descriptor;
mod error;
mod file;
mod health;
mod isolation;
mod manifest;
mod recovery;
pub mod register;
mod sandbox;
mod stats;
mod stream;
mod tool;

pub use backend::{Backend, Recovered};
pub use call::{Call, CallController};
pub use capability::Capability;
pub use command::{
    Command, CommandExit, CommandIo, Control, Controls, ExecutionContext, Program, TerminalSize,
};
pub use context::{PluginContext, RunOutput, SandboxContext, SandboxIdentity, ToolContext};
pub use descriptor::{SandboxTypeDescriptor, ToolDescriptor};
pub use error::{Error, ErrorCode, Result};
pub use file::{
    FileInfo, FileKind, GetArchive, MakeDirectory, PutArchive, ReadFile, RemovePath, WriteFile,
};
pub use health::{Health, HealthStatus};
pub use isolation::Isolation;
pub use manifest::{
    FORMAT, MANIFEST_SECTION, MANIFEST_SYMBOL, Manifest, ManifestSandboxType, canonical_type_name,
};
pub use recovery::{State, SweepRequest, Swept};
pub use sandbox::{LogRequest, Sandbox, SandboxHandle};
pub use stats::Stats;
pub use stream::{ByteSink, ByteSource, Chunk, Sink, Source, pipe};
pub use tool::Tool;

/// The version of the ABI and SDK that this crate is; it decides what loads what.
pub const API_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The oldest host API on which plugins built with this crate run: entries appended
/// after it are optional, and a host without them answers `Unsupported`.
pub const MIN_HOST_API: &str = "1.0.0";

/// What nearly every plugin needs; `use boxyard_plugin_api::prelude::*`.
pub mod prelude {
    pub use crate::{
        Backend, ByteSink, ByteSource, Call, Capability, Command, CommandExit, CommandIo, Error,
        ErrorCode, ExecutionContext, Health, Isolation, PluginContext, Program, Recovered, Result,
        Sandbox, SandboxContext, State, Stats, SweepRequest, Swept, Tool, ToolContext,
        register_plugin,
    };
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{self, Value, json};
    pub use tracing;
}
