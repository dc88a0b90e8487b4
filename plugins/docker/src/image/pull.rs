//! A pull, and those who wait for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bollard::query_parameters::CreateImageOptionsBuilder;
use boxyard_plugin_api::prelude::*;
use futures_util::StreamExt;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Progress, Reference,
    credentials::Credentials,
    failure::{Access, pull_failure},
    progress::Layers,
};
use crate::{config::Platform, engine::Engine};

/// How often those who wait are told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What is pulled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) reference: Reference,
    pub(super) platform: Option<Platform>,
}

/// A pull that runs or ran. It is broken off when nobody holds it any more.
#[derive(Debug)]
pub(super) struct Pull {
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct State {
    progress: Progress,
    /// How it ended, once it did.
    end: Option<Result<()>>,
}

impl Pull {
    /// Starts one, on a task of its own, so that no single waiter holds it up or ends it.
    pub(super) fn start(engine: Arc<Engine>, credentials: Credentials, request: Request) -> Self {
        let (sender, state) = watch::channel(State::default());
        let task = tokio::spawn(async move {
            let end = run(&engine, &credentials, &request, &sender).await;
            sender.send_modify(|state| state.end = Some(end));
        });
        Self { state, task }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.task.is_finished() || self.state.borrow().end.is_some()
    }

    /// Waits for its end, and passes on how far it is.
    pub(super) async fn wait(&self, tell: &mut (impl FnMut(&Progress) + Send)) -> Result<()> {
        let mut state = self.state.clone();
        let mut told = None;
        loop {
            let State { progress, end } = state.borrow_and_update().clone();
            if told != Some(progress) {
                tell(&progress);
                told = Some(progress);
            }
            if let Some(end) = end {
                return end;
            }
            if state.changed().await.is_err() {
                return Err(Error::internal("the pull was broken off"));
            }
        }
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        // The engine notices the lost connection and ends its part.
        self.task.abort();
    }
}

async fn run(
    engine: &Engine,
    credentials: &Credentials,
    request: &Request,
    sender: &watch::Sender<State>,
) -> Result<()> {
    let Request {
        reference,
        platform,
    } = request;
    let docker = engine.docker().await?;
    let (credentials, access) = match credentials.of(reference.registry()).await {
        Ok(Some(credentials)) => (Some(credentials), Access::Credentials),
        Ok(None) => (None, Access::Anonymous),
        Err(error) => {
            tracing::warn!(%reference, %error, "docker's credentials cannot be read");
            (None, Access::Unreadable(error))
        }
    };
    let options = CreateImageOptionsBuilder::default()
        .from_image(&reference.name())
        .tag(reference.version())
        .platform(
            &platform
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        )
        .build();
    tracing::debug!(%reference, registry = reference.registry(), "pulling");
    let began = Instant::now();
    let mut messages = docker.create_image(Some(options), None, credentials);
    let mut layers = Layers::default();
    let mut told = Instant::now();
    while let Some(message) = messages.next().await {
        let message = message.map_err(|error| pull_failure(reference, &access, error))?;
        layers.take(&message);
        if told.elapsed() >= TELL_EVERY {
            sender.send_modify(|state| state.progress = layers.progress());
            told = Instant::now();
        }
    }
    sender.send_modify(|state| state.progress = layers.progress());
    tracing::debug!(%reference, elapsed = ?began.elapsed(), "pulled");
    Ok(())
}
