//! The end of a host: every sandbox is deleted within a deadline.

use std::time::Duration;

use futures_util::future::join_all;

use super::{DeleteError, Manager};

impl Manager {
    /// Takes no more creations, and deletes every sandbox within a deadline.
    pub(crate) async fn shutdown(&self, deadline: Duration) {
        self.sandboxes().closed = true;
        self.close_pools();
        let all_deleted = tokio::time::timeout(deadline, self.delete_all()).await;
        if all_deleted == Ok(true) {
            self.0.lease.release();
        } else {
            tracing::warn!("not every sandbox could be deleted: the next host sweeps what is left");
        }
    }

    /// Deletes until nothing is there or under way; returns whether all could be deleted.
    async fn delete_all(&self) -> bool {
        loop {
            // Before the list: what is made from here on is counted, and seen the next time.
            let creating = self.sandboxes().creating();
            let deletions = self.list().into_iter().map(|sandbox| {
                let manager = self.clone();
                async move {
                    let deleted = manager.delete(sandbox.id()).await;
                    // One that is gone meanwhile was deleted by somebody else.
                    !matches!(deleted, Err(DeleteError::Backend { .. }))
                }
            });
            if !join_all(deletions).await.into_iter().all(|deleted| deleted) {
                return false;
            }
            if creating == 0 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
