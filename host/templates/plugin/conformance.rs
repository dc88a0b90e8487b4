//! Whether the plugin keeps Boxyard's contract: a test for each case of the conformance harness.

use std::process::ExitCode;

use boxyard_conformance::{libtest, plugin_test};

fn main() -> ExitCode {
    libtest::main(&plugin_test!())
}
