//! The end of sandboxes whose time is over.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use super::Manager;

/// How often it is looked whose time is over.
const TICK: Duration = Duration::from_secs(1);

/// Deletes sandboxes whose time is over, as long as their manager is there.
///
/// Must be called inside a runtime.
pub(super) fn run(manager: &Manager) {
    let manager = Arc::downgrade(&manager.0);
    tokio::spawn(async move {
        let mut ticks = interval(TICK);
        // Nobody's time is over twice.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match Weak::upgrade(&manager) {
                Some(inner) => reap(&Manager(inner)),
                None => return,
            }
        }
    });
}

/// Begins to delete what is over; one that hangs holds up nobody else.
fn reap(manager: &Manager) {
    let pools = manager.pools();
    for pool in &pools {
        pool.tend();
    }
    for sandbox in manager.list() {
        let Some(reason) = sandbox.expire() else {
            continue;
        };
        tracing::info!(sandbox = sandbox.id(), "deleted: {reason}");
        // A pool is as large as before, and has a younger one instead.
        if !pools.iter().any(|pool| pool.replace(&sandbox, true)) {
            manager.remove_soon(sandbox);
        }
    }
}
