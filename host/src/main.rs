//! The `boxyard` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    boxyard_host::cli::main()
}
