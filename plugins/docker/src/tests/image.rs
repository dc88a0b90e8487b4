//! Images, from a registry.

use std::sync::Arc;

use bollard::Docker;
use boxyard_plugin_api::prelude::*;

use super::{
    fake::{Fake, engine_of},
    harness::{TestImage, config_with, engine, eventually, remove, unique, within},
    proxy::Proxy,
    registry::{LOGIN, Registry},
};
use crate::{
    config::{Platform, PullPolicy},
    engine::Engine,
    image::{ImageFacts, Images, Progress},
};

struct Bench {
    engine: Arc<Engine>,
    docker: Docker,
    registry: Registry,
    images: Images,
}

/// Makes what most tests need; `None` where they are to do without.
async fn bench() -> Option<Bench> {
    let engine = engine().await?;
    Some(Bench {
        docker: engine.docker().await.unwrap(),
        registry: Registry::open()?,
        images: Images::new(engine.clone(), None),
        engine,
    })
}

impl Bench {
    async fn ensure(&self, image: &str, policy: PullPolicy) -> Result<ImageFacts> {
        within(self.images.ensure(image, None, policy, |_| ())).await
    }

    fn manifests(&self) -> usize {
        self.registry.requests("GET", "/manifests/") + self.registry.requests("HEAD", "/manifests/")
    }
}

#[tokio::test]
async fn a_missing_image_is_pulled_and_a_present_one_is_not() {
    let Some(bench) = bench().await else { return };
    let name = bench
        .registry
        .with_image(&bench.engine, 3_000_000, None)
        .await;
    let mut seen = Vec::<Progress>::new();
    let pulled = bench
        .images
        .ensure(&name, None, PullPolicy::Missing, |progress| {
            seen.push(*progress);
        });
    let facts = within(pulled).await.unwrap();
    assert!(facts.id.starts_with("sha256:"), "{facts:?}");
    assert_eq!(facts.cmd, ["run", "it"]);
    assert_eq!(facts.env["A"], "1");
    assert_eq!(facts.user, "7");
    assert_eq!(facts.os, "linux");
    assert!(!facts.healthcheck);
    assert_eq!(seen.first(), Some(&Progress::default()));
    let last = seen.last().unwrap();
    assert_eq!((last.layers_done, last.layers_total), (1, 1));
    assert!(
        last.bytes_total >= 3_000_000 && last.bytes_done == last.bytes_total,
        "{last:?}"
    );
    let asked = bench.manifests();
    assert_eq!(
        bench.ensure(&name, PullPolicy::Missing).await.unwrap(),
        facts
    );
    assert_eq!(bench.ensure(&name, PullPolicy::Never).await.unwrap(), facts);
    assert_eq!(bench.manifests(), asked);
    bench.ensure(&name, PullPolicy::Always).await.unwrap();
    assert!(bench.manifests() > asked);
    // By its id too, which is never pulled.
    assert_eq!(
        bench.ensure(&facts.id, PullPolicy::Always).await.unwrap(),
        facts
    );
    remove(&bench.docker, &name).await;
    for policy in [PullPolicy::Always, PullPolicy::Missing, PullPolicy::Never] {
        let error = bench.ensure(&facts.id, policy).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NOT_FOUND, "{error}");
    }
}

#[tokio::test]
async fn a_failed_pull_says_which_image_which_registry_and_why() {
    let Some(bench) = bench().await else { return };
    let name = bench.registry.with_image(&bench.engine, 100, None).await;
    let (repository, _) = name.rsplit_once(':').unwrap();
    let address = bench.registry.address.as_str();
    let nobody = "127.0.0.1:1";
    for (image, policy, code, named) in [
        (
            name.clone(),
            PullPolicy::Never,
            ErrorCode::NOT_FOUND,
            "never",
        ),
        (
            format!("{repository}:2"),
            PullPolicy::Missing,
            ErrorCode::NOT_FOUND,
            address,
        ),
        (
            format!("{address}/nothing"),
            PullPolicy::Always,
            ErrorCode::NOT_FOUND,
            address,
        ),
        (
            format!("{nobody}/name:tag"),
            PullPolicy::Missing,
            ErrorCode::UNAVAILABLE,
            nobody,
        ),
    ] {
        let error = bench.ensure(&image, policy).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(&image), "{error}");
        assert!(error.message().contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_registry_is_shown_the_login_of_dockers_config() {
    let Some(engine) = engine().await else { return };
    let Some(registry) = Registry::closed() else {
        return;
    };
    let docker = engine.docker().await.unwrap();
    let name = registry.with_image(&engine, 100, Some(LOGIN)).await;
    let ensure = async |directory: Option<&tempfile::TempDir>| {
        let directory = directory.map(|directory| directory.path().into());
        let images = Images::new(engine.clone(), directory);
        within(images.ensure(&name, None, PullPolicy::Always, |_| ())).await
    };
    let error = ensure(None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UNAUTHENTICATED, "{error}");
    assert!(error.message().contains("docker login"), "{error}");
    let wrong = config_with(&registry.address, "me:wrong");
    let error = ensure(Some(&wrong)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UNAUTHENTICATED, "{error}");
    assert!(
        error.message().contains("refused the credentials"),
        "{error}"
    );
    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join("config.json"), "{").unwrap();
    let error = ensure(Some(&broken)).await.unwrap_err();
    assert!(error.message().contains("config.json"), "{error}");
    let right = config_with(&registry.address, LOGIN);
    ensure(Some(&right)).await.unwrap();
    remove(&docker, &name).await;
}

#[tokio::test]
async fn an_image_of_another_platform_is_refused() {
    let Some(bench) = bench().await else { return };
    let name = bench.registry.with_image(&bench.engine, 100, None).await;
    let arch = bench.engine.connection().await.unwrap().facts.arch.clone();
    let other = if arch == "arm64" { "amd64" } else { "arm64" };
    let platform = |arch: &str| -> Platform {
        serde_json::from_value(json!(format!("linux/{arch}"))).unwrap()
    };
    let ensure = async |arch: &str, policy| {
        let platform = platform(arch);
        within(bench.images.ensure(&name, Some(&platform), policy, |_| ())).await
    };
    ensure(&arch, PullPolicy::Missing).await.unwrap();
    for policy in [PullPolicy::Missing, PullPolicy::Never, PullPolicy::Always] {
        let error = ensure(other, policy).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::FAILED_PRECONDITION, "{error}");
        assert!(error.message().contains(other), "{error}");
    }
    remove(&bench.docker, &name).await;
}

#[tokio::test]
async fn many_ask_and_one_pulls_and_those_who_go_hold_nobody_up() {
    let Some(bench) = bench().await else { return };
    let proxy = Proxy::to(&bench.registry.address).await;
    let name = bench
        .registry
        .with_image(&bench.engine, 1_000_000, None)
        .await;
    let name = name.replace(&bench.registry.address, &proxy.address);
    let images = Arc::new(bench.images);
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let (images, name) = (images.clone(), name.clone());
        waiting.push(tokio::spawn(async move {
            images
                .ensure(&name, None, PullPolicy::Missing, |_| ())
                .await
        }));
    }
    within(proxy.holds(1)).await;
    // The one that came first among them.
    waiting.remove(0).abort();
    waiting.remove(3).abort();
    proxy.open();
    let mut ids = Vec::new();
    for waiting in waiting {
        ids.push(within(waiting).await.unwrap().unwrap().id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(bench.registry.requests("GET", "/manifests/"), 1);
    assert_eq!(bench.registry.requests("HEAD", "/manifests/"), 1);
    remove(&bench.docker, &name).await;
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_is_broken_off() {
    let fake = Fake::start(|path| {
        if path.contains("/images/create") {
            None
        } else if path.contains("/images/") {
            Some((404, json!({"message": "no such image"}).to_string()))
        } else {
            engine_of(path, "1.41")
        }
    });
    let images = Images::new(fake.engine.clone(), None);
    let ensure = || images.ensure("a:1", None, PullPolicy::Missing, |_| ());
    let asked = |what: &str| {
        fake.asked()
            .iter()
            .filter(|path| path.contains(what))
            .count()
    };
    let create = "/images/create?fromImage=a&tag=1";
    tokio::select! {
        _ = ensure() => panic!("nothing was answered"),
        _ = ensure() => panic!("nothing was answered"),
        () = eventually(|| asked(create) == 1) => assert_eq!(asked("given up"), 0),
    }
    eventually(|| asked("given up") == 1).await;
    // And it can be asked for again: asked, given up, asked.
    tokio::select! {
        _ = ensure() => panic!("nothing was answered"),
        () = eventually(|| asked(create) == 3) => {}
    }
}

#[tokio::test]
async fn an_image_of_the_engines_own_needs_no_registry() {
    let Some(engine) = engine().await else { return };
    let image = TestImage::make(&engine, &format!("localhost/{}:1", unique("local")), 10).await;
    let images = Images::new(engine.clone(), None);
    let facts = images.ensure(&image.name, None, PullPolicy::Missing, |_| {
        panic!("no pull")
    });
    assert_eq!(within(facts).await.unwrap().cmd, ["run", "it"]);
    image.remove().await;
}
