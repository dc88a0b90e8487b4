//! What of a sandbox is kept in the store, where there is one.

use std::collections::BTreeMap;

use boxyard_plugin_api::{Error, Result, State};
use serde_json::Value;

use super::{Event, Status};
use crate::store::{Change, Store, StoreError};

/// The line of one sandbox to the store; leads nowhere where nothing is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Option<(Store, String)>);

impl Journal {
    pub(crate) fn new(store: Option<Store>, id: &str) -> Self {
        Self(store.map(|store| (store, id.to_owned())))
    }

    pub(super) fn event(&self, event: &Event) {
        let event = event.clone();
        self.note(|id| Change::Event { id, event });
    }

    pub(super) fn status(&self, status: Status) {
        let status = status.as_str();
        self.note(|id| Change::Status { id, status });
    }

    pub(super) fn metadata(&self, metadata: &BTreeMap<String, Value>) {
        if self.0.is_some()
            && let Ok(metadata) = serde_json::to_string(metadata)
        {
            self.note(|id| Change::Metadata { id, metadata });
        }
    }

    fn note(&self, change: impl FnOnce(String) -> Change) {
        if let Some((store, id)) = &self.0 {
            store.note(change(id.clone()));
        }
    }

    /// Keeps what a backend saves; on disk when it returns.
    pub(super) async fn state(&self, state: &State) -> Result<()> {
        let state = state.clone();
        let kept = self.make(|id| Change::State { id, state }).await;
        kept.map_err(Error::unavailable)
    }

    /// Waits until everything that was noted is on disk.
    pub(crate) async fn flush(&self) -> std::result::Result<(), StoreError> {
        self.make(|_| Change::Nothing).await
    }

    /// Forgets the sandbox.
    pub(crate) async fn remove(&self) -> std::result::Result<(), StoreError> {
        self.make(|id| Change::Remove { id }).await
    }

    async fn make(
        &self,
        change: impl FnOnce(String) -> Change,
    ) -> std::result::Result<(), StoreError> {
        match &self.0 {
            Some((store, id)) => store.make(change(id.clone())).await,
            None => Ok(()),
        }
    }
}
