use super::*;

fn environment(directory: &Path) -> Environment {
    Environment {
        config_dir: Some(directory.into()),
        ..Environment::default()
    }
}

fn write_context(directory: &Path, name: &str, host: &str) {
    let digest = Sha256::digest(name.as_bytes());
    let id: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let meta = directory.join("contexts/meta").join(id);
    fs::create_dir_all(&meta).unwrap();
    let document = json!({"Name": name, "Metadata": {}, "Endpoints": {
        "docker": {"Host": host, "SkipTLSVerify": false}
    }});
    fs::write(meta.join("meta.json"), document.to_string()).unwrap();
}

#[test]
fn addresses_are_read_as_docker_reads_them() {
    for (host, expected) in [
        ("unix:///run/a.sock", "unix:///run/a.sock"),
        ("tcp://10.0.0.1:2376", "tcp://10.0.0.1:2376"),
        ("tcp://engine", "tcp://engine:2375"),
        ("http://engine:80/", "tcp://engine:80"),
        ("tcp://[::1]", "tcp://[::1]:2375"),
        ("tcp://[::1]:9", "tcp://[::1]:9"),
    ] {
        assert_eq!(Endpoint::parse(host).unwrap().to_string(), expected);
    }
    for (host, named) in [
        ("ssh://me@there", "-L"),
        ("https://there:2376", "TLS"),
        ("unix://relative.sock", "absolute"),
        ("npipe:////./pipe/docker", "schemes"),
        ("/var/run/docker.sock", "unix://"),
        ("tcp://", "host"),
        ("tcp://there/path", "nothing but"),
    ] {
        let error = Endpoint::parse(host).unwrap_err();
        assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT);
        assert!(error.message().contains(named), "{host}: {error}");
        assert!(error.message().contains(host), "{host}: {error}");
    }
}

#[test]
fn the_first_that_speaks_wins() {
    let directory = tempfile::tempdir().unwrap();
    let mut environment = environment(directory.path());
    let found = |host, environment: &Environment| {
        let found = Address::find(host, environment).unwrap();
        (found.origin.clone(), found.first.to_string())
    };
    assert_eq!(
        found(None, &environment),
        (Origin::Default, format!("unix://{DEFAULT_SOCKET}"))
    );
    write_context(directory.path(), "current", "unix:///current.sock");
    write_context(directory.path(), "other", "tcp://other:1");
    let config = directory.path().join("config.json");
    fs::write(config, r#"{"currentContext": "current", "auths": {}}"#).unwrap();
    assert_eq!(
        found(None, &environment),
        (
            Origin::Context("current".into()),
            "unix:///current.sock".into()
        )
    );
    environment.context = Some("other".into());
    assert_eq!(
        found(None, &environment),
        (Origin::Context("other".into()), "tcp://other:1".into())
    );
    environment.context = Some("default".into());
    assert_eq!(found(None, &environment).0, Origin::Default);
    environment.host = Some("unix:///host.sock".into());
    assert_eq!(
        found(None, &environment),
        (Origin::Host, "unix:///host.sock".into())
    );
    assert_eq!(
        found(Some("unix:///set.sock"), &environment),
        (Origin::Settings, "unix:///set.sock".into())
    );
}

#[test]
fn what_cannot_be_found_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut environment = environment(directory.path());
    let refused = |environment: &Environment, named: &str| {
        let error = Address::find(None, environment).unwrap_err();
        assert!(error.message().contains(named), "{named}: {error}");
    };
    environment.context = Some("missing".into());
    refused(&environment, "docker context `missing`");
    write_context(directory.path(), "broken", "gopher://x");
    environment.context = Some("broken".into());
    refused(&environment, "docker context `broken`: `gopher://x`");
    environment.context = None;
    fs::write(directory.path().join("config.json"), "{").unwrap();
    refused(&environment, "config.json");
    environment.host = Some("tcp://there:2376".into());
    environment.tls = true;
    refused(&environment, "TLS");
}

#[test]
fn a_rootless_engine_is_found_where_it_alone_listens() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Endpoint::Unix(directory.path().join("missing.sock"));
    let rootless = directory.path().join("docker.sock");
    let address = Address {
        origin: Origin::Default,
        first: missing.clone(),
        others: vec![Endpoint::Unix(rootless.clone())],
    };
    assert_eq!(address.endpoint(), &missing);
    fs::write(&rootless, "").unwrap();
    assert_eq!(address.endpoint(), &Endpoint::Unix(rootless));
}
