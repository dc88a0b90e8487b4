#![doc = include_str!("../README.md")]

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod delegate;
mod limit;
#[cfg(feature = "client")]
mod program;
pub mod protocol;
mod removal;
#[cfg(feature = "client")]
mod spawn;

#[doc(hidden)]
#[cfg(feature = "client")]
pub use boxyard_plugin_api as plugin_api;
#[cfg(feature = "client")]
pub use client::{Client, Process};
pub use limit::Limit;
#[cfg(feature = "client")]
pub use program::Program;
pub use removal::remove_tree;
#[cfg(feature = "client")]
pub use spawn::spawn;
