//! The plugin driven through its own ABI, as a host does it.

mod commands;
mod ends;
mod harness;
mod lifecycle;
mod output;
