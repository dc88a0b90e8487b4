//! The tables, and reading them whole.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use rusqlite::{Connection, types::FromSqlError};
use serde::de::DeserializeOwned;

use super::{Contents, Found, SavedSandbox, StoreError, connect, sqlite};
use crate::{pool::PoolSpec, sandbox::Event};

/// Each brings a store from the version of its place to the next.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE sandboxes (
        id TEXT PRIMARY KEY,
        document TEXT NOT NULL,
        status TEXT NOT NULL,
        metadata TEXT NOT NULL,
        state TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        sandbox TEXT NOT NULL REFERENCES sandboxes ON DELETE CASCADE,
        time_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        data TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_of ON events (sandbox);
    CREATE TABLE pools (name TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT, WITHOUT ROWID;
"];

/// Opens a store and brings it to the latest version.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = |source| sqlite("open", path, source);
    // Looked at before anything is written: a later version may mean something else by all of it.
    let mut connection = Connection::open(path).map_err(failed)?;
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let Some(missing) = usize::try_from(found)
        .ok()
        .and_then(|at| MIGRATIONS.get(at..))
    else {
        return Err(StoreError::Newer {
            path: path.into(),
            found,
            known,
        });
    };
    drop(std::mem::replace(
        &mut connection,
        connect(path).map_err(failed)?,
    ));
    let migrate = |connection: &mut Connection| {
        let transaction = connection.transaction()?;
        for step in missing {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", known)?;
        transaction.commit()
    };
    migrate(&mut connection).map_err(failed)?;
    Ok(connection)
}

/// Reads everything.
pub(super) fn read(connection: &mut Connection, path: &Path) -> Result<Contents, StoreError> {
    contents(connection).map_err(|source| sqlite("read", path, source))
}

fn contents(connection: &mut Connection) -> rusqlite::Result<Contents> {
    let transaction = connection.transaction()?;
    let mut events: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    let mut query =
        transaction.prepare("SELECT sandbox, time_ms, kind, data FROM events ORDER BY rowid")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let since = Duration::from_millis(u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0));
        events.entry(row.get(0)?).or_default().push(Event {
            time: UNIX_EPOCH + since,
            kind: row.get(2)?,
            data: document(&row.get::<_, String>(3)?)?,
        });
    }
    let mut contents = Contents::default();
    let mut query = transaction
        .prepare("SELECT document, status, metadata, state FROM sandboxes ORDER BY id")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let sandbox: SavedSandbox = document(&row.get::<_, String>(0)?)?;
        let state: Option<String> = row.get(3)?;
        contents.sandboxes.push(Found {
            events: events.remove(&sandbox.id).unwrap_or_default(),
            sandbox,
            status: row.get(1)?,
            metadata: document(&row.get::<_, String>(2)?)?,
            state: state.as_deref().map(document).transpose()?,
        });
    }
    let mut query = transaction.prepare("SELECT spec FROM pools ORDER BY name")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        contents
            .pools
            .push(document::<PoolSpec>(&row.get::<_, String>(0)?)?);
    }
    Ok(contents)
}

fn document<T: DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| FromSqlError::Other(Box::new(error)).into())
}
