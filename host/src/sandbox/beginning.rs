//! What a sandbox's record begins with.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use boxyard_plugin_api::{SandboxIdentity, State};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::{Event, Journal};
use crate::manager::ToolsConfig;

/// How long a sandbox lives. Clocks that are set do not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// Since it was asked for.
    pub(crate) ttl: Duration,
    /// While nothing runs in it; as long as it likes where `None`.
    pub(crate) idle: Option<Duration>,
    /// Since it was stopped or failed.
    pub(crate) ended: Duration,
    /// Whether it is left to the next host when this one ends in order.
    pub(crate) keep: bool,
}

/// What a record begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) identity: SandboxIdentity,
    pub(crate) sandbox_type: String,
    pub(crate) config: Value,
    pub(crate) tools: Option<ToolsConfig>,
    pub(crate) lifetime: Lifetime,
    pub(crate) created_at: SystemTime,
    pub(crate) journal: Journal,
    pub(crate) listener: Option<UnboundedSender<Event>>,
    /// What an earlier process knew of it.
    pub(crate) past: Past,
}

/// What an earlier process knew of a sandbox.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) events: Vec<Event>,
    pub(crate) state: Option<State>,
}

impl Past {
    /// Returns when the sandbox's status changed last.
    pub(super) fn last_move(&self) -> Option<SystemTime> {
        let mut newest_first = self.events.iter().rev();
        let moved = newest_first.find(|event| ["status", "error"].contains(&event.kind.as_str()));
        moved.map(|event| event.time)
    }
}
