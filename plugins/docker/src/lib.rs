#![doc = include_str!("../README.md")]
#![expect(
    dead_code,
    unused_imports,
    reason = "the sandbox type that uses it all is made next"
)]

mod config;
mod container;
mod engine;
