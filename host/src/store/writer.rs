//! The one thread that writes.

use std::{
    iter,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{Change, StoreError, sqlite};
use crate::sandbox::EVENTS_KEPT;

/// How many changes share a transaction at most, beside the first.
const TOGETHER: usize = 999;
/// How long to wait before what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// No event is kept to be written later where so much is.
const LATE_EVENTS: usize = 10_000;

/// A change, and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) change: Change,
    pub(super) done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

/// Makes changes until nobody can ask for one any more.
pub(super) fn run(connection: Connection, path: &Path, work: &Receiver<Job>) {
    let mut writer = Writer {
        connection,
        path,
        late: Vec::new(),
        tried: Instant::now(),
    };
    loop {
        let first = if writer.late.is_empty() {
            work.recv().map_err(RecvTimeoutError::from)
        } else {
            work.recv_timeout(RETRY)
        };
        let has_caught_up = writer.late.is_empty() || writer.catch_up_again();
        match first {
            Ok(job) if has_caught_up => {
                writer.make(iter::once(job).chain(work.try_iter().take(TOGETHER)));
            }
            Ok(job) => writer.make_one(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

struct Writer<'a> {
    connection: Connection,
    path: &'a Path,
    /// What could not be written and must be, in the order in which it came.
    late: Vec<Change>,
    /// When that was tried last.
    tried: Instant,
}

impl Writer<'_> {
    /// Makes changes in one transaction, or else those that can be made.
    fn make(&mut self, jobs: impl Iterator<Item = Job>) {
        let jobs: Vec<Job> = jobs.collect();
        if write(&mut self.connection, jobs.iter().map(|job| &job.change)).is_ok() {
            for done in jobs.into_iter().filter_map(|job| job.done) {
                // One that gave up waiting has its change all the same.
                let _ = done.send(Ok(()));
            }
            return;
        }
        for job in jobs {
            self.make_one(job);
        }
    }

    /// Makes one change. Who waits for it is told why it cannot be made, and takes back what it was
    /// for; what nobody takes back is late.
    fn make_one(&mut self, Job { change, done }: Job) {
        let Some(done) = done else {
            if !self.late.is_empty() || self.write_one(&change).is_err_and(log) {
                self.keep(change);
            }
            return;
        };
        let written = match change {
            // It stands for all before it.
            Change::Nothing => self.catch_up(),
            _ => self.write_one(&change),
        };
        match written {
            // Written later, they would undo it.
            Ok(()) => self.late.retain(|earlier| !change.replaces(earlier)),
            // What is gone cannot be taken back.
            Err(_) if matches!(change, Change::Remove { .. }) => self.keep(change),
            Err(_) => {}
        }
        // As above.
        let _ = done.send(written);
    }

    fn keep(&mut self, change: Change) {
        // The last says it all.
        self.late.retain(|earlier| !change.replaces(earlier));
        // Events are worth least, and there may be any number of them.
        if self.late.len() < LATE_EVENTS || !matches!(change, Change::Event { .. }) {
            self.late.push(change);
        }
    }

    /// Makes what is late, where that was not tried just now; returns whether nothing is.
    fn catch_up_again(&mut self) -> bool {
        self.tried.elapsed() >= RETRY && self.catch_up().is_ok()
    }

    /// Makes what is late.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        self.tried = Instant::now();
        write(&mut self.connection, self.late.iter())
            .map_err(|source| sqlite("write", self.path, source))?;
        self.late.clear();
        Ok(())
    }

    fn write_one(&mut self, change: &Change) -> Result<(), StoreError> {
        let written = write(&mut self.connection, iter::once(change));
        written.map_err(|source| sqlite("write", self.path, source))
    }
}

/// Says that something is late.
fn log(error: StoreError) -> bool {
    tracing::error!("{error}; it is tried again until it can be written");
    true
}

fn write<'a>(
    connection: &mut Connection,
    changes: impl Iterator<Item = &'a Change>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for change in changes {
        apply(&transaction, change)?;
    }
    transaction.commit()
}

fn apply(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        transaction.prepare_cached(sql)?.execute(values).map(drop)
    };
    match change {
        Change::Insert(sandbox) => run(
            "INSERT INTO sandboxes (id, document, status, metadata) VALUES (?1, ?2, 'initializing', '{}')",
            params![sandbox.id, text(sandbox)?],
        ),
        Change::Status { id, status } => run(
            "UPDATE sandboxes SET status = ?2 WHERE id = ?1",
            params![id, status],
        ),
        Change::Metadata { id, metadata } => run(
            "UPDATE sandboxes SET metadata = ?2 WHERE id = ?1",
            params![id, metadata],
        ),
        Change::State { id, state } => run(
            "UPDATE sandboxes SET state = ?2 WHERE id = ?1",
            params![id, text(state)?],
        ),
        Change::Event { id, event } => {
            // A sandbox that is gone has no history.
            run(
                "INSERT INTO events (sandbox, time_ms, kind, data)
                 SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM sandboxes WHERE id = ?1)",
                params![id, milliseconds(event.time), event.kind, text(&event.data)?],
            )?;
            run(
                "DELETE FROM events WHERE sandbox = ?1 AND rowid <= (
                 SELECT rowid FROM events WHERE sandbox = ?1 ORDER BY rowid DESC LIMIT 1 OFFSET ?2)",
                params![id, i64::try_from(EVENTS_KEPT).unwrap_or(i64::MAX)],
            )
        }
        Change::Remove { id } => run("DELETE FROM sandboxes WHERE id = ?1", params![id]),
        Change::PutPool(spec) => run(
            "INSERT INTO pools (name, spec) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET spec = excluded.spec",
            params![spec.name, text(spec)?],
        ),
        Change::RemovePool { name } => run("DELETE FROM pools WHERE name = ?1", params![name]),
        Change::Nothing => Ok(()),
    }
}

fn text(document: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(document)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pool::PoolSpec, store::tables};

    fn put(size: usize) -> Change {
        Change::PutPool(Box::new(PoolSpec::new("p", "docker", size)))
    }

    fn remove() -> Change {
        Change::RemovePool { name: "p".into() }
    }

    fn check(test: impl FnOnce(&mut Writer<'_>)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        test(&mut Writer {
            connection: tables::open(&path).unwrap(),
            path: &path,
            late: Vec::new(),
            tried: Instant::now(),
        });
    }

    #[test]
    fn of_what_is_late_about_a_pool_the_last_is_kept() {
        check(|writer| {
            for change in [put(1), put(2), remove(), put(3), remove()] {
                writer.keep(change);
            }
            writer.keep(Change::RemovePool { name: "q".into() });
            let pools: Vec<_> = writer.late.iter().map(Change::pool).collect();
            assert_eq!(pools, [Some("p"), Some("q")]);
            assert!(matches!(writer.late[0], Change::RemovePool { .. }));
        });
    }

    #[test]
    fn what_is_late_does_not_undo_what_was_written_after_it() {
        check(|writer| {
            writer.keep(remove());
            let (done, mut told) = oneshot::channel();
            writer.make_one(Job {
                change: put(7),
                done: Some(done),
            });
            assert!(matches!(told.try_recv(), Ok(Ok(()))));
            writer.catch_up().unwrap();
            let contents = tables::read(&mut writer.connection, writer.path).unwrap();
            assert_eq!(contents.pools[0].size, 7);
        });
    }
}
