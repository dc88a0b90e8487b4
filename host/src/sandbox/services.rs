//! What a sandbox's plugin reaches of its record.

use std::sync::Weak;

use boxyard_plugin_api::{
    Error, Result, SandboxIdentity, State,
    abi::{SandboxServices, SandboxServicesObject},
};
use serde_json::Value;

use super::record::Record;

/// What a sandbox's plugin calls; answers `CLOSED` once the sandbox is forgotten.
pub(super) struct Services {
    record: Weak<Record>,
    identity: SandboxIdentity,
}

impl Services {
    /// Returns the line to the host that the plugin of a record's sandbox holds.
    pub(super) fn of(record: Weak<Record>, identity: SandboxIdentity) -> SandboxServicesObject {
        SandboxServicesObject::from_services(Self { record, identity })
    }
}

impl SandboxServices for Services {
    fn identity(&self) -> SandboxIdentity {
        self.identity.clone()
    }

    fn event(&self, kind: String, data: Value) {
        if let Some(record) = self.record.upgrade() {
            record.event(&kind, data);
        }
    }

    fn set_metadata(&self, key: String, value: Value) {
        if let Some(record) = self.record.upgrade() {
            record.set_metadata(key, value);
        }
    }

    fn exited(&self, reason: String) {
        if let Some(record) = self.record.upgrade() {
            record.exited(&reason);
        }
    }

    async fn save_state(&self, state: State) -> Result<()> {
        let record = self
            .record
            .upgrade()
            .ok_or_else(|| Error::closed("the host has forgotten the sandbox"))?;
        record.save_state(state).await
    }
}
