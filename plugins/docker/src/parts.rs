//! What a sandbox is made of, and how that goes.

use std::{sync::Arc, time::Duration};

use bollard::query_parameters::{InspectContainerOptions, KillContainerOptions};
use boxyard_plugin_api::prelude::*;
use tokio::time::{sleep, timeout};

use crate::{
    engine::{Connection, Dialect, failure},
    link::{self, ENDED},
    meeting::Meeting,
    removal,
    watch::Watch,
};

/// How long the engine may take to say what became of a container, for a sandbox is known to be
/// an error only then.
const LOOK: Duration = Duration::from_secs(3);

/// How long after one that failed the next attempt is made at removing what was begun.
const UNDO_AGAIN: Duration = Duration::from_secs(1);

/// What a sandbox is made of, whoever made it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) context: SandboxContext,
    pub(crate) connection: Arc<Connection>,
    pub(crate) watch: Arc<Watch>,
    /// The container's name, which is known before there is one.
    pub(crate) container: String,
    pub(crate) meeting: Meeting,
    /// How long a command may run that does not say so.
    pub(crate) timeout: Option<Duration>,
    /// How long the own command has to end by itself when the sandbox stops.
    pub(crate) stop_timeout: Duration,
    /// Whether the container goes with the sandbox.
    pub(crate) remove: bool,
    /// Whether the agent waits for a later host when this one is gone.
    pub(crate) lingers: bool,
}

impl Parts {
    /// Says why the agent is gone.
    pub(crate) async fn cause(&self) -> String {
        let docker = &self.connection.docker;
        // The engine may take a moment to see it.
        let _ = timeout(
            Duration::from_millis(800),
            link::ended(docker, &self.container),
        )
        .await;
        let found = docker.inspect_container(&self.container, None::<InspectContainerOptions>);
        let state = match timeout(LOOK, found).await.map(Dialect::understood) {
            Err(_) => {
                return format!(
                    "the container is lost: the engine did not answer within {} s",
                    LOOK.as_secs()
                );
            }
            Ok(Ok(found)) => found.state.unwrap_or_default(),
            Ok(Err(error)) => {
                let error = failure(error);
                return match error.code() {
                    ErrorCode::NOT_FOUND => "the container was removed".into(),
                    _ => format!("the container is lost: {error}"),
                };
            }
        };
        let code = state.exit_code.unwrap_or_default();
        if state.running == Some(true) {
            return "the guest agent broke its connection, and the container still runs".into();
        }
        self.context.set_metadata("exit_code", code);
        match (
            state.oom_killed,
            state.error.filter(|error| !error.is_empty()),
        ) {
            (Some(true), _) => {
                format!("the container was ended for want of memory, with exit code {code}")
            }
            (_, Some(error)) => format!("the container ended with exit code {code}: {error}"),
            _ => format!("the container ended with exit code {code}"),
        }
    }

    /// Has the engine kill what runs in the container; returns whether it did. One that does not run
    /// needs no signal.
    pub(crate) async fn kill(&self) -> bool {
        let docker = &self.connection.docker;
        let killed = docker.kill_container(&self.container, None::<KillContainerOptions>);
        match killed.await.map_err(failure) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "killing the container");
                false
            }
        }
    }

    /// Waits until the container does not run, which is to be soon.
    ///
    /// # Errors
    ///
    /// It still runs, or the engine does not say.
    pub(crate) async fn ended(&self) -> Result<()> {
        let container = &self.container;
        let ended = link::ended(&self.connection.docker, container);
        match timeout(ENDED, ended).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.context(format_args!(
                "waiting for the end of the container {container}"
            ))),
            Err(_) => Err(Error::unavailable(format_args!(
                "the container {container} still runs {} s after its end was asked for",
                ENDED.as_secs()
            ))
            .retryable()),
        }
    }

    /// Removes the container with its anonymous volumes; that it is gone is no error.
    pub(crate) async fn remove(&self) -> Result<()> {
        if self.remove {
            removal::remove(&self.connection, &self.container).await?;
        }
        self.meeting.remove().await
    }

    /// Removes what was begun of a sandbox that there will not be; once it is back, where the
    /// engine is away.
    pub(crate) async fn undo(self) {
        let Err(error) = self.try_undo().await else {
            return;
        };
        tracing::warn!(%error, "what was begun of a sandbox is still there");
        let context = self.context.clone();
        context.spawn(async move {
            let mut left = Err(error);
            while let Err(error) = left {
                if !error.is_retryable() {
                    tracing::warn!(%error, "what was begun of a sandbox is left to the sweep");
                    return;
                }
                sleep(UNDO_AGAIN).await;
                left = self.try_undo().await;
            }
        });
    }

    async fn try_undo(&self) -> Result<()> {
        let removed = removal::remove(&self.connection, &self.container).await;
        removed.and(self.meeting.remove().await)
    }
}
