//! What the host keeps of a sandbox: identity, status, metadata, events, state document.

mod activity;
mod elapsed;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::SystemTime,
};

use boxyard_plugin_api::{
    Error, Isolation, Result, SandboxIdentity, State, abi::SandboxServicesObject,
};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};

pub(crate) use self::activity::Activity;
use self::{activity::Calls, elapsed::Elapsed};
use super::{
    Beginning, Event, Lifetime, SandboxInfo, Status, StatusError, events::Events, journal::Journal,
    services::Services,
};
use crate::manager::ToolsConfig;

/// Metadata by which the host says why a sandbox takes no calls, the first that there is.
const HOSTS: [&str; 2] = ["error", "expired"];

/// What the host keeps of a sandbox, from before it is made until it is forgotten.
#[derive(Debug)]
pub(crate) struct Record {
    /// For the services that its plugin holds.
    weak: Weak<Record>,
    identity: SandboxIdentity,
    sandbox_type: String,
    config: Value,
    tools: Option<ToolsConfig>,
    created_at: SystemTime,
    age: Elapsed,
    lifetime: Lifetime,
    status: watch::Sender<Status>,
    journal: Journal,
    /// Told when the last call that was running ended.
    quiet: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    updated_at: SystemTime,
    metadata: BTreeMap<String, Value>,
    events: Events,
    /// What the backend saved last.
    state: Option<State>,
    /// Whether it waits in a pool.
    parked: bool,
    calls: Calls,
    /// How long its status has not changed, a call more or less included.
    unchanged: Elapsed,
}

impl Record {
    pub(crate) fn new(beginning: Beginning) -> Arc<Self> {
        let Beginning {
            identity,
            sandbox_type,
            config,
            tools,
            lifetime,
            created_at,
            journal,
            listener,
            past,
        } = beginning;
        let now = SystemTime::now();
        let since = past
            .last_move()
            .and_then(|moved| now.duration_since(moved).ok());
        Arc::new_cyclic(|weak| Self {
            weak: weak.clone(),
            identity,
            sandbox_type,
            config,
            tools,
            created_at,
            // A clock that was set back made it younger than it is, never older than it can be.
            age: Elapsed::after(now.duration_since(created_at).unwrap_or_default()),
            lifetime,
            status: watch::Sender::new(Status::Initializing),
            quiet: Notify::new(),
            inner: Mutex::new(Inner {
                updated_at: now,
                metadata: past.metadata,
                events: Events::new(past.events, listener, journal.clone()),
                state: past.state,
                parked: false,
                calls: Calls::default(),
                unchanged: Elapsed::after(since.unwrap_or_default()),
            }),
            journal,
        })
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn id(&self) -> &str {
        &self.identity.id
    }

    pub(super) fn name(&self) -> &str {
        &self.identity.name
    }

    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        &self.identity.labels
    }

    pub(crate) fn config(&self) -> &Value {
        &self.config
    }

    /// Returns the tools that it was asked to have; all that there are where `None`.
    pub(super) fn tools(&self) -> Option<&ToolsConfig> {
        self.tools.as_ref()
    }

    pub(crate) fn status(&self) -> Status {
        *self.status.borrow()
    }

    pub(super) async fn status_changed(&self, known: Status) -> Status {
        let mut watched = self.status.subscribe();
        // The sender is `self`: it cannot be gone.
        watched
            .wait_for(|status| *status != known)
            .await
            .map_or(known, |status| *status)
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.inner().events.to_vec()
    }

    /// Returns whether it is left to the next host when this one ends in order.
    pub(crate) fn is_kept(&self) -> bool {
        self.keeps(&self.inner())
    }

    fn keeps(&self, inner: &Inner) -> bool {
        // A backend says so when it is started where a sandbox cannot wait.
        let lingers = inner.metadata.get("lingers") != Some(&json!(false));
        let status = self.status();
        self.lifetime.keep && lingers && (status.takes_calls() || status == Status::Stopped)
    }

    /// Returns what the backend saved last.
    pub(crate) fn state(&self) -> Option<State> {
        self.inner().state.clone()
    }

    /// Returns the line to the host that the sandbox's plugin holds.
    pub(crate) fn services(&self) -> SandboxServicesObject {
        Services::of(self.weak.clone(), self.identity.clone())
    }

    /// Makes a move of the status.
    pub(super) fn move_to(&self, to: Status) -> Result<()> {
        let mut inner = self.inner();
        let moved = self.status().move_to(to).map_err(illegal)?;
        self.set_status(moved, &mut inner);
        Ok(())
    }

    /// Notes that the sandbox is being stopped; one that failed stays an error.
    pub(super) fn stopping(&self) {
        // What failed, is stopping or stopped already makes no such move.
        let _ = self.move_to(Status::Stopping);
    }

    /// Notes that the sandbox is stopped; one that failed stays an error.
    pub(super) fn stopped(&self) {
        // As for `stopping`.
        let _ = self.move_to(Status::Stopped);
    }

    /// Notes whether it waits in a pool.
    pub(super) fn park(&self, parked: bool) {
        let mut inner = self.inner();
        inner.parked = parked;
        self.settle(&mut inner);
    }

    /// Sets the status of one that takes calls to what is true of it.
    fn settle(&self, inner: &mut Inner) {
        let status = match (inner.calls.make_it_busy(), inner.parked) {
            (true, _) => Status::Busy,
            (false, true) => Status::Idle,
            (false, false) => Status::Running,
        };
        if self.status().takes_calls() && self.status() != status {
            self.set_status(status, inner);
        }
    }

    /// Takes up what an earlier process left running, whatever kept another one from that meanwhile.
    pub(super) fn recovered(&self) -> Result<()> {
        let mut inner = self.inner();
        let moved = self.status().move_to(Status::Running).map_err(illegal)?;
        for key in HOSTS {
            inner.metadata.remove(key);
        }
        self.journal.metadata(&inner.metadata);
        self.set_status(moved, &mut inner);
        inner.events.push("recovered".into(), Value::Null);
        Ok(())
    }

    /// Takes up where an earlier process left it; that is no news.
    pub(super) fn take_up(&self, status: Status) {
        self.status.send_replace(status);
    }

    /// Takes up as an error what cannot be reached now; what is kept of it says nothing of that.
    pub(super) fn out_of_reach(&self, why: &str) {
        let mut inner = self.inner();
        inner.metadata.insert("error".into(), why.into());
        self.status.send_replace(Status::Error);
    }

    /// Notes that something went wrong. The first error is kept: later ones follow from it.
    pub(crate) fn fail(&self, error: &str) {
        self.fail_locked(error, &mut self.inner());
    }

    /// Notes that it ended by itself, where it was not to.
    pub(super) fn exited(&self, reason: &str) {
        let mut inner = self.inner();
        if !matches!(self.status(), Status::Stopping | Status::Stopped) {
            self.fail_locked(reason, &mut inner);
        }
    }

    fn fail_locked(&self, error: &str, inner: &mut Inner) {
        tracing::warn!(
            sandbox = self.id(),
            sandbox_type = self.sandbox_type,
            "sandbox failed: {error}"
        );
        inner
            .metadata
            .entry("error".into())
            .or_insert_with(|| error.into());
        self.journal.metadata(&inner.metadata);
        inner.events.push("error".into(), json!({ "error": error }));
        self.set_status(Status::Error, inner);
    }

    /// Takes no more calls where the sandbox's time is over; returns why it is.
    pub(super) fn expire(&self) -> Option<String> {
        let mut inner = self.inner();
        let status = self.status();
        let unchanged = inner.unchanged.get();
        let Lifetime {
            ttl, idle, ended, ..
        } = self.lifetime;
        let reason = match status {
            Status::Stopped | Status::Error if unchanged >= ended => {
                format!("it was {status} for {}", humantime::format_duration(ended))
            }
            Status::Running | Status::Idle | Status::Busy if self.age.get() >= ttl => {
                format!("it lived for {}", humantime::format_duration(ttl))
            }
            Status::Running => match idle {
                Some(idle) if unchanged >= idle => {
                    format!("nothing ran in it for {}", humantime::format_duration(idle))
                }
                _ => return None,
            },
            _ => return None,
        };
        inner.metadata.insert("expired".into(), json!(reason));
        self.journal.metadata(&inner.metadata);
        inner
            .events
            .push("expired".into(), json!({ "reason": reason }));
        if status.takes_calls() {
            self.set_status(Status::Stopping, &mut inner);
        } else {
            // It is not over again while it is being deleted, and once more where that fails.
            inner.unchanged.restart();
        }
        Some(reason)
    }

    /// Returns what went wrong, where something did.
    pub(super) fn error(&self) -> Option<String> {
        let inner = self.inner();
        let error = inner.metadata.get("error").and_then(Value::as_str);
        error.map(str::to_owned)
    }

    pub(super) fn event(&self, kind: &str, data: Value) {
        self.inner().events.push(kind.into(), data);
    }

    /// Notes something of it where people see it, in its plugin's words.
    pub(super) fn set_metadata(&self, key: String, value: Value) {
        if HOSTS.contains(&key.as_str()) {
            let sandbox = self.id();
            tracing::warn!(
                sandbox,
                key,
                "metadata that is the host's is not a plugin's to set"
            );
            return;
        }
        let mut inner = self.inner();
        inner.metadata.insert(key, value);
        inner.updated_at = SystemTime::now();
        self.journal.metadata(&inner.metadata);
    }

    /// Keeps what its backend saves; durable when it returns.
    pub(super) async fn save_state(&self, state: State) -> Result<()> {
        self.journal.state(&state).await?;
        self.inner().state = Some(state);
        Ok(())
    }

    /// Returns what the record alone knows; the rest is left empty.
    pub(super) fn info(&self) -> SandboxInfo {
        let mut config = self.config.clone();
        if let (Some(tools), Some(config)) = (&self.tools, config.as_object_mut()) {
            config.insert("tools_config".into(), json!(tools));
        }
        let inner = self.inner();
        SandboxInfo {
            id: self.identity.id.clone(),
            name: self.identity.name.clone(),
            labels: self.identity.labels.clone(),
            sandbox_type: self.sandbox_type.clone(),
            plugin: String::new(),
            isolation: Isolation::None,
            status: self.status(),
            created_at: self.created_at,
            updated_at: inner.updated_at,
            config,
            metadata: inner.metadata.clone(),
            execution_context: None,
            backend: Map::new(),
            available_tools: Vec::new(),
            keep: self.keeps(&inner),
        }
    }

    fn set_status(&self, status: Status, inner: &mut Inner) {
        inner.updated_at = SystemTime::now();
        inner.unchanged.restart();
        let before = self.status.send_replace(status);
        // A command more or less is no history.
        if before != status && !(before.takes_calls() && status.takes_calls()) {
            self.journal.status(status);
            inner
                .events
                .push("status".into(), json!({ "from": before, "to": status }));
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn illegal(error: StatusError) -> Error {
    Error::failed_precondition(error)
}

#[cfg(test)]
mod tests;
