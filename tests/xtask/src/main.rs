//! `cargo demo`, `cargo verify` and `cargo measure`: the project's own commands.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program talks to people"
)]

mod demo;
mod docker;
mod measure;
mod setup;
mod step;
mod verify;

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let done = match env::args().nth(1).as_deref() {
        Some("demo") => demo::run(),
        Some("verify") => verify::run(),
        Some("measure") => measure::run(),
        other => Err(format!("expected demo, verify or measure, not {other:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\nfailed: {message}");
            ExitCode::FAILURE
        }
    }
}
