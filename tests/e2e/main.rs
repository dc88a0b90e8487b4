//! End-to-end tests: hosts on real plugins, most of them bad on purpose.
//!
//! A test that cannot run here says so on standard error, past the capture of the test harness,
//! and passes; with `BOXYARD_REQUIRE_ALL=1` it fails.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as expected"
)]

mod builtin;
mod cancel;
mod cli;
mod conformance;
mod docker;
mod ending;
mod files;
mod keeping;
mod lifecycle;
mod loading;
mod logs;
mod panics;
mod pool;
mod serve;
mod streams;
mod sweep;
mod tools;
mod world;

use std::io::Write;

use anyhow::{Result, ensure};

/// Says what is not tested and why, or fails where everything is required.
fn skip(what: &str, why: &str) -> Result<()> {
    let required = std::env::var_os("BOXYARD_REQUIRE_ALL").is_some_and(|value| value == "1");
    ensure!(!required, "cannot test {what}: {why}");
    writeln!(std::io::stderr(), "SKIPPED {what}: {why}")?;
    Ok(())
}
