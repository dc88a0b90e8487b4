//! Removing a container, whatever it does and whoever else removes it.

use bollard::query_parameters::{RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder};
use boxyard_plugin_api::prelude::*;
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::{
    engine::{Connection, failure, is_being_removed, is_overtaken},
    link::{self, ENDED},
};

/// Removes a container, whatever it does; that it is gone is no error.
pub(crate) async fn remove(connection: &Connection, container: &str) -> Result<()> {
    match kill_and_remove(connection, container).await {
        // It ended by itself when it was about to be killed, so that nothing is left to kill.
        Err(error) if is_overtaken(&error) => {
            // However that goes, the second try says it.
            let _ = timeout(ENDED, link::ended(&connection.docker, container)).await;
            kill_and_remove(connection, container).await
        }
        removed => removed,
    }
}

async fn kill_and_remove(connection: &Connection, container: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    let removed = connection
        .docker
        .remove_container(container, Some(options))
        .await;
    match removed.map_err(failure) {
        Err(error) if error.code() == ErrorCode::NOT_FOUND => Ok(()),
        // Somebody else removes it.
        Err(error) if is_being_removed(&error) => gone(connection, container).await,
        Err(error) => Err(error.context(format_args!("removing the container {container}"))),
        Ok(()) => Ok(()),
    }
}

async fn gone(connection: &Connection, container: &str) -> Result<()> {
    let options = WaitContainerOptionsBuilder::new()
        .condition("removed")
        .build();
    let mut waiting = connection.docker.wait_container(container, Some(options));
    // However it answers, it is gone then.
    let waited = timeout(ENDED, waiting.next()).await;
    waited.map(drop).map_err(|_| {
        Error::unavailable(format_args!(
            "the container {container} is still being removed"
        ))
        .retryable()
    })
}
