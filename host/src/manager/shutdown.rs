//! The end of a host: every sandbox is deleted within a deadline, or left to the next host.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{EndError, Manager};
use crate::{sandbox::Sandbox, store::Change};

/// How long the store may take to write what is left.
const SETTLE: Duration = Duration::from_secs(1);

impl Manager {
    /// Makes nothing any more, and tells those who wait for a pool.
    pub(crate) fn close(&self) {
        self.sandboxes().closed = true;
        self.close_pools();
    }

    /// Deletes every sandbox within a deadline that is not kept; what is being made is given up.
    pub(crate) async fn shutdown(&self, deadline: Duration) {
        self.close();
        self.0.closing.cancel();
        let all_ended = timeout(deadline, self.end_all()).await;
        if all_ended == Ok(true) {
            self.0.lease.release();
        } else {
            tracing::warn!("not every sandbox could be deleted: the next host sweeps what is left");
        }
        if timeout(SETTLE, self.settle_store()).await.is_err() {
            tracing::warn!(
                "the store does not answer: the next host knows sandboxes as they were before"
            );
        }
    }

    /// Ends until nothing is under way and only what is kept is there; returns whether all could be
    /// ended.
    async fn end_all(&self) -> bool {
        let (mut tried, mut all_ended) = (BTreeSet::new(), true);
        loop {
            // Before the list: what is made from here on is counted, and seen the next time.
            let creating = self.sandboxes().creating();
            let found = self.list().into_iter();
            let new = found.filter(|sandbox| tried.insert(sandbox.id().to_owned()));
            let ends = join_all(new.map(|sandbox| self.end(sandbox))).await;
            all_ended &= ends.into_iter().all(|ended| ended);
            if creating == 0 {
                return all_ended;
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
        !matches!(deleted, Err(EndError::Backend { .. }))
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
