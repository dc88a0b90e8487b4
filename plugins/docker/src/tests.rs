//! Against a real engine and a real registry, and against engines that misbehave.

mod container;
mod engine;
mod fake;
mod harness;
mod image;
mod link;
mod proxy;
mod registry;
