#![doc = include_str!("../README.md")]

mod agent;
mod backend;
mod config;
mod directory;
mod environment;
mod sandbox;

#[cfg(test)]
mod tests;

use backend::LocalProcess;

boxyard_plugin_api::register_plugin! { sandboxes: [LocalProcess], tools: [] }
