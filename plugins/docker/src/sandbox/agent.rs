//! The agent of a container, from its connection to its end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use boxyard_agent::Client;
use boxyard_plugin_api::prelude::*;
use futures_util::FutureExt;
use tokio::{sync::watch, time::timeout};

use super::own_command::OwnCommand;
use crate::{link::Transport, parts::Parts, watch::Told};

/// How long the agent may take to kill everything and end.
const SHUT_DOWN: Duration = Duration::from_secs(2);

/// An agent that is connected, or was.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) client: Arc<Client>,
    pub(super) transport: Transport,
    /// What the engine calls its container.
    pub(super) id: String,
    ending: Arc<AtomicBool>,
    /// Whether it did as it was told and ended, or was killed.
    ended: AtomicBool,
    /// Why it is gone, once that is known.
    cause: watch::Receiver<Option<String>>,
    /// What keeps us told of what others do to the container.
    _told: Arc<Told>,
}

impl Agent {
    /// Takes a connection, which `work` keeps going.
    pub(super) fn new(
        parts: &Arc<Parts>,
        client: Client,
        work: impl Future<Output = ()> + Send + 'static,
        id: String,
        transport: Transport,
    ) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let (owned, asked) = (Arc::clone(parts), Arc::clone(&ending));
        let (known, cause) = watch::channel(None);
        let context = &parts.context;
        context.spawn(async move {
            work.await;
            if !asked.load(Ordering::Relaxed) {
                let cause = owned.cause().await;
                owned.context.exited(cause.clone());
                known.send_replace(Some(cause));
            }
        });
        context.set_metadata("container_id", id.clone());
        if parts.lingers && transport == Transport::Attach {
            // Its connection cannot be opened again.
            context.set_metadata("lingers", false);
        }
        Self {
            client: Arc::new(client),
            transport,
            ending,
            ended: AtomicBool::new(false),
            cause,
            _told: parts.watch.tell(&id, context.clone(), &parts.connection),
            id,
        }
    }

    /// Puts why the agent is gone in front of what a request says that failed with it.
    pub(super) async fn explain(&self, error: Error) -> Error {
        // It may have failed by itself, and an agent that ends says so before it is gone.
        if timeout(SHUT_DOWN, self.client.closed()).await.is_err() {
            return error;
        }
        let mut cause = self.cause.clone();
        // Nobody looks for one where the end was asked for.
        let known = cause.wait_for(Option::is_some).await;
        match known.ok().and_then(|cause| cause.clone()) {
            Some(cause) => error.context(cause),
            None => error,
        }
    }

    /// Has the agent kill everything and end, and the engine where it does not.
    pub(super) async fn end(&self, parts: &Parts, own: Option<&OwnCommand>, call: &Call) {
        self.ending.store(true, Ordering::Relaxed);
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        // An agent that was spoken to through an engine that went away may be there and hear
        // nothing.
        let lost = self.client.closed().now_or_never();
        let error = match lost {
            Some(lost) => lost,
            None => {
                if let Some(own) = own {
                    own.end(parts.stop_timeout, SHUT_DOWN, call).await;
                }
                match self.client.shut_down(SHUT_DOWN).await {
                    Ok(()) => return self.ended.store(true, Ordering::Relaxed),
                    Err(error) => error,
                }
            }
        };
        tracing::debug!(%error, "the guest agent does not end, and is killed");
        if parts.kill().await {
            self.ended.store(true, Ordering::Relaxed);
        }
    }
}
