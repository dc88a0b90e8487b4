//! The end of a host: every sandbox is deleted within a deadline, or left to the next host.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{DeleteError, Manager};
use crate::{sandbox::Sandbox, store::Change};

impl Manager {
    /// Takes no more creations, and deletes every sandbox within a deadline that is not kept.
    pub(crate) async fn shutdown(&self, deadline: Duration) {
        self.sandboxes().closed = true;
        self.close_pools();
        let ended = tokio::time::timeout(deadline, async {
            let all_ended = self.end_all().await;
            self.settle_store().await;
            all_ended
        });
        if ended.await == Ok(true) {
            self.0.lease.release();
        } else {
            tracing::warn!("not every sandbox could be deleted: the next host sweeps what is left");
        }
    }

    /// Ends until nothing is under way and only what is kept is there; returns whether all could be
    /// ended.
    async fn end_all(&self) -> bool {
        loop {
            // Before the list: what is made from here on is counted, and seen the next time.
            let creating = self.sandboxes().creating();
            let ends = self.list().into_iter().map(|sandbox| self.end(sandbox));
            if !join_all(ends).await.into_iter().all(|ended| ended) {
                return false;
            }
            if creating == 0 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(&self, sandbox: Arc<Sandbox>) -> bool {
        if sandbox.is_kept() {
            sandbox.leave().await;
            return true;
        }
        let deleted = self.delete(sandbox.id()).await;
        // One that is gone meanwhile was deleted by somebody else.
        !matches!(deleted, Err(DeleteError::Backend { .. }))
    }

    /// Waits until what the next host is to find is on disk.
    async fn settle_store(&self) {
        let Some(store) = &self.0.store else {
            return;
        };
        if let Err(error) = store.make(Change::Nothing).await {
            tracing::warn!("the next host knows sandboxes as they were before: {error}");
        }
    }
}
