//! The output of a command that is kept: the head and the tail, and what was cut between.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use boxyard_plugin_api::{ByteSink, Chunk, CommandExit, Result, Sink};

/// A command's end with its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandResult {
    /// How it ended.
    pub exit: CommandExit,
    /// What it wrote to standard output; the head and the tail of it where it is cut.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error; the head and the tail of it where it is cut.
    pub stderr: Vec<u8>,
    /// Whether either is cut.
    pub truncated: bool,
}

impl CommandResult {
    /// Returns standard output as text; what is no UTF-8 is replaced.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Returns standard error as text; what is no UTF-8 is replaced.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Keeps the head and the tail of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Capture(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    limit: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    cut: u64,
}

impl Capture {
    /// Keeps at most `limit` bytes: one half from the start, the rest from the end.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Kept {
            limit,
            head: Vec::new(),
            tail: VecDeque::new(),
            cut: 0,
        })))
    }

    pub(crate) fn sink(&self) -> ByteSink {
        ByteSink::new(self.clone())
    }

    /// Returns what is kept, with a line that says how much is missing, and whether any is.
    pub(crate) fn take(&self) -> (Vec<u8>, bool) {
        let mut kept = self.kept();
        let mut bytes = std::mem::take(&mut kept.head);
        if kept.cut > 0 {
            bytes.extend_from_slice(format!("\n[boxyard: {} bytes cut]\n", kept.cut).as_bytes());
        }
        bytes.extend(kept.tail.drain(..));
        (bytes, kept.cut > 0)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        let head_limit = self.limit / 2;
        let tail_limit = self.limit - head_limit;
        let room = head_limit.saturating_sub(self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        self.head.extend_from_slice(head);
        let (lost, rest) = rest.split_at(rest.len().saturating_sub(tail_limit));
        let overflow = (self.tail.len() + rest.len()).saturating_sub(tail_limit);
        self.tail.drain(..overflow);
        self.tail.extend(rest);
        self.cut += (lost.len() + overflow) as u64;
    }
}

impl Sink for Capture {
    async fn write(&self, chunk: Chunk) -> Result<()> {
        self.kept().push(&chunk);
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(limit: usize, pieces: &[&[u8]]) -> (String, bool) {
        let capture = Capture::new(limit);
        for piece in pieces {
            capture.kept().push(piece);
        }
        let (bytes, truncated) = capture.take();
        (String::from_utf8(bytes).unwrap(), truncated)
    }

    #[test]
    fn what_fits_is_kept_whole() {
        assert_eq!(
            kept(8, &[b"ab", b"cdef", b"gh"]),
            ("abcdefgh".into(), false)
        );
        assert_eq!(kept(8, &[]), (String::new(), false));
    }

    #[test]
    fn what_does_not_fit_keeps_its_head_and_tail_and_says_so() {
        let expected = ("abcd\n[boxyard: 4 bytes cut]\nijkl".to_owned(), true);
        assert_eq!(kept(8, &[b"abcdefghijkl"]), expected);
        assert_eq!(kept(8, &[b"a", b"bcdefg", b"h", b"ijkl"]), expected);
        assert_eq!(
            kept(0, &[b"abc"]),
            ("\n[boxyard: 3 bytes cut]\n".into(), true)
        );
    }
}
