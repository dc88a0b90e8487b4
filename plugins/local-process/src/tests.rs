//! The plugin driven through its own ABI, as a host does it.

mod agent;
mod commands;
mod ends;
mod files;
mod harness;
mod lifecycle;
mod output;
