use schemars::generate::SchemaSettings;

use super::*;

fn parse(config: Value) -> Result<Config> {
    let config: Config = serde_json::from_value(config)?;
    config.validate()?;
    Ok(config)
}

#[test]
fn everything_has_a_default() {
    let config = parse(json!({})).unwrap();
    assert_eq!(config.image, "python:3.11-slim");
    assert_eq!(config.memory_limit, Size::gib(4));
    assert_eq!(config.timeout().unwrap(), None);
    assert_eq!(config.stop_timeout().unwrap(), Duration::ZERO);
    assert!(config.has_network() && !config.privileged && config.remove_on_exit);
}

#[test]
fn what_is_wrong_is_named() {
    for (config, named) in [
        (json!({"images": "x"}), "images"),
        (json!({"image": ""}), "image"),
        (json!({"image": "a b"}), "a b"),
        (json!({"image": "-x"}), "-x"),
        (json!({"pull_policy": "often"}), "often"),
        (json!({"platform": "amd64"}), "linux/amd64"),
        (json!({"memory_limit": "4 apples"}), "4 apples"),
        (
            json!({"memory_limit": "5m"}),
            "memory_limit: expected at least 6m, found 5m",
        ),
        (json!({"disk_limit": 1}), "disk_limit"),
        (json!({"cpu_limit": 0}), "cpu_limit"),
        (json!({"cpu_limit": -1.0}), "cpu_limit"),
        (json!({"pids_limit": 0}), "pids_limit"),
        (json!({"working_dir": "sandbox"}), "working_dir"),
        (json!({"env_vars": {"A=B": ""}}), "A=B"),
        (json!({"env_vars": {"": ""}}), "env_vars"),
        (json!({"env_vars": {"A": "\0"}}), "env_vars.A"),
        (json!({"user": ""}), "user"),
        (json!({"timeout": 0}), "timeout"),
        (json!({"timeout": -1.5}), "-1.5"),
        (json!({"stop_timeout": -1}), "stop_timeout"),
        (
            json!({"stop_timeout": 1e9}),
            "stop_timeout: expected a number of seconds from 0 to 25, found 1000000000",
        ),
        (json!({"network": ""}), "network"),
        (
            json!({"network_enabled": false, "ports": {"80": null}}),
            "ports",
        ),
        (json!({"network": "none", "ports": {"80": null}}), "ports"),
        (json!({"ports": {"http": 80}}), "http"),
        (json!({"ports": {"80": "there"}}), "there"),
        (json!({"extra_hosts": {"db": "there"}}), "extra_hosts.db"),
        (json!({"extra_hosts": {"": "::1"}}), "extra_hosts"),
        (json!({"volumes": {"/a": "b"}}), "volumes./a"),
        (json!({"volumes": {"/a": "/"}}), "volumes./a"),
        (json!({"volumes": {"/a": "/b/../.."}}), "volumes./a"),
        (
            json!({"volumes": {"/a": {"bind": "/b", "mode": "rx"}}}),
            "mode",
        ),
        (
            json!({"volumes": {"/a": {"bind": "/b", "made": "ro"}}}),
            "made",
        ),
        (json!({"volumes": {"a b": "/b"}}), "a b"),
        (json!({"tmpfs": {"tmp": ""}}), "tmpfs"),
        (json!({"devices": ["/etc"]}), "/etc"),
        (
            json!({"capabilities": {"add": ["EVERYTHING"]}}),
            "EVERYTHING",
        ),
        (json!({"seccomp_profile": "loose"}), "loose"),
        (json!({"runtime": ""}), "runtime"),
        (json!({"ulimits": {"nofiles": 3}}), "nofiles"),
        (
            json!({"ulimits": {"nofile": {"soft": 3, "hard": 2}}}),
            "hard",
        ),
        (json!({"command": []}), "command"),
        (json!({"command": [1]}), "[1]"),
        (json!({"entrypoint": ["\0"]}), "entrypoint"),
    ] {
        let error = parse(config.clone()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT, "{config}");
        assert!(error.message().contains(named), "{config}: {error}");
    }
}

#[test]
fn what_ms_enclave_takes_is_taken() {
    let config = parse(json!({
        "image": "python:3.11-slim",
        "command": "sleep infinity",
        "working_dir": "/sandbox",
        "env_vars": {"A": "b"},
        "volumes": {"/data": {"bind": "/data", "mode": "ro"}, "/other": "/other"},
        "ports": {"8888/tcp": ["127.0.0.1", 8888], "80": 8080, "53/udp": "53"},
        "network": "bridge",
        "memory_limit": "1g",
        "cpu_limit": 1.0,
        "network_enabled": true,
        "privileged": false,
        "remove_on_exit": true,
    }))
    .unwrap();
    assert_eq!(config.volumes["/data"].mode(), Mode::ReadOnly);
    assert_eq!(config.volumes["/other"].mode(), Mode::ReadWrite);
    assert_eq!(config.ports.len(), 3);
}

#[test]
fn the_images_own_command_runs_only_when_asked_for() {
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|w| (*w).into()).collect() };
    let (entrypoint, cmd) = (words(&["entry"]), words(&["arg"]));
    for (config, expected) in [
        (json!({}), None),
        (
            json!({"run_image_command": true}),
            Some(words(&["entry", "arg"])),
        ),
        (
            json!({"command": ["a", "b c"]}),
            Some(words(&["entry", "a", "b c"])),
        ),
        (
            json!({"command": "a | b"}),
            Some(words(&["entry", "/bin/sh", "-c", "a | b"])),
        ),
        (json!({"entrypoint": ["own"]}), Some(words(&["own"]))),
        (
            json!({"entrypoint": ["own"], "command": ["a"], "run_image_command": true}),
            Some(words(&["own", "a"])),
        ),
    ] {
        let found = parse(config.clone())
            .unwrap()
            .own_command(&entrypoint, &cmd);
        assert_eq!(found, expected, "{config}");
    }
    let nothing = parse(json!({"run_image_command": true})).unwrap();
    assert_eq!(nothing.own_command(&[], &[]), None);
}

#[test]
fn the_schema_describes_every_key() {
    // As the plugin API makes it.
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Config>();
    let schema = schema.to_value();
    assert_eq!(schema["additionalProperties"], false);
    let properties = schema["properties"].as_object().unwrap();
    let readme = include_str!("../../README.md");
    for (name, property) in properties {
        assert!(readme.contains(&format!("\n| `{name}` |")), "{name}");
        assert!(property["description"].is_string(), "{name}: {property}");
        assert_eq!(property.get("$ref"), None, "{name}");
    }
    assert!(properties["memory_limit"]["pattern"].is_string());
    assert_eq!(properties["memory_limit"]["default"], "4g");
    assert_eq!(properties["stop_timeout"]["maximum"], 25.0);
}
