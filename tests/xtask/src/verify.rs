//! `cargo verify`: everything that must be true of the repository.

use std::process::Command;

use crate::{
    setup::{OLDEST_CARGO, OLDEST_RUSTC, oldest_rust},
    step::{built, cargo, step, workspace},
};

/// The program that the agent's build script builds apart, as a target like any other.
const AGENT: &str = "boxyard-agent/agent";
/// How often each way to end a command is tried.
const REPEATS: &str = "3";

pub(crate) fn run() -> Result<(), String> {
    let oldest = oldest_rust();
    step("format", cargo().args(["fmt", "--all", "--check"]))?;
    step(
        "lints",
        cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--features",
            AGENT,
            "--",
            "--deny",
            "warnings",
        ]),
    )?;
    step("plugins", cargo().args(["build", "--workspace"]))?;
    // Whatever was set up above must be used: a test may not skip it.
    let require = if oldest { "1" } else { "0" };
    step(
        "tests",
        cargo()
            .args(["test", "--workspace", "--features", AGENT])
            .env("BOXYARD_REQUIRE_ALL", require)
            .env("BOXYARD_REPEAT", REPEATS),
    )?;
    for plugin in ["local_process", "hello"] {
        let library = built("debug").join(format!("libboxyard_plugin_{plugin}.so"));
        let conformance = ["run", "--quiet", "--package", "boxyard-conformance", "--"];
        step(
            &format!("conformance of {plugin}"),
            cargo().args(conformance).arg(library),
        )?;
    }
    step(
        "documentation",
        cargo()
            .args(["doc", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "--deny warnings"),
    )?;
    if oldest {
        step(
            "plugin API on the oldest compiler",
            &mut with_oldest("boxyard-plugin-api"),
        )?;
    }
    println!("\nverified");
    Ok(())
}

/// Tests a package with the oldest compiler, in a target directory of its own.
fn with_oldest(package: &str) -> Command {
    let mut command = Command::new(OLDEST_CARGO);
    command
        .args(["test", "--locked", "--package", package])
        .current_dir(workspace())
        // Not the toolchain that started us.
        .env_remove("CARGO")
        .env("RUSTC", OLDEST_RUSTC)
        .env("RUSTDOC", "/usr/bin/rustdoc")
        .env("CARGO_TARGET_DIR", built("oldest"));
    command
}
