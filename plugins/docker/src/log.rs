//! What a sandbox's own command printed, the last of it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use boxyard_plugin_api::{Chunk, LogRequest, Sink, prelude::*};
use tokio::sync::watch;

/// How much is kept, in bytes; what is older is forgotten.
const KEPT: usize = 1024 * 1024;

/// The output of one command, kept up to a bound.
#[derive(Debug)]
pub(crate) struct Log {
    kept: Mutex<Kept>,
    /// Changes with everything that is written, and with the end.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// How much was written in all.
    written: u64,
    ended: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Log {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an end to write to.
    pub(crate) fn writer(self: &Arc<Self>) -> impl Sink + use<> {
        Writer(Arc::clone(self))
    }

    fn write(&self, bytes: &[u8]) {
        {
            let mut kept = self.kept();
            kept.bytes.extend(bytes);
            kept.written += bytes.len() as u64;
            let surplus = kept.bytes.len().saturating_sub(KEPT);
            kept.bytes.drain(..surplus);
        }
        self.changed.send_replace(());
    }

    /// Notes that no more will come.
    pub(crate) fn end(&self) {
        self.kept().ended = true;
        self.changed.send_replace(());
    }

    /// Copies what was written, and what will be if that is asked for.
    ///
    /// # Errors
    ///
    /// The reader is gone, or the caller asked to stop.
    pub(crate) async fn copy(
        &self,
        request: &LogRequest,
        to: &ByteSink,
        call: &Call,
    ) -> Result<()> {
        let mut changed = self.changed.subscribe();
        let mut next = self.start(request.tail);
        loop {
            let (bytes, at, ended) = self.from(next);
            next = at;
            if !bytes.is_empty() {
                to.write(bytes).await?;
                continue;
            }
            if ended || !request.follow {
                return to.finish().await;
            }
            let more = async {
                // The sender is ours.
                let _ = changed.changed().await;
                Ok(())
            };
            call.unless_cancelled(more).await?;
        }
    }

    /// Where the last lines begin, counted from the first byte that was ever written.
    fn start(&self, lines: Option<u64>) -> u64 {
        let kept = self.kept();
        let first = kept.written - kept.bytes.len() as u64;
        let Some(lines) = lines else {
            return first;
        };
        let newlines = kept.bytes.iter().rev().enumerate().skip(1);
        let newlines = newlines.filter(|(_, byte)| **byte == b'\n');
        let lines = usize::try_from(lines).unwrap_or(usize::MAX);
        match (lines.checked_sub(1), newlines.map(|(back, _)| back as u64)) {
            (None, _) => kept.written,
            (Some(before), mut newlines) => match newlines.nth(before) {
                Some(back) => kept.written - back,
                None => first,
            },
        }
    }

    /// What there is from a place on, where that ends, and whether it is the end.
    fn from(&self, next: u64) -> (Vec<u8>, u64, bool) {
        let kept = self.kept();
        let first = kept.written - kept.bytes.len() as u64;
        let skip = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
        let bytes = kept.bytes.iter().skip(skip).take(64 * 1024).copied();
        let bytes: Vec<u8> = bytes.collect();
        let at = next.max(first) + bytes.len() as u64;
        (bytes, at, kept.ended)
    }
}

struct Writer(Arc<Log>);

impl Sink for Writer {
    async fn write(&self, chunk: Chunk) -> Result<()> {
        self.0.write(&chunk);
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use boxyard_plugin_api::{CallController, pipe};

    use super::*;

    async fn read(log: &Log, request: LogRequest) -> String {
        let (sink, source) = pipe();
        let call = CallController::new(0).call();
        let (copied, bytes) = tokio::join!(
            log.copy(&request, &sink, &call),
            source.read_to_end(usize::MAX)
        );
        copied.unwrap();
        String::from_utf8(bytes.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_last_lines_are_read_whole() {
        let log = Log::default();
        log.write(b"one\ntwo\nthree\n");
        for (tail, expected) in [
            (None, "one\ntwo\nthree\n"),
            (Some(0), ""),
            (Some(1), "three\n"),
            (Some(2), "two\nthree\n"),
            (Some(9), "one\ntwo\nthree\n"),
        ] {
            let request = LogRequest::default().tail(tail);
            assert_eq!(read(&log, request).await, expected, "{tail:?}");
        }
    }

    #[tokio::test]
    async fn who_follows_reads_to_the_end_and_no_further_than_what_is_kept() {
        let log = Arc::new(Log::default());
        log.write(&vec![b'x'; KEPT + 7]);
        let request = LogRequest::default().follow(true);
        let writing = async {
            tokio::task::yield_now().await;
            log.write(b"last");
            log.end();
        };
        let (text, ()) = tokio::join!(read(&log, request), writing);
        assert!(text.ends_with("last"));
        assert!(text.len() <= KEPT + 4, "{}", text.len());
    }
}
