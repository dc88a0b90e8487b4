//! The store: what must outlive the process. SQLite, written by one thread.
//!
//! Whoever needs a change to be on disk waits for it; changes that come together share one
//! transaction. Running a command never comes here.

mod tables;
mod writer;

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc::{self, Sender},
};

use boxyard_plugin_api::State;
use rusqlite::{Connection, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::{
    lease::{self, Lease},
    pool::PoolSpec,
    sandbox::Event,
};

use writer::Job;

/// The store's file in its directory.
const FILE: &str = "boxyard.db";
/// The lease of whichever process has the store.
const LEASE: &str = "lease";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be used.
    #[error("cannot use the store in {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the store in {} is in use by another host: end that one, or name another directory with `store`", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A later Boxyard wrote it.
    #[error("the store {} has schema version {found}, and this version knows {known}: run the Boxyard that wrote it, or a later one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest that is known.
        known: i64,
    },
    /// It is no store, or damaged.
    #[error("the store {} is damaged or no store at all: {source}; move it away to start with an empty one, which knows none of its sandboxes", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// It cannot be read or written.
    #[error("cannot {step} the store {}: {source}{}", path.display(), advice(source))]
    Sqlite {
        /// `open`, `read` or `write`.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Its thread has ended.
    #[error("the store is closed")]
    Closed,
}

fn advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "; make room on its disk",
        Some(ErrorCode::ReadOnly) => "; it must be writable",
        _ => "",
    }
}

/// What is kept of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedSandbox {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    pub(crate) sandbox_type: String,
    pub(crate) config: Value,
    pub(crate) tools: Option<Map<String, Value>>,
    pub(crate) pool: Option<String>,
    pub(crate) created_ms: u64,
    pub(crate) ttl_ms: u64,
    pub(crate) idle_ms: Option<u64>,
    pub(crate) ended_ms: u64,
    #[serde(default)]
    pub(crate) keep: bool,
}

/// A sandbox as the store has it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) sandbox: SavedSandbox,
    pub(crate) status: String,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) state: Option<State>,
    pub(crate) events: Vec<Event>,
}

/// Everything that the store has.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) sandboxes: Vec<Found>,
    pub(crate) pools: Vec<PoolSpec>,
}

/// A store that was opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Store,
    /// Held as long as the store is used.
    pub(crate) lease: Lease,
    pub(crate) contents: Contents,
}

/// One change.
#[derive(Debug)]
pub(crate) enum Change {
    Insert(Box<SavedSandbox>),
    Status {
        id: String,
        status: &'static str,
    },
    Metadata {
        id: String,
        metadata: String,
    },
    State {
        id: String,
        state: State,
    },
    Event {
        id: String,
        event: Event,
    },
    Remove {
        id: String,
    },
    PutPool(Box<PoolSpec>),
    RemovePool {
        name: String,
    },
    /// None: for whoever waits for all before it.
    Nothing,
}

impl Change {
    /// Whether an earlier change need not be made where this one is.
    fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Status { id, .. }, Self::Status { id: of, .. })
            | (Self::Metadata { id, .. }, Self::Metadata { id: of, .. })
            | (Self::State { id, .. }, Self::State { id: of, .. }) => id == of,
            (
                Self::PutPool(_) | Self::RemovePool { .. },
                Self::PutPool(_) | Self::RemovePool { .. },
            ) => self.pool() == earlier.pool(),
            _ => false,
        }
    }

    /// Returns the name of the pool that it is about.
    fn pool(&self) -> Option<&str> {
        match self {
            Self::PutPool(spec) => Some(&spec.name),
            Self::RemovePool { name } => Some(name),
            _ => None,
        }
    }
}

/// The line to the store. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    jobs: Sender<Job>,
}

impl Store {
    /// Opens the store in a directory, which no other process has, and reads what it has.
    pub(crate) fn open(directory: &Path) -> Result<Opened, StoreError> {
        let path = directory.join(FILE);
        let unusable = |source| StoreError::Directory {
            path: directory.into(),
            source,
        };
        // It holds what sandboxes have in their environments.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(unusable)?;
        // What is made under the store's lease is the store's, whichever process made it.
        let id = lease::host_id(directory).map_err(unusable)?;
        let lease = Lease::of_store(&directory.join(LEASE), &id).map_err(unusable)?;
        let lease = lease.ok_or_else(|| StoreError::InUse {
            path: directory.into(),
        })?;
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        let mut connection = tables::open(&path)?;
        let contents = tables::read(&mut connection, &path)?;
        let (jobs, work) = mpsc::channel();
        std::thread::Builder::new()
            .name("boxyard-store".into())
            .spawn(move || writer::run(connection, &path, &work))
            .map_err(unusable)?;
        Ok(Opened {
            store: Self { jobs },
            lease,
            contents,
        })
    }

    /// Makes a change some time soon, after all that were asked for before.
    pub(crate) fn note(&self, change: Change) {
        // Without its thread the process is ending.
        let _ = self.jobs.send(Job { change, done: None });
    }

    /// Makes a change; it is on disk when this returns, with all that were asked for before and could
    /// be written. What could not be, on a full disk, is tried again until it can: to wait for that too,
    /// make [`Change::Nothing`].
    pub(crate) async fn make(&self, change: Change) -> Result<(), StoreError> {
        let (done, told) = oneshot::channel();
        let job = Job {
            change,
            done: Some(done),
        };
        self.jobs.send(job).map_err(|_| StoreError::Closed)?;
        told.await.unwrap_or(Err(StoreError::Closed))
    }
}

fn sqlite(step: &'static str, path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.into();
    match source.sqlite_error_code() {
        // Without a code it is a value that says nothing to us. Not passed over: what became of its sandbox
        // would be known to nobody, and swept.
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) | None => {
            StoreError::Damaged { path, source }
        }
        _ => StoreError::Sqlite { step, path, source },
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // An answered id must outlive a power cut too.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(id: &str) -> SavedSandbox {
        SavedSandbox {
            id: id.into(),
            name: String::new(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            sandbox_type: "docker".into(),
            config: serde_json::json!({ "image": "x" }),
            tools: None,
            pool: None,
            created_ms: 1,
            ttl_ms: 2,
            idle_ms: None,
            ended_ms: 3,
            keep: true,
        }
    }

    #[tokio::test]
    async fn what_was_made_is_there_when_it_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let Opened {
            store,
            lease,
            contents,
        } = Store::open(directory.path()).unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert!(contents.sandboxes.is_empty());
        store
            .make(Change::Insert(Box::new(sandbox("one"))))
            .await
            .unwrap();
        store
            .make(Change::Insert(Box::new(sandbox("two"))))
            .await
            .unwrap();
        let state = State::new(1, &"document").unwrap();
        let id = || "one".to_owned();
        store.note(Change::State {
            id: id(),
            state: state.clone(),
        });
        store.note(Change::Status {
            id: id(),
            status: "running",
        });
        store.note(Change::Metadata {
            id: id(),
            metadata: r#"{"pid":7}"#.into(),
        });
        let event = Event {
            time: std::time::SystemTime::UNIX_EPOCH,
            kind: "k".into(),
            data: Value::Null,
        };
        store.note(Change::Event {
            id: id(),
            event: event.clone(),
        });
        store.note(Change::PutPool(Box::new(PoolSpec::new("p", "docker", 3))));
        store
            .make(Change::Remove { id: "two".into() })
            .await
            .unwrap();
        drop((store, lease));
        let Opened { contents, .. } = Store::open(directory.path()).unwrap();
        let [found] = contents.sandboxes.as_slice() else {
            panic!("{contents:?}");
        };
        assert_eq!(
            (found.sandbox.id.as_str(), found.status.as_str()),
            ("one", "running")
        );
        assert_eq!((&found.state, &found.events), (&Some(state), &vec![event]));
        assert_eq!(found.metadata["pid"], 7);
        assert_eq!(contents.pools[0].size, 3);
    }

    #[test]
    fn a_store_of_a_later_version_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let path = directory.path().join(FILE);
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        let before = fs::read(&path).unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert!(
            matches!(error, StoreError::Newer { found: 99, .. }),
            "{error}"
        );
        assert!(fs::read(&path).unwrap() == before);
    }

    #[test]
    fn a_value_that_says_nothing_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        drop(Store::open(directory.path()).unwrap());
        let values = "INSERT INTO sandboxes VALUES ('s', '{oops', 'running', '{}', NULL)";
        let connection = Connection::open(directory.path().join(FILE)).unwrap();
        connection.execute(values, []).unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }

    #[test]
    fn what_is_no_store_is_called_damaged() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(
            directory.path().join(FILE),
            "no database, but long enough to be looked at".repeat(99),
        )
        .unwrap();
        let error = Store::open(directory.path()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
}
