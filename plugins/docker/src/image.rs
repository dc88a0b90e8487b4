//! Images: there when a container is made, pulled once however many ask.

mod credentials;
mod failure;
mod helper;
mod progress;
mod pull;
mod reference;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bollard::{errors::Error as EngineError, models::ImageInspect};
use boxyard_plugin_api::prelude::*;

use self::{
    credentials::Credentials,
    pull::{Pull, Request},
};
pub(crate) use self::{progress::Progress, reference::Reference};
use crate::{
    config::{Platform, PullPolicy},
    engine::{Engine, failure},
};

/// The images of an engine.
#[derive(Debug)]
pub(crate) struct Images {
    engine: Arc<Engine>,
    credentials: Credentials,
    /// The pulls that somebody waits for.
    pulls: Mutex<HashMap<Request, Weak<Pull>>>,
}

/// What an image says of the containers made from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageFacts {
    /// `sha256:…`: what its name means now.
    pub(crate) id: String,
    /// Who its own command runs as; empty for root.
    pub(crate) user: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) os: String,
    /// As platforms spell it: `amd64`, `arm64`.
    pub(crate) arch: String,
    pub(crate) variant: String,
    /// Whether it has a HEALTHCHECK.
    pub(crate) healthcheck: bool,
}

impl Images {
    /// Takes the engine's images, and the directory of docker's own files, where the credentials
    /// of registries are.
    pub(crate) fn new(engine: Arc<Engine>, config_dir: Option<PathBuf>) -> Self {
        Self {
            engine,
            credentials: Credentials::new(config_dir),
            pulls: Mutex::default(),
        }
    }

    /// Makes sure that an image is there, and returns what it says of itself.
    ///
    /// `progress` is called at the begin of a pull and then at most ten times a second. Whoever
    /// asks for what is already being pulled waits for that pull; it goes on as long as one of
    /// them does, and is broken off when the last future is dropped.
    ///
    /// # Errors
    ///
    /// Which image, which registry and why, under the code of the cause.
    pub(crate) async fn ensure(
        &self,
        image: &str,
        platform: Option<&Platform>,
        policy: PullPolicy,
        mut progress: impl FnMut(&Progress) + Send,
    ) -> Result<ImageFacts> {
        let reference = Reference::parse(image)?;
        // What an id means never changes.
        if policy != PullPolicy::Always || reference.is_id() {
            match self.inspect(&reference).await? {
                Some(facts) if policy == PullPolicy::Never => {
                    return checked(facts, &reference, platform);
                }
                Some(facts) if is_of(&facts, platform) => return Ok(facts),
                None if policy == PullPolicy::Never => {
                    return Err(Error::not_found(format_args!(
                        "image {reference}: the engine has none, and pull_policy is `never`: pull \
                         it (`docker pull {reference}`) or choose another policy"
                    )));
                }
                _ => {}
            }
        }
        if reference.is_id() {
            return Err(Error::not_found(format_args!(
                "image {reference}: only names can be pulled, and the engine has none of that id"
            )));
        }
        let pull = self.join(Request {
            reference: reference.clone(),
            platform: platform.cloned(),
        });
        pull.wait(&mut progress).await?;
        match self.inspect(&reference).await? {
            Some(facts) => checked(facts, &reference, platform),
            None => Err(Error::not_found(format_args!(
                "image {reference}: it was pulled and is gone again"
            ))
            .retryable()),
        }
    }

    /// Joins the pull that runs, or starts one.
    fn join(&self, request: Request) -> Arc<Pull> {
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|_, pull| pull.strong_count() > 0);
        let running = pulls.get(&request).and_then(Weak::upgrade);
        if let Some(running) = running.filter(|pull| !pull.is_finished()) {
            return running;
        }
        let new = Arc::new(Pull::start(
            self.engine.clone(),
            self.credentials.clone(),
            request.clone(),
        ));
        pulls.insert(request, Arc::downgrade(&new));
        new
    }

    /// Returns what an image says of itself; `None` when the engine has none of that name.
    async fn inspect(&self, reference: &Reference) -> Result<Option<ImageFacts>> {
        let docker = self.engine.docker().await?;
        match docker.inspect_image(&reference.to_string()).await {
            Ok(image) => Ok(Some(ImageFacts::from(image))),
            Err(EngineError::DockerResponseServerError {
                status_code: 404, ..
            }) => Ok(None),
            Err(error) => Err(failure(error).context(format_args!("image {reference}"))),
        }
    }
}

fn is_of(facts: &ImageFacts, platform: Option<&Platform>) -> bool {
    platform.is_none_or(|platform| platform.is_of(&facts.os, &facts.arch, &facts.variant))
}

/// Engines take an image of another platform where there is none of the right one.
fn checked(
    facts: ImageFacts,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<ImageFacts> {
    match platform.filter(|_| !is_of(&facts, platform)) {
        None => Ok(facts),
        Some(platform) => Err(Error::failed_precondition(format_args!(
            "image {reference}: it is for {}/{}, and {platform} is asked for",
            facts.os, facts.arch
        ))),
    }
}

impl From<ImageInspect> for ImageFacts {
    fn from(image: ImageInspect) -> Self {
        let config = image.config.unwrap_or_default();
        let env = config.env.unwrap_or_default();
        let env = env.iter().map(|entry| {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            (name.to_owned(), value.to_owned())
        });
        // An engine's way to say that there is none.
        let none = |test: &Vec<String>| test.is_empty() || *test == ["NONE"];
        Self {
            id: image.id.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            env: env.collect(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            os: image.os.unwrap_or_default(),
            arch: image.architecture.unwrap_or_default(),
            variant: image.variant.unwrap_or_default(),
            healthcheck: config
                .healthcheck
                .and_then(|check| check.test)
                .is_some_and(|test| !none(&test)),
        }
    }
}
