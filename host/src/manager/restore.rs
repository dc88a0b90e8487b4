//! What an earlier process left: recovered, kept as an error that says why, or cleaned up.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use boxyard_plugin_api::{Error, ErrorCode};
use futures_util::{StreamExt, stream};

use super::{Manager, ToolsConfig, milliseconds};
use crate::{
    pool::Pool,
    registry::{Registry, SandboxType},
    sandbox::{Beginning, Journal, Lifetime, Past, Record, Sandbox, Status, clean_up_remains},
    store::{Contents, Found, SavedSandbox},
};

/// How many sandboxes are taken up at once.
const AT_ONCE: usize = 16;

impl SavedSandbox {
    /// Describes a sandbox that is about to be made.
    pub(super) fn of(beginning: &Beginning, pool: Option<String>) -> Self {
        let Beginning {
            identity,
            sandbox_type,
            config,
            tools,
            lifetime,
            created_at,
            ..
        } = beginning;
        let since = created_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: identity.id.clone(),
            name: identity.name.clone(),
            labels: identity.labels.clone(),
            sandbox_type: sandbox_type.clone(),
            config: config.clone(),
            tools: tools.clone().map(ToolsConfig::into_map),
            pool,
            created_ms: milliseconds(since),
            ttl_ms: milliseconds(lifetime.ttl),
            idle_ms: lifetime.idle.map(milliseconds),
            ended_ms: milliseconds(lifetime.ended),
            keep: lifetime.keep,
        }
    }
}

impl Manager {
    /// Takes up what the store has, before anything else is made.
    pub(crate) async fn restore(&self, contents: Contents) {
        let registry = self.registry();
        let pooled: BTreeMap<String, String> = contents
            .sandboxes
            .iter()
            .filter_map(|found| Some((found.sandbox.id.clone(), found.sandbox.pool.clone()?)))
            .collect();
        stream::iter(contents.sandboxes)
            .for_each_concurrent(AT_ONCE, |found| self.take_up(found, &registry))
            .await;
        // Before anything is made: what is being made is not known yet.
        self.sweep_own(Duration::ZERO).await;
        let mut pools = BTreeMap::new();
        for spec in contents.pools {
            let pool = Pool::new(self, spec, true);
            self.put_pool(Arc::clone(&pool));
            pools.insert(pool.name().to_owned(), pool);
        }
        for (id, name) in pooled {
            let Some(sandbox) = self.get(&id) else {
                continue;
            };
            match pools.get(&name) {
                Some(pool) => pool.adopt(sandbox),
                // The configuration has it, if anybody, and makes it anew.
                None => self.remove_soon(sandbox),
            }
        }
        for pool in pools.values() {
            pool.fill();
        }
    }

    async fn take_up(&self, found: Found, registry: &Registry) {
        let Found {
            sandbox: saved,
            status,
            metadata,
            state,
            events,
        } = found;
        let sandbox_type = registry.sandbox_type(&saved.sandbox_type).cloned();
        let sandbox_type =
            sandbox_type.unwrap_or_else(|_| Arc::new(SandboxType::absent(&saved.sandbox_type)));
        let record = Record::new(Beginning {
            journal: Journal::new(self.0.store.clone(), &saved.id),
            identity: self.identity(saved.id, saved.name, saved.labels),
            sandbox_type: saved.sandbox_type,
            config: saved.config,
            tools: saved.tools.map(ToolsConfig::from_map),
            lifetime: Lifetime {
                ttl: Duration::from_millis(saved.ttl_ms),
                idle: saved.idle_ms.map(Duration::from_millis),
                ended: Duration::from_millis(saved.ended_ms),
                keep: saved.keep,
            },
            created_at: UNIX_EPOCH + Duration::from_millis(saved.created_ms),
            listener: None,
            past: Past {
                metadata: metadata.into_iter().collect(),
                events,
                state,
            },
        });
        let config = self.0.config.get();
        let known = |instance| {
            Sandbox::new(
                Arc::clone(&record),
                instance,
                Arc::clone(&sandbox_type),
                registry,
                config,
            )
        };
        let status = status.parse().unwrap_or(Status::Error);
        let sandbox = match status {
            // Nobody was told of it.
            Status::Initializing => {
                if let Err(error) = clean_up_remains(&record, &sandbox_type).await {
                    tracing::warn!(
                        sandbox = record.id(),
                        "half-made sandbox is left to the sweep: {error}"
                    );
                }
                if let Err(error) = record.journal().remove().await {
                    tracing::warn!("{error}");
                }
                return;
            }
            Status::Running | Status::Idle | Status::Busy | Status::Stopping => {
                let recovered = match record.state() {
                    Some(state) => sandbox_type.recover(&state, record.services()).await,
                    None => Ok(None),
                };
                match recovered {
                    Ok(Some(instance)) => {
                        let sandbox = known(Some(instance));
                        if let Err(error) = sandbox.resume() {
                            // It ended by itself meanwhile, and its record says why.
                            tracing::warn!(sandbox = sandbox.id(), "{error}");
                        }
                        sandbox
                    }
                    Ok(None) => {
                        let sandbox = known(None);
                        sandbox.resume_failed(
                            "the host is gone that it was made by, and it did not outlive that",
                        );
                        sandbox
                    }
                    Err(error) => {
                        let sandbox = known(None);
                        let why = format!(
                            "the host is gone that it was made by, and it could not be recovered: {error}"
                        );
                        if is_out_of_reach(&error) {
                            sandbox.resume_unreached(&why);
                        } else {
                            sandbox.resume_failed(&why);
                        }
                        sandbox
                    }
                }
            }
            Status::Stopped => {
                let mut sandbox = known(None);
                sandbox.resume_stopped();
                sandbox
            }
            Status::Error => {
                let sandbox = known(None);
                sandbox.resume_error();
                sandbox
            }
        };
        let sandbox = self.put(sandbox);
        if status == Status::Stopping {
            // It was asked for, and is done to its end.
            let manager = self.clone();
            tokio::spawn(async move {
                // Where it fails the sandbox is an error, which says why.
                let _ = manager.stop(sandbox.id()).await;
            });
        }
    }

    fn put(&self, sandbox: Sandbox) -> Arc<Sandbox> {
        let sandbox = Arc::new(sandbox);
        let id = sandbox.id().to_owned();
        self.sandboxes().by_id.insert(id, Arc::clone(&sandbox));
        sandbox
    }
}

/// Whether a backend could not look, so that a later host may find what this one does not.
fn is_out_of_reach(error: &Error) -> bool {
    [ErrorCode::UNAVAILABLE, ErrorCode::DEADLINE_EXCEEDED].contains(&error.code())
}
