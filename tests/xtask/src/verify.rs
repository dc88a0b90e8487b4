//! `cargo verify`: everything that must be true of the repository.

use std::process::Command;

use crate::{
    docker::{docker, podman},
    setup::{OLDEST_CARGO, OLDEST_RUSTC, ms_enclave, oldest_rust},
    step::{built, cargo, step, workspace},
};

/// The program that the agent's build script builds apart, as a target like any other.
const AGENT: &str = "boxyard-agent/agent";
/// How often each way to end a command is tried.
const REPEATS: &str = "3";

pub(crate) fn run() -> Result<(), String> {
    let oldest = oldest_rust();
    let docker = docker();
    let podman = docker && podman();
    let ms_enclave = if docker { ms_enclave() } else { None };
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
            .env("BOXYARD_WITHOUT_DOCKER", if docker { "0" } else { "1" })
            .env("BOXYARD_WITHOUT_PODMAN", if podman { "0" } else { "1" })
            .env(
                "BOXYARD_WITHOUT_MS_ENCLAVE",
                if ms_enclave.is_some() { "0" } else { "1" },
            )
            .env("BOXYARD_MS_ENCLAVE_PYTHON", ms_enclave.unwrap_or_default())
            .env("BOXYARD_REPEAT", REPEATS)
            // What a failed test says is what helps, and stands last so.
            .env("RUST_BACKTRACE", "0"),
    )?;
    for plugin in ["local_process", "hello"] {
        conformance(plugin, None)?;
    }
    if docker {
        for config in ["socket", "attach", "python"] {
            conformance("docker", Some(config))?;
        }
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

/// Runs the harness on a plugin, with a file of its `conformance` directory if one is named.
fn conformance(plugin: &str, config: Option<&str>) -> Result<(), String> {
    let library = built("debug").join(format!("libboxyard_plugin_{plugin}.so"));
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "boxyard-conformance", "--"]);
    command.arg(library);
    let mut name = format!("conformance of {plugin}");
    if let Some(config) = config {
        let directory = workspace().join("plugins").join(plugin).join("conformance");
        command
            .arg("--config")
            .arg(directory.join(format!("{config}.toml")));
        name.push_str(&format!(" ({config})"));
    }
    step(&name, &mut command)
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
