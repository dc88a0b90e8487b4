#![doc = include_str!("../README.md")]

mod backend;
mod command;
mod config;
mod directory;
mod environment;
mod leader;
mod limits;
mod processes;
mod program;
mod removal;
mod sandbox;
mod spawn;
mod streams;

#[cfg(test)]
mod tests;

use backend::LocalProcess;

boxyard_plugin_api::register_plugin! { sandboxes: [LocalProcess], tools: [] }
