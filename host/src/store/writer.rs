//! The one thread that writes.

use std::{
    path::Path,
    sync::mpsc::Receiver,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{Change, StoreError, sqlite};

/// How many changes share a transaction at most.
const TOGETHER: usize = 1000;
/// Older events of a sandbox than so many are forgotten.
const EVENTS_KEPT: u32 = 1000;

/// A change, and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) change: Change,
    pub(super) done: Option<oneshot::Sender<Result<(), StoreError>>>,
}

/// Makes changes until nobody can ask for one any more.
pub(super) fn run(mut connection: Connection, path: &Path, work: &Receiver<Job>) {
    while let Ok(first) = work.recv() {
        let mut jobs = vec![first];
        jobs.extend(work.try_iter().take(TOGETHER - 1));
        if write(&mut connection, jobs.iter().map(|job| &job.change)).is_ok() {
            for job in jobs {
                answer(job, Ok(()));
            }
            continue;
        }
        // One by one: what can be written is, and the others are told why not.
        for job in jobs {
            let written = write(&mut connection, [&job.change].into_iter());
            let written = written.map_err(|source| sqlite("write", path, source));
            answer(job, written);
        }
    }
}

fn answer(job: Job, written: Result<(), StoreError>) {
    match (job.done, written) {
        // One that gave up waiting has its change all the same.
        (Some(done), written) => drop(done.send(written)),
        (None, Err(error)) => tracing::error!("{error}"),
        (None, Ok(())) => {}
    }
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
                params![id, EVENTS_KEPT],
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
