//! A time that goes on from process to process.

use std::time::{Duration, Instant};

/// How long something is so: under earlier processes, and since then by the clock that nobody sets.
#[derive(Debug)]
pub(super) struct Elapsed {
    before: Duration,
    since: Instant,
}

impl Elapsed {
    /// Goes on after what had passed already.
    pub(super) fn after(before: Duration) -> Self {
        Self {
            before,
            since: Instant::now(),
        }
    }

    pub(super) fn get(&self) -> Duration {
        self.before.saturating_add(self.since.elapsed())
    }

    /// Counts anew.
    pub(super) fn restart(&mut self) {
        *self = Self::after(Duration::ZERO);
    }
}
