//! Where a container's agent and its host meet: a directory of the host that the container sees
//! read-only, with the agent's program and the socket on which the host listens.
//!
//! The container can write nothing in it, and the host opens nothing that a container wrote.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use boxyard_agent::remove_tree;
use boxyard_plugin_api::prelude::*;
use rustix::fs::CWD;
use tokio::net::UnixListener;

use crate::hex;

const SOCKET: &str = "socket";

/// All meeting places of a plugin.
#[derive(Clone, Debug)]
pub(crate) struct Meetings {
    root: PathBuf,
}

/// One meeting place, be it there or not.
#[derive(Clone, Debug)]
pub(crate) struct Meeting {
    path: PathBuf,
}

/// A meeting place that is there, and whose it is.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) lease: String,
    pub(crate) sandbox: String,
    pub(crate) age: Duration,
    pub(crate) meeting: Meeting,
}

impl Meetings {
    pub(crate) fn new(data_dir: &Path) -> Result<Self> {
        let data_dir = std::path::absolute(data_dir)?;
        Ok(Self {
            root: data_dir.join("meetings"),
        })
    }

    /// Names the place of a sandbox. No name says more than its own container can see anyway, and
    /// none can be guessed by another.
    pub(crate) fn of(&self, lease: &str, sandbox: &str) -> Result<Meeting> {
        let secret = hex::random::<12>()?;
        Ok(Meeting {
            path: self.root.join(format!("{lease}.{sandbox}.{secret}")),
        })
    }

    /// Returns the place that was saved.
    pub(crate) fn known(&self, name: &str) -> Result<Meeting> {
        if name.contains('/') || name.starts_with('.') || name.is_empty() {
            return Err(Error::invalid_argument(format_args!(
                "`{name}` is no name of a meeting place"
            )));
        }
        Ok(Meeting {
            path: self.root.join(name),
        })
    }

    /// Returns every place that is there.
    pub(crate) fn list(&self) -> Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::from(error).context(self.root.display())),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut parts = name.split('.').map(str::to_owned);
            let (Some(lease), Some(sandbox), Some(_)) = (parts.next(), parts.next(), parts.next())
            else {
                tracing::warn!(name, "not the meeting place of a sandbox; left alone");
                continue;
            };
            // One that is gone meanwhile needs no sweep.
            let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            let age = SystemTime::now().duration_since(modified);
            found.push(Found {
                lease,
                sandbox,
                age: age.unwrap_or_default(),
                meeting: Meeting { path: entry.path() },
            });
        }
        Ok(found)
    }
}

impl Meeting {
    /// Where a container sees it.
    pub(crate) const TARGET: &str = "/.boxyard";
    /// The agent's program in it.
    pub(crate) const PROGRAM: &str = "agent";

    /// The directory of the host.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Its name, which is what is saved.
    pub(crate) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The agent's program, where a container sees it.
    pub(crate) fn program() -> String {
        format!("{}/{}", Self::TARGET, Self::PROGRAM)
    }

    /// The socket, where a container sees it.
    pub(crate) fn socket() -> String {
        format!("{}/{SOCKET}", Self::TARGET)
    }

    /// Makes the directory, with a link to the program in it, and listens.
    pub(crate) fn open(&self, program: &Path) -> Result<UnixListener> {
        self.make(program)
            .and_then(|()| self.listen())
            .map_err(|error| Error::from(error).context(self.path.display()))
    }

    fn make(&self, program: &Path) -> io::Result<()> {
        if let Some(root) = self.path.parent() {
            // Containers whose root is another user on the host find it, and nobody lists it.
            DirBuilder::new().recursive(true).mode(0o711).create(root)?;
        }
        DirBuilder::new().mode(0o711).create(&self.path)?;
        // Whatever the umask took away.
        fs::set_permissions(&self.path, Permissions::from_mode(0o711))?;
        let place = self.path.join(Self::PROGRAM);
        fs::hard_link(program, &place).or_else(|_| fs::copy(program, &place).map(drop))
    }

    /// Listens for an agent that connects, for the first time or again.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        let directory = File::open(&self.path)?;
        match fs::remove_file(self.path.join(SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // A socket's address is short, and the way to it may be long.
        let short = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let listener = UnixListener::bind(short)?;
        // It holds nothing secret, and lets nobody in whom the directory does not.
        fs::set_permissions(self.path.join(SOCKET), Permissions::from_mode(0o666))?;
        Ok(listener)
    }

    /// Removes it with everything in it; that it is gone is no error.
    pub(crate) async fn remove(&self) -> Result<()> {
        let path = self.path.clone();
        let removed = tokio::task::spawn_blocking(move || remove_tree(CWD, &path)).await;
        removed
            .map_err(Error::internal)?
            .map_err(|error| Error::from(error).context(self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::*;

    #[tokio::test]
    async fn a_meeting_place_has_a_program_and_a_socket_and_is_found_again() {
        let data_dir = tempfile::tempdir().unwrap();
        let program = data_dir.path().join("program");
        fs::write(&program, "x").unwrap();
        let meetings = Meetings::new(data_dir.path()).unwrap();
        let meeting = meetings.of("lease", "box").unwrap();
        let listener = meeting.open(&program).unwrap();
        let mode = |name: &str| fs::metadata(meeting.path().join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("."), mode(SOCKET)), (0o711, 0o666));
        let socket = fs::metadata(meeting.path().join(SOCKET)).unwrap();
        assert!(socket.file_type().is_socket());
        drop(listener);
        // Again, by a later host.
        let again = meetings.known(&meeting.name()).unwrap();
        let _listener = again.listen().unwrap();
        let found = meetings.list().unwrap();
        let [found] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!((&*found.lease, &*found.sandbox), ("lease", "box"));
        found.meeting.remove().await.unwrap();
        found.meeting.remove().await.unwrap();
        assert!(meetings.list().unwrap().is_empty());
        assert_eq!(fs::read(program).unwrap(), b"x");
    }

    #[test]
    fn a_saved_name_leads_nowhere_else() {
        let meetings = Meetings::new(Path::new("/nonexistent")).unwrap();
        for name in ["", "..", "../x", "a/b", "/etc"] {
            assert!(meetings.known(name).is_err(), "{name}");
        }
    }
}
