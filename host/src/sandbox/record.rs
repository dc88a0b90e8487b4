//! What the host keeps of a sandbox: identity, status, metadata, events, state document.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant, SystemTime},
};

use boxyard_plugin_api::{
    Error, Isolation, Result, SandboxIdentity, State, abi::SandboxServicesObject,
};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};

use super::{
    Beginning, Event, Lifetime, SandboxInfo, Status, StatusError, events::Events, journal::Journal,
    services::Services,
};
use crate::manager::ToolsConfig;

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
    /// When it was made, by the clock that nobody sets; long ago for one of an earlier process.
    age_before: Duration,
    born: Instant,
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
    /// Calls that are running.
    activities: usize,
    /// When its status changed last, a call more or less included.
    changed: Instant,
    /// How long it had not changed by then; that of an earlier process.
    unchanged_before: Duration,
}

impl Inner {
    /// Counts the time anew in which nothing changes.
    fn restart(&mut self) {
        self.changed = Instant::now();
        self.unchanged_before = Duration::ZERO;
    }
}

/// A call that is running: the sandbox is busy as long as one is.
#[derive(Debug)]
pub(super) struct Activity<'a>(&'a Record);

impl Drop for Activity<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.activities -= 1;
        if inner.activities == 0 {
            if self.0.status() == Status::Busy {
                self.0.set_status(Status::Running, &mut inner);
            }
            self.0.quiet.notify_waiters();
        }
    }
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
        let (now, born) = (SystemTime::now(), Instant::now());
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
            age_before: now.duration_since(created_at).unwrap_or_default(),
            born,
            lifetime,
            status: watch::Sender::new(Status::Initializing),
            quiet: Notify::new(),
            inner: Mutex::new(Inner {
                updated_at: now,
                metadata: past.metadata,
                events: Events::new(past.events, listener, journal.clone()),
                state: past.state,
                activities: 0,
                changed: born,
                unchanged_before: since.unwrap_or_default(),
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
        if self.status() != Status::Error {
            // A sandbox that is stopping or stopped already needs no move.
            let _ = self.move_to(Status::Stopping);
        }
    }

    /// Notes that the sandbox is stopped; one that failed stays an error.
    pub(super) fn stopped(&self) {
        if self.status() != Status::Error {
            // As for `stopping`.
            let _ = self.move_to(Status::Stopped);
        }
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
        let mut inner = self.inner();
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
        self.set_status(Status::Error, &mut inner);
    }

    fn age(&self) -> Duration {
        self.age_before.saturating_add(self.born.elapsed())
    }

    /// Takes no more calls where the sandbox's time is over; returns why it is.
    pub(super) fn expire(&self) -> Option<String> {
        let mut inner = self.inner();
        let status = self.status();
        let unchanged = inner
            .unchanged_before
            .saturating_add(inner.changed.elapsed());
        let Lifetime {
            ttl, idle, ended, ..
        } = self.lifetime;
        let reason = match status {
            Status::Stopped | Status::Error if unchanged >= ended => {
                format!("it was {status} for {}", humantime::format_duration(ended))
            }
            Status::Running | Status::Idle | Status::Busy if self.age() >= ttl => {
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
            inner.restart();
        }
        Some(reason)
    }

    /// Counts one more call that is running.
    ///
    /// # Errors
    ///
    /// The sandbox takes no calls now.
    pub(super) fn begin(&self) -> Result<Activity<'_>> {
        let mut inner = self.inner();
        let status = self.status();
        if !status.takes_calls() {
            let why = ["error", "expired"].map(|key| inner.metadata.get(key)?.as_str());
            return Err(Error::failed_precondition(
                match why.into_iter().flatten().next() {
                    Some(why) => format!("sandbox {} is {status}: {why}", self.id()),
                    None => format!(
                        "sandbox {} is {status}: expected it to be running",
                        self.id()
                    ),
                },
            ));
        }
        inner.activities += 1;
        if status != Status::Busy {
            self.set_status(Status::Busy, &mut inner);
        }
        Ok(Activity(self))
    }

    /// Waits until no call is running.
    pub(super) async fn quiet(&self) {
        loop {
            let mut quiet = pin!(self.quiet.notified());
            // From here on it is told, whatever happens before it is awaited.
            quiet.as_mut().enable();
            if self.inner().activities == 0 {
                return;
            }
            quiet.await;
        }
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

    /// Notes something of it where people see it.
    pub(super) fn set_metadata(&self, key: String, value: Value) {
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
        inner.restart();
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
mod tests {
    use super::{super::Past, *};

    fn record() -> Arc<Record> {
        let forever = Duration::MAX;
        record_of(SystemTime::now(), forever)
    }

    fn record_of(created_at: SystemTime, ttl: Duration) -> Arc<Record> {
        Record::new(beginning_of(created_at, ttl))
    }

    fn beginning_of(created_at: SystemTime, ttl: Duration) -> Beginning {
        let identity = SandboxIdentity::new("s", "", "");
        let lifetime = Lifetime {
            ttl,
            idle: None,
            ended: Duration::MAX,
            keep: false,
        };
        Beginning {
            identity,
            sandbox_type: "test".into(),
            config: json!({}),
            tools: None,
            lifetime,
            created_at,
            journal: Journal::default(),
            listener: None,
            past: Past::default(),
        }
    }

    #[test]
    fn a_clock_that_was_set_back_takes_no_time_from_a_sandbox() {
        let (hour, now) = (Duration::from_secs(3600), SystemTime::now());
        let expires = |created_at| {
            let record = record_of(created_at, hour);
            record.move_to(Status::Running).unwrap();
            record.expire()
        };
        assert_eq!(expires(now - hour / 2), None);
        assert_eq!(expires(now + hour * 24), None);
        assert_eq!(expires(now - hour * 2).unwrap(), "it lived for 1h");
    }

    #[test]
    fn a_restart_gives_no_time_to_what_had_ended() {
        let hour = Duration::from_secs(3600);
        let over = |ago: Duration| {
            let event = Event {
                time: SystemTime::now() - ago,
                kind: "error".into(),
                data: Value::Null,
            };
            let mut beginning = beginning_of(SystemTime::now() - ago, Duration::MAX);
            beginning.lifetime.ended = hour;
            beginning.past.events.push(event);
            let record = Record::new(beginning);
            record.take_up(Status::Error);
            assert_eq!(record.events().len(), 1);
            let over = record.expire();
            // It is being deleted, and not over once more.
            assert_eq!(record.expire(), None);
            over
        };
        assert_eq!(over(hour / 2), None);
        assert_eq!(over(hour * 2).unwrap(), "it was error for 1h");
    }

    #[test]
    fn a_sandbox_is_busy_while_calls_run_and_takes_none_before_or_after() {
        let record = record();
        assert!(record.begin().is_err());
        record.move_to(Status::Running).unwrap();
        let (first, second) = (record.begin().unwrap(), record.begin().unwrap());
        drop(first);
        assert_eq!(record.status(), Status::Busy);
        drop(second);
        assert_eq!(record.status(), Status::Running);
        let last = record.begin().unwrap();
        record.stopping();
        drop(last);
        assert_eq!(record.status(), Status::Stopping);
        assert!(record.begin().is_err());
    }

    #[test]
    fn the_first_error_is_the_cause_and_calls_are_told_it() {
        let record = record();
        record.move_to(Status::Running).unwrap();
        record.fail("out of memory");
        record.fail("connection lost");
        record.stopping();
        assert_eq!(record.status(), Status::Error);
        assert_eq!(record.info().metadata["error"], "out of memory");
        assert!(
            record
                .begin()
                .unwrap_err()
                .message()
                .contains("out of memory")
        );
    }

    #[tokio::test]
    async fn services_reach_the_record_and_are_closed_without_it() {
        let record = record();
        record.move_to(Status::Running).unwrap();
        let services = record.services();
        services.event("pulled".into(), json!(1));
        services.set_metadata("pid".into(), json!(7));
        let state = State::new(1, &"x").unwrap();
        services.save_state(&state).await.unwrap();
        assert_eq!(record.state(), Some(state.clone()));
        assert_eq!(record.info().metadata["pid"], 7);
        assert!(record.events().iter().any(|event| event.kind == "pulled"));
        services.exited("the process is gone".into());
        assert_eq!(record.status(), Status::Error);
        drop(record);
        let error = services.save_state(&state).await.unwrap_err();
        assert_eq!(error.code(), boxyard_plugin_api::ErrorCode::CLOSED);
    }
}
