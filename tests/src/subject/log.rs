//! What the host's log got while a case ran, its plugin's lines included.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use tracing::level_filters::LevelFilter;

/// More than this is not kept: a case looks for words, and does not store.
const MAX_BYTES: usize = 8 * 1024 * 1024;

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Keeps what is logged from now on, every level of it.
pub(crate) fn keep() {
    let kept = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(|| Kept)
        .finish();
    // There is one only in the process of a case, which begins with this.
    let _ = tracing::subscriber::set_global_default(kept);
}

/// Returns what was logged.
pub(crate) fn lines() -> Vec<String> {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let text = String::from_utf8_lossy(&log);
    text.lines().map(str::to_owned).collect()
}

struct Kept;

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() < MAX_BYTES {
            log.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
