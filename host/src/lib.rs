//! The host: loads plugins from directories while it runs, and owns the sandboxes that they make.
//!
//! 1. [`Config`] says where plugins are and what they may do; [`Host::start`] loads them.
//! 2. [`Host::registry`] has the sandbox types and tools that they brought; [`Host::plugins`]
//!    every file that was found, with the reason why one was refused.
//! 3. [`Host::manager`] creates sandboxes, runs commands and tools in them, and deletes them.
//! 4. [`Host::rescan`] takes in what was dropped into a directory since.
//! 5. [`Host::shutdown`] cleans up every sandbox and ends the plugins.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use boxyard_host::{Command, Config, CreateRequest, Host};
//!
//! let host = Host::start(Config::default()).await?;
//! let sandbox = host.manager().create(CreateRequest::new("local-process")).await?;
//! let result = sandbox.run(Command::shell("echo hi"), None).await?;
//! assert_eq!(result.stdout_text(), "hi\n");
//! host.manager().delete(sandbox.id()).await?;
//! host.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod backend;
pub mod cli;
pub mod config;
pub mod exit;
mod hex;
mod host;
pub mod http;
mod lease;
mod manager;
mod output;
pub mod plugin;
mod pool;
mod registry;
mod sandbox;
mod schema;
mod spelling;
mod store;
pub mod telemetry;
mod tool;

pub use boxyard_plugin_api::{
    ByteSink, ByteSource, Command, CommandExit, CommandIo, Control, Controls, Error, ErrorCode,
    ExecutionContext, FileInfo, FileKind, GetArchive, Health, HealthStatus, Isolation, LogRequest,
    MakeDirectory, Program, PutArchive, ReadFile, RemovePath, Stats, WriteFile, pipe,
};

pub use config::{Config, Lifetimes, Limits, PluginConfig, Timeouts};
pub use host::{Host, StartError};
pub use manager::{CreateError, CreatePoolError, CreateRequest, EndError, Filter, Manager};
pub use output::CommandResult;
pub use plugin::{PluginReport, PluginStatus};
pub use pool::{Lent, Pool, PoolError, PoolSpec, PoolStats, Reuse, TooLarge};
pub use registry::{Registry, SandboxType, UnknownType};
pub use sandbox::{Event, Sandbox, SandboxInfo, Status, StatusError};
pub use schema::{Problem, SchemaError};
pub use store::StoreError;
pub use tool::{Language, Tool, ToolError, ToolResult, ToolStatus};
