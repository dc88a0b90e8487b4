//! Being asked to end by a signal: cases that run are killed, and nothing of them is left.

use std::{process, sync::LazyLock, thread};

use anyhow::Result;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// The exit code of a run that was interrupted, as shells have it for SIGINT.
pub const INTERRUPTED: u8 = 130;

static ASKED: LazyLock<watch::Sender<bool>> = LazyLock::new(watch::Sender::default);

/// Takes SIGINT, SIGTERM and SIGHUP for a wish to end from now on; the second ends at once.
///
/// # Errors
///
/// The system has no thread or no signals for it.
pub fn listen() -> Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    let mut next = async move || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "who asks twice does not want to wait for the rest"
    )]
    let waiting = async move {
        next().await;
        ASKED.send_replace(true);
        next().await;
        process::exit(INTERRUPTED.into());
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || runtime.block_on(waiting))?;
    Ok(())
}

/// Whether somebody asked.
pub fn is_asked() -> bool {
    *ASKED.borrow()
}

/// Waits until somebody asks.
pub(crate) async fn asked() {
    // The sender is never dropped.
    let _ = ASKED.subscribe().wait_for(|asked| *asked).await;
}
