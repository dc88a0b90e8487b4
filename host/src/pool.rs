//! Pools: sandboxes that are made before they are asked for.

mod lent;
mod spec;
mod state;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};
use tracing::Instrument;

use crate::{
    manager::{CreateError, Manager, WeakManager},
    sandbox::Sandbox,
};

pub use lent::Lent;
pub use spec::{PoolSpec, Reuse, TooLarge};
pub use state::PoolStats;
use state::State;

/// How long a sandbox may take to answer before it is handed out.
const HEALTH_CHECK: Duration = Duration::from_secs(1);
/// How many sandboxes one pool makes at once.
const AT_ONCE: usize = 32;

/// Why there is no sandbox from a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// There is no such pool.
    #[error("there is no pool `{name}`")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The pool is to have no sandboxes.
    #[error("pool `{name}` is empty")]
    Empty {
        /// The pool.
        name: String,
    },
    /// None was free in time.
    #[error("pool `{name}` had no free sandbox within {}: {in_use} of {size} are in use", humantime::format_duration(*waited))]
    Busy {
        /// The pool.
        name: String,
        /// How long was waited.
        waited: Duration,
        /// How many are in use.
        in_use: usize,
        /// How many there are to be.
        size: usize,
    },
    /// No sandbox of it can be made.
    #[error("pool `{name}` cannot make a sandbox: {reason}")]
    CannotFill {
        /// The pool.
        name: String,
        /// What the last attempt ended with.
        reason: String,
    },
    /// The pool is being deleted.
    #[error("pool `{name}` is closed")]
    Closed {
        /// The pool.
        name: String,
    },
}

/// A pool of sandboxes. Those that die are replaced as long as it is there.
pub struct Pool {
    /// Weak: the manager holds its pools.
    manager: WeakManager,
    spec: PoolSpec,
    /// Whether it outlives the process by itself: one of the configuration is made by that.
    is_noted: bool,
    state: Mutex<State>,
    /// Told when nothing is being made any more.
    settled: Notify,
}

impl Pool {
    pub(crate) fn new(manager: &Manager, spec: PoolSpec, is_noted: bool) -> Arc<Self> {
        let state = State {
            size: spec.size,
            ..State::default()
        };
        Arc::new(Self {
            manager: manager.downgrade(),
            spec,
            is_noted,
            state: Mutex::new(state),
            settled: Notify::new(),
        })
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Returns what it was made from.
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// Returns what the next process makes it from, where it does.
    pub(crate) fn to_note(&self) -> Option<PoolSpec> {
        let mut spec = self.spec.clone();
        spec.size = self.state().size;
        self.is_noted.then_some(spec)
    }

    /// Takes in a sandbox of an earlier process's pool; one that may have been used is replaced where
    /// none is used twice.
    pub(crate) fn adopt(self: &Arc<Self>, sandbox: Arc<Sandbox>) {
        let mut state = self.state();
        if self.spec.reuse == Reuse::Keep && sandbox.status().takes_calls() {
            self.offer(&mut state, sandbox);
        } else {
            self.discard(&mut state, &sandbox);
        }
    }

    /// Returns what it has and what became of it.
    pub fn stats(&self) -> PoolStats {
        self.state().stats(&self.spec.name)
    }

    /// Returns the ids of its sandboxes.
    pub fn ids(&self) -> Vec<String> {
        let state = self.state();
        let idle = state.idle.iter().map(|sandbox| sandbox.id().to_owned());
        idle.chain(state.in_use.iter().cloned()).collect()
    }

    /// Makes it larger or smaller: what is missing is made, what is too much and idle is deleted.
    ///
    /// # Errors
    ///
    /// [`TooLarge`]; nothing is changed.
    pub fn resize(self: &Arc<Self>, size: usize) -> Result<(), TooLarge> {
        self.set_size(|_| size)
    }

    /// Makes it larger by so many, and tries at once again what failed.
    pub(crate) fn grow(self: &Arc<Self>, by: usize) -> Result<(), TooLarge> {
        self.set_size(|size| size.saturating_add(by))
    }

    /// Makes it smaller by so many.
    pub(crate) fn shrink(self: &Arc<Self>, by: usize) {
        // What is smaller is not too large.
        let _ = self.set_size(|size| size.saturating_sub(by));
    }

    /// Returns whether it was deleted.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    fn set_size(self: &Arc<Self>, change: impl FnOnce(usize) -> usize) -> Result<(), TooLarge> {
        {
            let mut state = self.state();
            state.size = PoolSpec::check_size(change(state.size))?;
            (state.failures, state.retry_at) = (0, None);
            while state.members() > state.size
                && let Some(sandbox) = state.idle.pop_back()
            {
                self.discard(&mut state, &sandbox);
            }
        }
        if let Some(manager) = self.manager.upgrade() {
            manager.note_pool_soon(self);
        }
        self.fill();
        Ok(())
    }

    /// Waits until nothing is being made.
    pub async fn settled(&self) {
        loop {
            let told = self.settled.notified();
            if self.state().filling == 0 {
                return;
            }
            told.await;
        }
    }

    /// Takes a sandbox, the first that is free; callers are served in the order in which they came.
    ///
    /// # Errors
    ///
    /// [`PoolError`]: none was free in time, or none can be made.
    pub async fn acquire(self: &Arc<Self>, wait: Duration) -> Result<Lent, PoolError> {
        let until = Instant::now() + wait.min(Duration::from_secs(365 * 24 * 3600));
        loop {
            let lent = self.next(wait, until).await?;
            if self.is_healthy(&lent).await {
                self.state().lent += 1;
                return Ok(lent);
            }
            lent.give_up();
        }
    }

    async fn next(self: &Arc<Self>, wait: Duration, until: Instant) -> Result<Lent, PoolError> {
        let name = || self.spec.name.clone();
        let receiver = {
            let mut state = self.state();
            if state.closed {
                return Err(PoolError::Closed { name: name() });
            }
            if state.size == 0 {
                return Err(PoolError::Empty { name: name() });
            }
            if state.waiting.is_empty()
                && let Some(sandbox) = state.idle.pop_front()
            {
                return Ok(self.lend(&mut state, sandbox));
            }
            if let Some(reason) = state.cannot_fill() {
                drop(state);
                self.fill();
                return Err(PoolError::CannotFill {
                    name: name(),
                    reason,
                });
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(sender);
            receiver
        };
        match tokio::time::timeout_at(until, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(PoolError::Closed { name: name() }),
            Err(_) => {
                let mut state = self.state();
                state.waiting.retain(|sender| !sender.is_closed());
                Err(PoolError::Busy {
                    name: name(),
                    waited: wait,
                    in_use: state.in_use.len(),
                    size: state.size,
                })
            }
        }
    }

    fn lend(self: &Arc<Self>, state: &mut State, sandbox: Arc<Sandbox>) -> Lent {
        state.in_use.insert(sandbox.id().into());
        sandbox.park(false);
        Lent::new(self, sandbox)
    }

    /// Asks a sandbox for a sign of life.
    async fn is_healthy(&self, sandbox: &Arc<Sandbox>) -> bool {
        if !sandbox.status().takes_calls() {
            return false;
        }
        match timeout(HEALTH_CHECK, sandbox.stat("/")).await {
            // One without files answers that it has none.
            Ok(Err(_)) => sandbox.status().takes_calls(),
            Ok(Ok(_)) => true,
            Err(_) => false,
        }
    }

    /// Makes what is missing in the background, many at once; tells those who wait for nothing.
    pub(crate) fn fill(self: &Arc<Self>) {
        let missing = self.count_in(&mut self.state());
        self.begin(missing);
    }

    /// Counts in those that are to be made now.
    fn count_in(&self, state: &mut State) -> usize {
        let waits = state.retry_at.is_some_and(|at| at > Instant::now());
        let missing = if state.closed || waits {
            0
        } else {
            let missing = state.size.saturating_sub(state.members());
            missing.min(AT_ONCE.saturating_sub(state.filling))
        };
        state.filling += missing;
        self.turn_away(state);
        if state.filling == 0 {
            self.settled.notify_waiters();
        }
        missing
    }

    /// Makes so many that were counted in.
    fn begin(self: &Arc<Self>, count: usize) {
        for _ in 0..count {
            let pool = Arc::clone(self);
            let filling = async move {
                let made = match pool.manager.upgrade() {
                    Some(manager) => manager.create_in_turn(pool.spec.request()).await,
                    None => Err(CreateError::ShuttingDown),
                };
                pool.made(made);
            };
            tokio::spawn(filling.in_current_span());
        }
    }

    fn made(self: &Arc<Self>, made: Result<Arc<Sandbox>, CreateError>) {
        let mut state = self.state();
        state.filling -= 1;
        match made {
            Ok(sandbox) if state.closed || state.members() >= state.size => {
                self.discard(&mut state, &sandbox);
            }
            Ok(sandbox) => {
                state.created += 1;
                state.failures = 0;
                (state.last_error, state.retry_at) = (None, None);
                self.offer(&mut state, sandbox);
            }
            Err(error) => {
                tracing::warn!(pool = self.spec.name, "cannot make a sandbox: {error}");
                state.not_made(&error);
            }
        }
        // With the lock held: it never looks as if nothing were being made between two.
        let missing = self.count_in(&mut state);
        drop(state);
        self.begin(missing);
    }

    /// Tells those who wait that nothing will come, where that is so.
    fn turn_away(&self, state: &mut State) {
        if state.waiting.is_empty() {
            return;
        }
        let name = self.spec.name.clone();
        let error = match state.cannot_fill() {
            _ if state.size == 0 => PoolError::Empty { name },
            Some(reason) => PoolError::CannotFill { name, reason },
            None => return,
        };
        for waiter in state.waiting.drain(..) {
            // One that gave up waiting needs no answer.
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// Hands a sandbox to whoever waits longest, else keeps it.
    fn offer(self: &Arc<Self>, state: &mut State, sandbox: Arc<Sandbox>) {
        while let Some(waiter) = state.waiting.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            let lent = self.lend(state, Arc::clone(&sandbox));
            match waiter.send(Ok(lent)) {
                Ok(()) => return,
                // It gave up just now: the next one gets it, and from this one it does not come back.
                Err(Ok(mut lent)) => {
                    drop(lent.take());
                    state.in_use.remove(sandbox.id());
                }
                Err(Err(_)) => {}
            }
        }
        sandbox.park(true);
        state.idle.push_back(sandbox);
    }

    fn returned(self: &Arc<Self>, sandbox: Arc<Sandbox>) {
        match self.spec.reuse {
            Reuse::Keep => self.take_back(sandbox),
            Reuse::Replace => {
                self.replace(&sandbox, false);
            }
            Reuse::Reset => {
                let pool = Arc::clone(self);
                tokio::spawn(async move {
                    match sandbox.reset().await {
                        Ok(()) => pool.take_back(sandbox),
                        Err(error) => {
                            tracing::debug!(sandbox = sandbox.id(), "replaced, not reset: {error}");
                            pool.replace(&sandbox, false);
                        }
                    }
                });
            }
        }
    }

    fn take_back(self: &Arc<Self>, sandbox: Arc<Sandbox>) {
        {
            let mut state = self.state();
            // One that somebody deleted meanwhile is no member any more.
            if !state.in_use.remove(sandbox.id()) {
                return;
            }
            if state.closed || state.members() >= state.size {
                self.discard(&mut state, &sandbox);
            } else if sandbox.status().takes_calls() {
                self.offer(&mut state, sandbox);
            } else {
                state.died += 1;
                self.discard(&mut state, &sandbox);
            }
        }
        self.fill();
    }

    /// Deletes a sandbox and makes another; returns whether it was a member.
    pub(crate) fn replace(self: &Arc<Self>, sandbox: &Arc<Sandbox>, died: bool) -> bool {
        {
            let mut state = self.state();
            if !state.take_out(sandbox.id()) {
                return false;
            }
            state.died += u64::from(died);
            self.discard(&mut state, sandbox);
        }
        self.fill();
        true
    }

    /// Deletes a sandbox that is no member any more, in the background.
    fn discard(self: &Arc<Self>, state: &mut State, sandbox: &Arc<Sandbox>) {
        let Some(manager) = self.manager.upgrade() else {
            return;
        };
        state.leaving += 1;
        let (pool, sandbox) = (Arc::clone(self), Arc::clone(sandbox));
        let leaving = async move {
            if let Err(error) = manager.remove(sandbox).await {
                tracing::warn!("{error}");
            }
            pool.left();
        };
        tokio::spawn(leaving.in_current_span());
    }

    /// Notes that one is gone that was a member: there may be room for another now.
    fn left(self: &Arc<Self>) {
        let mut state = self.state();
        state.leaving -= 1;
        if state.failures == 0 {
            state.retry_at = None;
        }
        drop(state);
        self.fill();
    }

    /// Replaces those that died while nobody used them, and tries again what failed.
    pub(crate) fn tend(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.waiting.retain(|waiter| !waiter.is_closed());
            let (alive, dead): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.idle)
                .into_iter()
                .partition(|sandbox| sandbox.status().takes_calls());
            state.idle = alive;
            for sandbox in &dead {
                state.died += 1;
                self.discard(&mut state, sandbox);
            }
        }
        self.fill();
    }

    /// Makes the pool smaller by a sandbox that somebody deletes; returns whether it was a member.
    pub(crate) fn forget(self: &Arc<Self>, id: &str) -> bool {
        let mut state = self.state();
        if !state.take_out(id) {
            return false;
        }
        state.size = state.size.saturating_sub(1);
        self.turn_away(&mut state);
        true
    }

    /// Hands out nothing any more, and deletes what is idle; what is in use is deleted when it comes back.
    pub(crate) fn close(self: &Arc<Self>) {
        let mut state = self.state();
        state.closed = true;
        // Whoever waits is told by the end of its channel.
        state.waiting.clear();
        for sandbox in std::mem::take(&mut state.idle) {
            self.discard(&mut state, &sandbox);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
