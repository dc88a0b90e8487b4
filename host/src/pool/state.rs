//! What a pool has and what became of it.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::oneshot, time::Instant};

use super::{Lent, PoolError};
use crate::{manager::CreateError, sandbox::Sandbox};

/// How long to wait after a first failure to make a sandbox; then twice as long each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What a pool has and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct PoolStats {
    /// Its name.
    pub name: String,
    /// How many sandboxes there are to be.
    pub size: usize,
    /// How many wait to be used.
    pub idle: usize,
    /// How many are in use.
    pub in_use: usize,
    /// How many are being made.
    pub filling: usize,
    /// How many callers wait.
    pub waiting: usize,
    /// How many were made so far.
    pub created: u64,
    /// How often one was handed out.
    pub lent: u64,
    /// How many died, did not answer or were too old, and were replaced.
    pub died: u64,
    /// How many could not be made.
    pub failed: u64,
    /// Why the last that could not be made was not, until one could.
    pub last_error: Option<String>,
}

/// What a pool has, and when it tries again.
#[derive(Default)]
pub(super) struct State {
    pub(super) size: usize,
    pub(super) idle: VecDeque<Arc<Sandbox>>,
    pub(super) in_use: BTreeSet<String>,
    pub(super) filling: usize,
    /// Those that were members and are being deleted.
    pub(super) leaving: usize,
    pub(super) waiting: VecDeque<oneshot::Sender<Result<Lent, PoolError>>>,
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
    pub(super) last_error: Option<String>,
    pub(super) closed: bool,
    pub(super) created: u64,
    pub(super) lent: u64,
    pub(super) died: u64,
    pub(super) failed: u64,
}

impl State {
    pub(super) fn members(&self) -> usize {
        self.idle.len() + self.in_use.len() + self.filling
    }

    /// Says why nobody will ever hand in a sandbox, where that is so now.
    pub(super) fn cannot_fill(&self) -> Option<String> {
        // Where one leaves there is room for another.
        let is_coming = self.filling + self.leaving + self.in_use.len() + self.idle.len() > 0;
        self.last_error.clone().filter(|_| !is_coming)
    }

    /// Takes a sandbox out, wherever it is; returns whether it was a member.
    pub(super) fn take_out(&mut self, id: &str) -> bool {
        let before = self.idle.len();
        self.idle.retain(|sandbox| sandbox.id() != id);
        self.idle.len() < before || self.in_use.remove(id)
    }

    /// Notes that a sandbox could not be made, and when to try again.
    pub(super) fn not_made(&mut self, error: &CreateError) {
        self.last_error = Some(error.to_string());
        self.failed += u64::from(!error.is_temporary());
        let now = Instant::now();
        // Those that fail together are one failure.
        if self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(10));
        self.retry_at = Some(now + doubled.min(LONGEST_RETRY));
        // There may be room at any time.
        self.failures += u32::from(!error.is_temporary());
    }

    /// Returns what the pool of a name has and what became of it.
    pub(super) fn stats(&self, name: &str) -> PoolStats {
        PoolStats {
            name: name.into(),
            size: self.size,
            idle: self.idle.len(),
            in_use: self.in_use.len(),
            filling: self.filling,
            waiting: self.waiting.iter().filter(|it| !it.is_closed()).count(),
            created: self.created,
            lent: self.lent,
            died: self.died,
            failed: self.failed,
            last_error: self.last_error.clone(),
        }
    }
}
