//! A sandbox that a pool handed out.

use std::{fmt, ops::Deref, sync::Arc};

use tokio::runtime::Handle;

use super::Pool;
use crate::sandbox::Sandbox;

/// A sandbox from a pool, which has it back when this is dropped.
pub struct Lent {
    pool: Arc<Pool>,
    sandbox: Option<Arc<Sandbox>>,
    runtime: Handle,
}

impl Lent {
    /// Must be called inside a runtime.
    pub(super) fn new(pool: &Arc<Pool>, sandbox: Arc<Sandbox>) -> Self {
        Self {
            pool: Arc::clone(pool),
            sandbox: Some(sandbox),
            runtime: Handle::current(),
        }
    }

    /// Takes the sandbox out: the pool does not have it back.
    pub(super) fn take(&mut self) -> Option<Arc<Sandbox>> {
        self.sandbox.take()
    }

    /// Has it replaced: it does not answer.
    pub(super) fn give_up(mut self) {
        if let Some(sandbox) = self.take() {
            self.pool.replace(&sandbox, true);
        }
    }
}

impl Deref for Lent {
    type Target = Arc<Sandbox>;

    fn deref(&self) -> &Arc<Sandbox> {
        match &self.sandbox {
            Some(sandbox) => sandbox,
            None => unreachable!("a lent sandbox is there until it is dropped"),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        if let Some(sandbox) = self.take() {
            self.pool.returned(sandbox);
        }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&self.sandbox).finish()
    }
}
