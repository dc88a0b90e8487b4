//! The end of a sandbox: stopped, cleaned up, or left to the next host.

use boxyard_plugin_api::{Error, Result};
use serde_json::Value;
use tokio::time::timeout;

use super::{Record, Sandbox};
use crate::registry::SandboxType;

/// How far a sandbox's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Live,
    Stopped,
    CleanedUp,
}

impl Sandbox {
    /// Stops it: everything that runs in it ends, what it holds stays.
    ///
    /// # Errors
    ///
    /// What the backend answers; the sandbox is an error then.
    pub(crate) async fn stop(&self) -> Result<()> {
        let mut end = self.end.lock().await;
        self.stop_locked(&mut end).await
    }

    async fn stop_locked(&self, end: &mut End) -> Result<()> {
        if *end >= End::Stopped {
            return Ok(());
        }
        self.record.stopping();
        let stopped = match &self.instance {
            Some(instance) => instance.stop().await,
            None => Ok(()),
        };
        match stopped {
            Ok(()) => {
                *end = End::Stopped;
                self.wind_up().await;
                self.record.stopped();
                Ok(())
            }
            Err(error) => {
                self.record.fail(&format!("stopping failed: {error}"));
                // Whoever waits for what runs in it is not to wait for ever.
                self.over.cancel();
                Err(error)
            }
        }
    }

    /// Stops it and gives back everything that it holds. Again is no error.
    ///
    /// # Errors
    ///
    /// Something may be left; the sandbox is an error and can be ended again.
    pub(crate) async fn end(&self) -> Result<()> {
        let mut end = self.end.lock().await;
        if *end == End::CleanedUp {
            return Ok(());
        }
        // A failed stop is in the record; cleaning up ends what it can all the same.
        let _ = self.stop_locked(&mut end).await;
        self.wind_up().await;
        let cleaned = match &self.instance {
            None => clean_up_remains(&self.record, &self.sandbox_type)
                .await
                .map(drop),
            Some(instance) => match instance.clean_up().await {
                Err(error) if instance.is_poisoned() => self.clean_up_anew(error).await,
                cleaned => cleaned,
            },
        };
        match cleaned {
            Ok(()) => {
                *end = End::CleanedUp;
                self.record.event("cleaned-up", Value::Null);
                Ok(())
            }
            Err(error) => {
                self.record.fail(&format!("cleaning up failed: {error}"));
                Err(error)
            }
        }
    }

    /// Returns whether it is left to the next host when this one ends in order.
    pub(crate) fn is_kept(&self) -> bool {
        self.record.is_kept()
    }

    /// Leaves it to the next host: nothing runs in it any more, and it stays as it is.
    pub(crate) async fn leave(&self) {
        self.wind_up().await;
    }

    /// Asks what still runs in it to stop, and waits for that: nothing runs while it is cleaned up.
    async fn wind_up(&self) {
        self.over.cancel();
        // Every call is dropped after its grace, and one that a tool made after the tool's.
        let Some(instance) = &self.instance else {
            return;
        };
        let longest = instance.cancel_grace().saturating_mul(2);
        if timeout(longest, self.record.quiet()).await.is_err() {
            tracing::warn!(sandbox = self.id(), "calls outlive the sandbox");
        }
    }

    /// Cleans up what a poisoned instance could not: through a new one, from its saved state.
    async fn clean_up_anew(&self, cause: Error) -> Result<()> {
        if clean_up_remains(&self.record, &self.sandbox_type).await? {
            return Ok(());
        }
        Err(cause.context("the sandbox saved no state to find its remains by after its cleanup"))
    }
}

/// Cleans up what nobody holds any more, through a new instance that is found by the saved
/// state. Returns whether there was such a state.
///
/// # Errors
///
/// What the backend answers; something may be left.
pub(crate) async fn clean_up_remains(record: &Record, sandbox_type: &SandboxType) -> Result<bool> {
    let Some(state) = record.state() else {
        return Ok(false);
    };
    if let Some(instance) = sandbox_type.recover(&state, record.services()).await? {
        instance.clean_up().await?;
    }
    Ok(true)
}
