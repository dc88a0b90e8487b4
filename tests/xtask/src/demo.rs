//! `cargo demo`: builds everything, fills a plugin directory, runs a first sandbox.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    fs,
    path::PathBuf,
    process::Command,
};

use crate::step::{built, cargo, step, workspace};

const PROFILE: &str = "debug";
const PLUGINS: [&str; 3] = [
    "boxyard_plugin_local_process",
    "boxyard_plugin_docker",
    "boxyard_plugin_hello",
];
/// A small image that `tests/images/make` makes.
const IMAGE: &str = "boxyard/busybox";

pub(crate) fn run() -> Result<(), String> {
    step("build the host and its plugins", cargo().arg("build"))?;
    let demo = Demo::new()?;
    explain("Install the plugins: each is checked from its bytes, copied, and pinned by its hash.");
    for plugin in PLUGINS {
        let library = built(PROFILE).join(format!("{DLL_PREFIX}{plugin}{DLL_SUFFIX}"));
        demo.show(&["plugins", "install", &library.to_string_lossy()], 0)?;
    }
    explain("A host finds what is in the directory. Nothing was rebuilt for it.");
    demo.show(&["plugins", "list"], 0)?;
    demo.show(&["types"], 0)?;
    explain("A tool of one plugin runs in a sandbox of the other.");
    demo.show(
        &[
            "run",
            "-t",
            "local-process",
            "--tool",
            "hello",
            "--params",
            r#"{"name": "sandbox"}"#,
        ],
        0,
    )?;
    explain("A command: what it prints comes as it is printed, its exit code is boxyard's.");
    demo.show(&["run", "-t", "local-process", "--", "echo", "hi"], 0)?;
    demo.show(
        &[
            "run",
            "-t",
            "local-process",
            "--shell",
            "echo out of luck >&2; exit 7",
        ],
        7,
    )?;
    explain("A timeout kills the command and what it started; 124 says so.");
    demo.show(
        &[
            "run",
            "-t",
            "local-process",
            "--timeout",
            "500ms",
            "--",
            "sleep",
            "60",
        ],
        124,
    )?;
    explain("For programs, one JSON document.");
    demo.show(
        &["run", "-t", "local-process", "--json", "--", "echo", "hi"],
        0,
    )?;
    if has_image() {
        explain("The same in a container: one word is another.");
        let image = format!("image={IMAGE}");
        demo.show(&["run", "-t", "docker", "-c", &image, "--", "id"], 0)?;
    } else {
        explain("With a Docker engine: boxyard run -t docker -c image=busybox -- id");
    }
    println!("\nThat is Boxyard. README.md says how to write a plugin of your own.");
    Ok(())
}

/// A home of the demo's own, made anew each time: what is installed goes there.
struct Demo {
    home: PathBuf,
}

impl Demo {
    fn new() -> Result<Self, String> {
        let home = built(PROFILE).join("demo");
        if home.exists() {
            fs::remove_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
        }
        fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
        Ok(Self { home })
    }

    /// Shows a command line, runs it, and checks the exit code that it is explained with.
    fn show(&self, arguments: &[&str], expected: i32) -> Result<(), String> {
        let shown: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
        println!("\n$ boxyard {}", shown.join(" "));
        let status = Command::new(built(PROFILE).join("boxyard"))
            .args(arguments)
            .current_dir(workspace())
            .env(
                "BOXYARD_PLUGIN_PATH",
                self.home.join("data/boxyard/plugins"),
            )
            .env_remove("BOXYARD_CONFIG")
            .env("XDG_DATA_HOME", self.home.join("data"))
            .env("XDG_STATE_HOME", self.home.join("state"))
            .env("XDG_CACHE_HOME", self.home.join("cache"))
            .status()
            .map_err(|error| format!("cannot start boxyard: {error}"))?;
        println!("[exit code {}]", status.code().unwrap_or(-1));
        if status.code() == Some(expected) {
            Ok(())
        } else {
            Err(format!("expected exit code {expected}, got {status}"))
        }
    }
}

/// Whether there is an engine that has the image.
fn has_image() -> bool {
    let mut docker = Command::new("docker");
    docker.args(["image", "inspect", IMAGE]);
    docker.output().is_ok_and(|output| output.status.success())
}

fn explain(text: &str) {
    println!("\n-- {text}");
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:".contains(c);
    if argument.chars().all(plain) {
        argument.into()
    } else {
        format!("'{argument}'")
    }
}
