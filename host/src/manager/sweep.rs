//! What nobody owns any more: left by hosts that died, or half-made by this store's last host.

use std::time::Duration;

use boxyard_plugin_api::{ErrorCode, SweepRequest};
use futures_util::future::join_all;

use super::{Manager, leases, milliseconds};
use crate::lease::{self, FreeLease};

impl Manager {
    /// Removes what hosts that died left behind, once it is older than the grace.
    ///
    /// Returns the sandboxes of which nothing is left.
    pub async fn sweep(&self) -> Vec<String> {
        let directory = leases(&self.0.config.get());
        let found = tokio::task::spawn_blocking(move || lease::free(&directory)).await;
        let swept = found
            .unwrap_or_default()
            .into_iter()
            .map(|lease| self.sweep_lease(lease));
        join_all(swept).await.into_iter().flatten().collect()
    }

    async fn sweep_lease(&self, lease: FreeLease) -> Vec<String> {
        let grace = self.0.config.get().timeouts.sweep_grace;
        let request = SweepRequest::new(&*self.0.host_id, [&lease.id])
            .known(self.sandboxes().by_id.keys())
            .grace_ms(milliseconds(grace));
        let registry = self.registry();
        let (mut removed, mut left) = (Vec::new(), false);
        for name in &lease.types {
            // A type that is not loaded now may be at the next start.
            let Ok(sandbox_type) = registry.sandbox_type(name) else {
                left = true;
                continue;
            };
            match sandbox_type.sweep(&request).await {
                Ok(swept) => {
                    left |= !swept.kept.is_empty();
                    removed.extend(swept.removed);
                }
                Err(error) if error.code() == ErrorCode::UNIMPLEMENTED => {}
                Err(error) => {
                    tracing::warn!(sandbox_type = name, "sweep failed: {error}");
                    left = true;
                }
            }
        }
        if !left {
            lease.nothing_left(grace);
        }
        if !removed.is_empty() {
            tracing::info!(sandboxes = ?removed, "removed what a dead host left behind");
        }
        removed
    }

    /// Removes what is under this host's own lease and belongs to no sandbox: what an earlier
    /// process of the store left half-made.
    pub(super) async fn sweep_own(&self, grace: Duration) {
        if self.0.store.is_none() {
            return;
        }
        let registry = self.registry();
        let known: Vec<String> = self.sandboxes().by_id.keys().cloned().collect();
        let request = SweepRequest::new(&*self.0.host_id, [self.0.lease.id()])
            .known(known)
            .grace_ms(milliseconds(grace));
        for name in self.0.lease.types() {
            let Ok(sandbox_type) = registry.sandbox_type(&name) else {
                continue;
            };
            match sandbox_type.sweep(&request).await {
                Ok(swept) if !swept.removed.is_empty() => {
                    tracing::info!(sandboxes = ?swept.removed, "removed what the last host left half-made");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(sandbox_type = name, "sweep failed: {error}"),
            }
        }
    }
}
