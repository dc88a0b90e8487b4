//! Making sandboxes: counted from before they are made, and left to nobody where nobody waits.

use std::{collections::BTreeMap, io, sync::Arc, time::SystemTime};

use boxyard_plugin_api::{
    Capability, Error, ErrorCode, Isolation, SandboxIdentity, canonical_type_name,
};
use serde_json::{Map, Value};
use tokio::{runtime::Handle, sync::oneshot};
use tracing::Instrument;

use super::{CreateRequest, Manager, Sandboxes, ToolsConfig, milliseconds};
use crate::{
    config::Limits,
    lease,
    registry::{Registry, SandboxType, UnknownType},
    sandbox::{Beginning, Journal, Lifetime, Past, Record, Sandbox, clean_up_remains},
    schema::SchemaError,
    store::{Change, SavedSandbox, StoreError},
};

/// The limit of those that are being made, by its key.
const CREATING: &str = "creating";

/// Why no sandbox was made.
///
/// Nothing of it is left, unless it could not be cleaned up: then it is listed, as an error.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No plugin provides the type.
    #[error(transparent)]
    UnknownType(#[from] UnknownType),
    /// The configuration does not fit the type.
    #[error(transparent)]
    Config(#[from] SchemaError),
    /// The type isolates less than is asked for.
    #[error(
        "`{sandbox_type}` has isolation `{found}`, and the host asks for `{expected}` or better: use another type, or allow it with `min_isolation` or `--allow-isolation {found}`"
    )]
    Isolation {
        /// The type.
        sandbox_type: String,
        /// What it has.
        found: Isolation,
        /// What the host asks for.
        expected: Isolation,
    },
    /// There are as many as there may be.
    #[error(
        "{found} {what}, and `limits.{limit}` allows no more: try again once one is gone, or raise it"
    )]
    Full {
        /// How many there are.
        found: usize,
        /// Of what.
        what: String,
        /// The configuration's key.
        limit: String,
    },
    /// The store cannot be written.
    #[error("cannot note the sandbox, so that it is found again when this process dies: {source}")]
    Store {
        /// Why.
        #[from]
        source: StoreError,
    },
    /// It is to be kept for the next host, and cannot be.
    #[error("cannot keep a `{sandbox_type}` sandbox for the next host: {missing}")]
    CannotKeep {
        /// The type.
        sandbox_type: String,
        /// What it would take.
        missing: &'static str,
    },
    /// The lease cannot be written.
    #[error(
        "cannot write the lease, so that nothing is left behind if this process dies: {source}"
    )]
    Lease {
        /// What the system says.
        source: io::Error,
    },
    /// The backend failed.
    #[error("cannot {step} a `{sandbox_type}` sandbox: {source}")]
    Backend {
        /// `create` or `start`.
        step: &'static str,
        /// The type.
        sandbox_type: String,
        /// What it says.
        source: Error,
    },
    /// The host is shutting down.
    #[error("the host is shutting down")]
    ShuttingDown,
}

impl CreateError {
    /// Returns whether there is room once a sandbox is made that is being made now.
    fn is_of_the_moment(&self) -> bool {
        matches!(self, Self::Full { found: 1.., limit, .. } if limit == CREATING)
    }

    /// Returns whether the same may be tried again later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

impl Sandboxes {
    pub(super) fn creating(&self) -> usize {
        self.creating.values().sum()
    }

    /// Says which limit one more sandbox of a type would break.
    fn check(&self, limits: &Limits, sandbox_type: &str) -> Result<(), CreateError> {
        let check = |found, what: &str, limit: &str, most: Option<usize>| match most {
            Some(most) if found >= most => Err(CreateError::Full {
                found,
                what: what.into(),
                limit: limit.into(),
            }),
            _ => Ok(()),
        };
        let creating = self.creating();
        check(
            creating,
            "sandboxes are being made",
            CREATING,
            limits.creating,
        )?;
        let all = self.by_id.len() + creating;
        check(all, "sandboxes are there", "sandboxes", limits.sandboxes)?;
        let mut per_type = limits.per_type.iter();
        let Some((name, most)) =
            per_type.find(|(name, _)| canonical_type_name(name) == sandbox_type)
        else {
            return Ok(());
        };
        let there = self
            .by_id
            .values()
            .map(|sandbox| sandbox.sandbox_type().name());
        let there = there.filter(|name| *name == sandbox_type).count();
        let found = there + self.creating.get(sandbox_type).copied().unwrap_or(0);
        let what = format!("`{sandbox_type}` sandboxes are there");
        check(found, &what, &format!("per_type.{name}"), Some(*most))
    }
}

impl Manager {
    /// Makes a sandbox and starts it.
    ///
    /// Runs in a task of its own: when this future is dropped, the sandbox is made to its end
    /// and deleted.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    pub async fn create(&self, request: CreateRequest) -> Result<Arc<Sandbox>, CreateError> {
        let registry = self.registry();
        let Checked {
            sandbox_type,
            config,
            tools,
            keep,
        } = self.checked(
            &registry,
            request.sandbox_type,
            request.config,
            request.keep,
        )?;
        let creation = Creation::begin(self, sandbox_type.name())?;
        let identity = self.identity(lease::new_id(), request.name, request.labels);
        self.0
            .lease
            .note_type(sandbox_type.name())
            .map_err(|source| CreateError::Lease { source })?;
        let lifetimes = self.0.config.get().lifetimes;
        let lifetime = Lifetime {
            ttl: request.ttl.unwrap_or(lifetimes.running),
            idle: request.idle_timeout,
            ended: lifetimes.ended,
            keep,
        };
        let beginning = Beginning {
            journal: Journal::new(self.0.store.clone(), &identity.id),
            identity,
            sandbox_type: sandbox_type.name().into(),
            config,
            tools,
            lifetime,
            created_at: SystemTime::now(),
            listener: request.listener,
            past: Past::default(),
        };
        let (answer, answered) = oneshot::channel();
        let manager = self.clone();
        let making = async move {
            let made = manager
                .make(beginning, request.pool, sandbox_type, &registry, creation)
                .await;
            // Where nobody takes it, the handover deletes it.
            let _ = answer.send(made.map(|sandbox| Handover::new(&manager, sandbox)));
        };
        tokio::spawn(making.in_current_span());
        // The task sends its answer unless the runtime itself ends.
        let made = answered.await.unwrap_or(Err(CreateError::ShuttingDown));
        made.map(Handover::take)
    }

    /// Checks what nothing but the request or the host's configuration can change.
    ///
    /// # Errors
    ///
    /// The [`CreateError`] with which every sandbox of it would not be made.
    pub(super) fn check(&self, request: CreateRequest) -> Result<(), CreateError> {
        let registry = self.registry();
        self.checked(
            &registry,
            request.sandbox_type,
            request.config,
            request.keep,
        )
        .map(drop)
    }

    fn checked(
        &self,
        registry: &Registry,
        sandbox_type: String,
        mut config: Map<String, Value>,
        keep: Option<bool>,
    ) -> Result<Checked, CreateError> {
        let sandbox_type = Arc::clone(registry.sandbox_type(&sandbox_type)?);
        let tools = match config.remove("tools_config") {
            None => None,
            Some(tools) => Some(ToolsConfig::read(tools)?),
        };
        let config = sandbox_type.check_config(Value::Object(config))?;
        let (found, expected) = (
            sandbox_type.isolation(),
            self.0.config.get().min_isolation(),
        );
        if found < expected {
            return Err(CreateError::Isolation {
                sandbox_type: sandbox_type.name().into(),
                found,
                expected,
            });
        }
        Ok(Checked {
            keep: self.keeps(&sandbox_type, keep)?,
            sandbox_type,
            config,
            tools,
        })
    }

    /// Does [`Manager::create`], once there are fewer in the making than there may be.
    pub(crate) async fn create_in_turn(
        &self,
        request: CreateRequest,
    ) -> Result<Arc<Sandbox>, CreateError> {
        loop {
            match self.create(request.clone()).await {
                // An end that came meanwhile is not missed: it was noted.
                Err(error) if error.is_of_the_moment() => self.0.made.notified().await,
                made => {
                    // Its turn is the next one's where it did not use it.
                    self.0.made.notify_one();
                    return made;
                }
            }
        }
    }

    /// Returns whether a sandbox is left to the next host when this one ends in order.
    fn keeps(&self, sandbox_type: &SandboxType, wanted: Option<bool>) -> Result<bool, CreateError> {
        let missing = if self.0.store.is_none() {
            "this host has no store"
        } else if !sandbox_type.can(Capability::RECOVERY) {
            "its type has no recovery"
        } else {
            return Ok(wanted.unwrap_or_else(|| self.0.config.get().keep_sandboxes));
        };
        match wanted {
            Some(true) => Err(CreateError::CannotKeep {
                sandbox_type: sandbox_type.name().into(),
                missing,
            }),
            Some(false) | None => Ok(false),
        }
    }

    /// Names a sandbox of this host. Only one that is noted can be found again, and lingers.
    pub(super) fn identity(
        &self,
        id: String,
        name: String,
        labels: BTreeMap<String, String>,
    ) -> SandboxIdentity {
        let mut identity = SandboxIdentity::new(id, &*self.0.host_id, self.0.lease.id());
        identity.name = name;
        identity.labels = labels;
        if self.0.store.is_some() {
            identity.linger_ms = milliseconds(self.0.config.get().timeouts.linger);
        }
        identity
    }

    async fn make(
        &self,
        beginning: Beginning,
        pool: Option<String>,
        sandbox_type: Arc<SandboxType>,
        registry: &Registry,
        creation: Creation,
    ) -> Result<Arc<Sandbox>, CreateError> {
        let failed = |step, source| CreateError::Backend {
            step,
            sandbox_type: sandbox_type.name().into(),
            source,
        };
        if let Some(store) = &self.0.store {
            let saved = SavedSandbox::of(&beginning, pool);
            store.make(Change::Insert(Box::new(saved))).await?;
        }
        let record = Record::new(beginning);
        let (services, closing) = (record.services(), &self.0.closing);
        let created = sandbox_type.create(record.config(), services, closing);
        let instance = match created.await {
            Ok(instance) => instance,
            Err(error) => {
                record.fail(&error.to_string());
                self.undo(&record, &sandbox_type, &error).await;
                return Err(failed("create", error));
            }
        };
        let sandbox = Sandbox::new(
            record,
            instance,
            Arc::clone(&sandbox_type),
            registry,
            self.0.config.get(),
        );
        let sandbox = Arc::new(sandbox);
        let started = match sandbox.start().await {
            // Whoever is told of it finds it again, whatever becomes of this process.
            Ok(()) => sandbox.journal().flush().await.map_err(CreateError::from),
            Err(error) => Err(failed("start", error)),
        };
        if let Err(error) = started {
            match sandbox.end().await {
                Ok(()) => sandbox.forget().await,
                Err(left) => {
                    tracing::warn!(sandbox = sandbox.id(), "half-made sandbox is left: {left}");
                    // Not forgotten: it is shown as an error, and can be deleted again.
                    creation.end(sandbox);
                }
            }
            return Err(error);
        }
        creation.end(Arc::clone(&sandbox));
        Ok(sandbox)
    }

    /// Cleans up after a creation that failed, where its backend could not.
    async fn undo(&self, record: &Record, sandbox_type: &SandboxType, error: &Error) {
        if broke_off(error) {
            let left = match clean_up_remains(record, sandbox_type).await {
                Ok(true) => None,
                Ok(false) => Some("it saved nothing to find it by".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(left) = left {
                tracing::warn!(
                    sandbox = record.id(),
                    "what was made of it, if anything, is left to the sweep: {left}"
                );
                self.0.lease.keep();
            }
        }
        if let Err(error) = record.journal().remove().await {
            tracing::warn!(
                sandbox = record.id(),
                "it is still in the store, until that can be written: {error}"
            );
        }
    }
}

/// Returns whether a creation may have been broken off before the plugin could undo it, or when it
/// could not.
fn broke_off(error: &Error) -> bool {
    [
        ErrorCode::PANICKED,
        ErrorCode::DEADLINE_EXCEEDED,
        ErrorCode::CANCELLED,
        ErrorCode::UNAVAILABLE,
    ]
    .contains(&error.code())
}

/// What a request asks for, where it can be made.
struct Checked {
    sandbox_type: Arc<SandboxType>,
    config: Value,
    tools: Option<ToolsConfig>,
    keep: bool,
}

/// A sandbox on its way to whoever asked for it: deleted where it does not arrive.
struct Handover {
    manager: Manager,
    sandbox: Arc<Sandbox>,
    arrived: bool,
    runtime: Handle,
}

impl Handover {
    /// Must be called inside a runtime.
    fn new(manager: &Manager, sandbox: Arc<Sandbox>) -> Self {
        Self {
            manager: manager.clone(),
            sandbox,
            arrived: false,
            runtime: Handle::current(),
        }
    }

    fn take(mut self) -> Arc<Sandbox> {
        self.arrived = true;
        Arc::clone(&self.sandbox)
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.arrived {
            return;
        }
        let (manager, sandbox) = (self.manager.clone(), Arc::clone(&self.sandbox));
        self.runtime.spawn(async move {
            if let Err(error) = manager.delete(sandbox.id()).await {
                tracing::warn!(sandbox = sandbox.id(), "abandoned sandbox: {error}");
            }
        });
    }
}

/// A creation that is under way; shutdown waits for it.
struct Creation {
    manager: Manager,
    sandbox_type: String,
    /// What it came to.
    sandbox: Option<Arc<Sandbox>>,
}

impl Creation {
    fn begin(manager: &Manager, sandbox_type: &str) -> Result<Self, CreateError> {
        let mut sandboxes = manager.sandboxes();
        if sandboxes.closed {
            return Err(CreateError::ShuttingDown);
        }
        sandboxes.check(&manager.0.config.get().limits, sandbox_type)?;
        *sandboxes.creating.entry(sandbox_type.into()).or_default() += 1;
        drop(sandboxes);
        Ok(Self {
            manager: manager.clone(),
            sandbox_type: sandbox_type.into(),
            sandbox: None,
        })
    }

    /// Ends with a sandbox, which is there from now on.
    fn end(mut self, sandbox: Arc<Sandbox>) {
        self.sandbox = Some(sandbox);
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        // At once: a sandbox is counted once, and never missed.
        let mut sandboxes = self.manager.sandboxes();
        if let Some(sandbox) = self.sandbox.take() {
            sandboxes.by_id.insert(sandbox.id().into(), sandbox);
        }
        if let Some(count) = sandboxes.creating.get_mut(&self.sandbox_type) {
            *count -= 1;
        }
        drop(sandboxes);
        self.manager.0.made.notify_one();
    }
}
