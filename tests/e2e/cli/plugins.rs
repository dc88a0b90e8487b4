//! What is found, what it says of itself, and how it is installed.

use std::{fs, os::unix::fs::PermissionsExt};

use boxyard_conformance::Library;
use serde_json::{Value, json};

use super::{Cli, HELLO, LOCAL_PROCESS, code, stderr, stdout};
use crate::loading::init::with_witness;

#[test]
fn plugins_list_has_the_promised_keys() {
    let cli = Cli::new();
    fs::write(cli.yard.plugins().join("text.so"), "no library").unwrap();
    let list = cli.json(&["plugins", "list", "--json"]);
    let plugins = list["plugins"].as_array().unwrap();
    assert_eq!(plugins.len(), 3);
    for plugin in plugins {
        let plugin = plugin.as_object().unwrap();
        for key in [
            "path",
            "name",
            "version",
            "api_version",
            "status",
            "reason",
            "sandbox_types",
            "tools",
        ] {
            assert!(plugin.contains_key(key), "{key} is missing: {plugin:?}");
        }
    }
    let by_name = |name: &str| {
        plugins
            .iter()
            .find(|plugin| plugin["name"] == name)
            .unwrap()
    };
    assert_eq!(
        by_name(LOCAL_PROCESS)["sandbox_types"],
        json!(["local-process"])
    );
    assert_eq!(by_name(LOCAL_PROCESS)["status"], "loaded");
    assert_eq!(by_name(HELLO)["tools"], json!(["hello"]));
    let text = plugins
        .iter()
        .find(|plugin| plugin["name"].is_null())
        .unwrap();
    assert_eq!(text["status"], "quarantined");
    assert!(
        text["reason"]
            .as_str()
            .unwrap()
            .contains("not a shared library")
    );
}

#[test]
fn the_list_for_people_says_what_isolates_nothing_and_why_a_plugin_is_refused() {
    let cli = Cli::new();
    fs::write(cli.yard.plugins().join("text.so"), "no library").unwrap();
    let output = cli.output(&["plugins", "list"]);
    assert_eq!(code(&output), 0);
    let text = stdout(&output);
    assert!(text.contains("local-process (isolation: none)"), "{text}");
    assert!(
        text.contains("text.so") && text.contains("not a shared library"),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "colours in a pipe: {text:?}");
}

#[test]
fn inspect_shows_the_manifest_and_runs_no_code() {
    let cli = Cli::empty();
    let (library, witness) = with_witness(&cli.yard).unwrap();
    let path = cli.yard.put("constructor.so", &library).unwrap();
    let manifest = cli.json(&["plugins", "inspect", "--json", path.to_str().unwrap()]);
    assert_eq!(manifest["name"], "constructor");
    assert_eq!(manifest["format"], 1);
    assert!(!witness.exists(), "the constructor ran");
    let output = cli.output(&["plugins", "inspect", "/etc/passwd"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("not a shared library"),
        "{output:?}"
    );
}

#[test]
fn types_has_the_promised_keys() {
    let types = Cli::new().json(&["types", "--json"]);
    let one = &types["types"][0];
    assert_eq!(one["name"], "local-process");
    assert_eq!(one["plugin"], LOCAL_PROCESS);
    assert_eq!(one["isolation"], "none");
    assert!(
        one["capabilities"]
            .as_array()
            .unwrap()
            .contains(&json!("commands"))
    );
    assert_eq!(one["health"]["status"], "healthy");
    assert_eq!(one["config_schema"]["type"], "object");
}

#[test]
fn install_copies_pins_and_guards_the_content() {
    let cli = Cli::empty();
    let source = cli.root().join("built.so");
    fs::write(&source, Library::package(HELLO).unwrap().bytes()).unwrap();
    let source = source.to_str().unwrap();
    let installed = cli
        .root()
        .join("data/boxyard/plugins")
        .join(format!("{HELLO}.so"));
    let mut install = cli.command(&["plugins", "install", source]);
    assert!(
        install
            .env_remove("BOXYARD_PLUGIN_PATH")
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        fs::metadata(&installed).unwrap().permissions().mode() & 0o777,
        0o644
    );
    let list = || -> Value {
        let mut list = cli.command(&["plugins", "list", "--json"]);
        let output = list.env_remove("BOXYARD_PLUGIN_PATH").output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["plugins"]
            .as_array()
            .unwrap()
            .iter()
            .find(|plugin| plugin["path"] == installed.to_str().unwrap())
            .unwrap()
            .clone()
    };
    // The build directory has the same plugin, and comes first.
    assert_ne!(list()["status"], "quarantined");
    let mut changed = fs::read(&installed).unwrap();
    changed.push(0);
    fs::write(&installed, changed).unwrap();
    let mut list = cli.command(&["plugins", "list", "--json", "--plugin-dir"]);
    let output = list.arg(installed.parent().unwrap()).output().unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["plugins"][0]["status"], "quarantined");
    assert!(
        list["plugins"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("SHA-256"),
        "{list}"
    );
    let output = cli.output(&["plugins", "install", "/etc/passwd"]);
    assert_eq!(code(&output), 1);
}
