#![doc = include_str!("../README.md")]

mod backend;
mod config;
mod container;
mod engine;
mod hex;
mod image;
mod labels;
mod link;
mod log;
mod meeting;
mod parts;
mod policy;
mod recipe;
mod removal;
mod sandbox;
mod settings;
mod stats;
mod watch;

#[cfg(test)]
mod tests;

boxyard_plugin_api::register_plugin! { sandboxes: [backend::Docker], tools: [] }
