//! The signals that a verb which runs for long listens to.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit;

/// Ctrl-C, SIGTERM and SIGHUP. Each that comes while nobody waits is kept for the next who does.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens: from now on none of them ends the process by itself.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for any of them; returns the exit code that stands for it.
    pub(super) async fn any(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => exit::INTERRUPTED,
            _ = self.terminate.recv() => exit::TERMINATED,
            _ = self.hangup.recv() => exit::HUNG_UP,
        }
    }

    /// Waits for one that asks for the end whoever is asked: Ctrl-C or SIGTERM.
    pub(super) async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
