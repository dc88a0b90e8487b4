use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
};

use super::*;

fn check_at(endpoint: &Endpoint, settings: Value, config: Value) -> Result<Allowed> {
    let settings: Settings = serde_json::from_value(settings).unwrap();
    let config: Config = serde_json::from_value(config).unwrap();
    config.validate().unwrap();
    check(&settings, &config, endpoint, &Facts::ordinary())
}

fn engine() -> Endpoint {
    Endpoint::Unix("/var/run/docker.sock".into())
}

fn sources(allowed: &Allowed) -> Vec<&str> {
    let sources = allowed.mounts.iter();
    sources
        .map(|mount| mount.source.as_deref().unwrap())
        .collect()
}

#[test]
fn a_path_that_leads_elsewhere_than_before_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let (job, other) = (root.join("job"), root.join("other"));
    fs::create_dir(&job).unwrap();
    fs::create_dir(&other).unwrap();
    let settings = json!({ "allowed_mounts": [root] });
    let config = json!({ "volumes": { job.to_str().unwrap(): "/job" } });
    let before = check_at(&engine(), settings.clone(), config.clone()).unwrap();
    before.is_still(&before.clone()).unwrap();
    fs::remove_dir(&job).unwrap();
    symlink(&other, &job).unwrap();
    // It is allowed, and it is not what was mounted.
    let now = check_at(&engine(), settings, config).unwrap();
    assert_eq!(sources(&now), [other.to_str().unwrap()]);
    let error = now.is_still(&before).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PERMISSION_DENIED);
    assert!(error.message().contains(job.to_str().unwrap()), "{error}");
}

#[test]
fn what_reaches_beyond_the_sandbox_is_refused_unless_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().canonicalize().unwrap();
    let directory = directory.to_str().unwrap();
    for (config, key, setting) in [
        (
            json!({"privileged": true}),
            "privileged",
            json!({"allow_privileged": true}),
        ),
        (
            json!({"network": "host"}),
            "network",
            json!({"allowed_networks": ["host"]}),
        ),
        (
            json!({"network": "container:other"}),
            "network",
            json!({"allowed_networks": ["container:other"]}),
        ),
        (
            json!({"network": "databases"}),
            "network",
            json!({"allowed_networks": ["databases"]}),
        ),
        (
            json!({"capabilities": {"add": ["SYS_ADMIN"]}}),
            "capabilities.add",
            json!({"allowed_capabilities": ["SYS_ADMIN"]}),
        ),
        (
            json!({"seccomp_profile": "unconfined"}),
            "seccomp_profile",
            json!({"allow_unconfined_seccomp": true}),
        ),
        (
            json!({"seccomp_profile": {"defaultAction": "SCMP_ACT_ALLOW"}}),
            "seccomp_profile",
            json!({"allow_unconfined_seccomp": true}),
        ),
        (
            json!({"runtime": "runsc"}),
            "runtime",
            json!({"allowed_runtimes": ["runsc"]}),
        ),
        (
            json!({"devices": ["/dev/null"]}),
            "devices",
            json!({"allowed_devices": ["/dev/null"]}),
        ),
        (
            json!({"extra_hosts": {"host": "host-gateway"}}),
            "extra_hosts.host",
            json!({"allow_host_gateway": true}),
        ),
        (
            json!({"ports": {"80": "0.0.0.0:80"}}),
            "ports.80/tcp",
            json!({"allow_public_ports": true}),
        ),
        (
            json!({"ports": {"80": [8080, "[::]:80"]}}),
            "ports.80/tcp",
            json!({"allow_public_ports": true}),
        ),
        (
            json!({"volumes": {directory: "/data"}}),
            "volumes",
            json!({"allowed_mounts": [directory]}),
        ),
        (
            json!({"volumes": {"databases": "/data"}}),
            "volumes",
            json!({"allowed_volumes": ["databases"]}),
        ),
    ] {
        let error = check_at(&engine(), json!({}), config.clone()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PERMISSION_DENIED, "{config}");
        assert_eq!(error.details()["key"], key, "{config}");
        let (name, _) = setting.as_object().unwrap().iter().next().unwrap();
        assert!(error.message().contains(name.as_str()), "{config}: {error}");
        check_at(&engine(), setting, config.clone()).unwrap();
    }
}

#[test]
fn what_stays_in_the_sandbox_needs_no_permission() {
    for config in [
        json!({}),
        json!({"network_enabled": false, "network": "host"}),
        json!({"network": "none"}),
        json!({"network": "default"}),
        json!({"runtime": "runc"}),
        json!({"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}),
        json!({"capabilities": {"drop": ["NET_RAW"], "add": ["NET_RAW"]}}),
        json!({"ports": {"80": null, "81": "[::1]:81", "82": "127.0.0.9:82"}}),
        json!({"extra_hosts": {"db": "10.0.0.1"}}),
        json!({"tmpfs": {"/tmp": ""}, "read_only": true}),
    ] {
        let allowed = check_at(&engine(), json!({}), config.clone());
        assert!(allowed.is_ok(), "{config}: {allowed:?}");
    }
}

#[test]
fn one_permission_is_not_another() {
    for (setting, config) in [
        (
            json!({"allowed_networks": ["a"]}),
            json!({"network": "host"}),
        ),
        (
            json!({"allowed_capabilities": ["NET_RAW"]}),
            json!({"capabilities": {"add": ["NET_RAW", "NET_ADMIN"]}}),
        ),
        (
            json!({"allowed_devices": ["/dev/nul"]}),
            json!({"devices": ["/dev/null"]}),
        ),
        (
            json!({"allow_public_ports": true}),
            json!({"privileged": true}),
        ),
    ] {
        let error = check_at(&engine(), setting, config).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PERMISSION_DENIED);
    }
}

#[test]
fn links_do_not_lead_out_of_what_is_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("allowed/inner")).unwrap();
    fs::create_dir(root.join("allowed-not")).unwrap();
    fs::create_dir(root.join("secret")).unwrap();
    symlink("../secret", root.join("allowed/out")).unwrap();
    symlink("../secret/missing", root.join("allowed/nowhere")).unwrap();
    symlink("allowed/inner", root.join("in")).unwrap();
    let shown = |path: &str| root.join(path).to_str().unwrap().to_owned();
    let settings = json!({"allowed_mounts": [shown("allowed")]});
    let mount = |path: &str| {
        let config = json!({"volumes": {shown(path): "/data"}});
        check_at(&engine(), settings.clone(), config)
    };
    for (path, resolved) in [
        ("allowed", "allowed"),
        ("allowed/inner", "allowed/inner"),
        ("allowed/inner/..", "allowed"),
        ("in", "allowed/inner"),
    ] {
        assert_eq!(sources(&mount(path).unwrap()), [shown(resolved)], "{path}");
    }
    for path in [
        "",
        "secret",
        "allowed-not",
        "allowed/out",
        "allowed/../secret",
        "allowed/out/missing",
        "allowed/nowhere",
        "allowed/../missing",
        "missing",
    ] {
        let error = mount(path).unwrap_err();
        assert_eq!(
            error.code(),
            ErrorCode::PERMISSION_DENIED,
            "{path}: {error}"
        );
    }
    assert_eq!(
        mount("allowed/missing").unwrap_err().code(),
        ErrorCode::NOT_FOUND
    );
}

#[test]
fn a_mount_for_reading_is_not_one_for_writing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let settings = json!({"allowed_mounts": [format!("{path}:ro")]});
    let mount = |mode: &str| {
        let config = json!({"volumes": {path: format!("/data:{mode}")}});
        check_at(&engine(), settings.clone(), config)
    };
    assert_eq!(mount("ro").unwrap().mounts[0].read_only, Some(true));
    let error = mount("rw").unwrap_err();
    assert_eq!(error.code(), ErrorCode::PERMISSION_DENIED);
    assert!(error.message().contains("rw"), "{error}");
}

#[test]
fn the_engines_socket_is_never_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let socket = root.join("inner/engine.sock");
    fs::create_dir(root.join("inner")).unwrap();
    fs::create_dir(root.join("other")).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    symlink("inner/engine.sock", root.join("link.sock")).unwrap();
    fs::hard_link(&socket, root.join("other/hard.sock")).unwrap();
    let endpoint = Endpoint::Unix(root.join("link.sock"));
    let everything = json!({"allowed_mounts": ["/"]});
    let mount = |path: &Path| {
        let config = json!({"volumes": {path.to_str().unwrap(): "/data"}});
        check_at(&endpoint, everything.clone(), config)
    };
    for path in [
        root.as_path(),
        &root.join("inner"),
        &socket,
        &root.join("link.sock"),
        &root.join("other/hard.sock"),
        Path::new("/"),
        Path::new("/run"),
        Path::new("/var/run"),
    ] {
        let error = mount(path).unwrap_err();
        assert_eq!(error.code(), ErrorCode::PERMISSION_DENIED, "{path:?}");
        assert!(error.message().contains("never"), "{path:?}: {error}");
    }
    mount(&root.join("other")).unwrap();
}

#[test]
fn another_machines_links_cannot_be_looked_at() {
    let endpoint = Endpoint::parse("tcp://elsewhere").unwrap();
    let settings = json!({"allowed_mounts": ["/"], "allowed_devices": ["/dev/fuse"]});
    let mount = json!({"volumes": {"/tmp": "/data"}});
    let error = check_at(&endpoint, settings.clone(), mount).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PERMISSION_DENIED);
    check_at(&endpoint, settings, json!({"devices": ["/dev/fuse"]})).unwrap();
}

#[test]
fn what_the_engine_has_not_is_said_before_it_is_asked() {
    let settings = json!({
        "allowed_runtimes": ["kata", "runsc", "io.containerd.kata.v2"],
        "allow_unconfined_seccomp": true,
        "allow_host_gateway": true,
    });
    let settings: Settings = serde_json::from_value(settings).unwrap();
    let podman = Facts {
        kind: Kind::Podman,
        ..Facts::ordinary()
    };
    for (facts, config, named) in [
        (
            &Facts::ordinary(),
            json!({"runtime": "kata"}),
            Some("it has runc, runsc"),
        ),
        (
            &Facts::ordinary(),
            json!({"runtime": "io.containerd.kata.v2"}),
            None,
        ),
        (&podman, json!({"runtime": "runc"}), None),
        (&podman, json!({"runtime": "runsc"}), Some("Podman")),
        (&podman, json!({"seccomp_profile": "unconfined"}), None),
        (&podman, json!({"seccomp_profile": {}}), Some("Podman")),
        (&podman, json!({"extra_hosts": {"db": "10.0.0.1"}}), None),
        (
            &podman,
            json!({"extra_hosts": {"gate": "host-gateway"}}),
            Some("extra_hosts.gate: Podman"),
        ),
    ] {
        let config: Config = serde_json::from_value(config).unwrap();
        match (check(&settings, &config, &engine(), facts), named) {
            (Ok(_), None) => {}
            (Err(error), Some(named)) => {
                assert_eq!(error.code(), ErrorCode::FAILED_PRECONDITION);
                assert!(error.message().contains(named), "{error}");
            }
            (found, named) => panic!("{config:?}: {found:?}, not {named:?}"),
        }
    }
}
