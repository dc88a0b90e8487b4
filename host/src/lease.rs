//! Leases: a locked file that says a host's process lives.
//!
//! What a sandbox leaves outside the process carries its lease's name. When the process dies,
//! however it dies, the kernel frees the lock, and any other host may sweep what is left.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use tempfile::{NamedTempFile, PersistError};

/// The extension of a free lease of which a sweep found nothing.
const CLEAN: &str = "clean";

/// The lease of this process; freed when it is dropped and when the process dies.
#[derive(Debug)]
pub(crate) struct Lease {
    id: String,
    path: PathBuf,
    file: Mutex<File>,
    /// The sandbox types that were used under it, which the file lists for the sweeper.
    types: Mutex<BTreeSet<String>>,
    /// Whether there may be something under it that nobody knows of.
    kept: AtomicBool,
    /// Whether what it lists outlives a power cut too, as a store does.
    is_synced: bool,
}

/// A lease whose process is dead; locked by us while we sweep for it.
#[derive(Debug)]
pub(crate) struct FreeLease {
    pub(crate) id: String,
    /// The sandbox types that were used under it.
    pub(crate) types: BTreeSet<String>,
    path: PathBuf,
    file: File,
}

impl Lease {
    /// Takes a new lease in a directory.
    pub(crate) fn take(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let id = new_id();
        let path = directory.join(&id);
        // Locked before it has its name: a lease is never seen without its lock.
        let unnamed = directory.join(format!(".{id}"));
        let file = OpenOptions::new()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&unnamed)?;
        file.lock()?;
        fs::rename(&unnamed, &path)?;
        Ok(Self {
            id,
            path,
            file: Mutex::new(file),
            types: Mutex::default(),
            kept: AtomicBool::new(false),
            is_synced: false,
        })
    }

    /// Takes the lease of a store, which is the same for each of its hosts and which no other host
    /// sweeps; `None` while another one has it.
    pub(crate) fn of_store(path: &Path, id: &str) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(Some(Self {
            id: id.into(),
            path: path.into(),
            types: Mutex::new(text.lines().map(str::to_owned).collect()),
            file: Mutex::new(file),
            // The store is there longer than any of its hosts.
            kept: AtomicBool::new(true),
            is_synced: true,
        }))
    }

    /// Returns the sandbox types that were used under it.
    pub(crate) fn types(&self) -> Vec<String> {
        let types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        types.iter().cloned().collect()
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Notes that sandboxes of a type are made under the lease. When it returns, the note outlives this
    /// process; a power cut too where the lease is a store's, which takes the disk's time once a type.
    pub(crate) fn note_type(&self, name: &str) -> io::Result<()> {
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        if types.contains(name) {
            return Ok(());
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::End(0))?;
        writeln!(file, "{name}")?;
        if self.is_synced {
            file.sync_data()?;
        }
        types.insert(name.into());
        Ok(())
    }

    /// Notes that something may be left behind: the lease will not be given up, so that the next
    /// host sweeps.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Gives the lease up when nothing was left behind.
    pub(crate) fn release(&self) {
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        // A file that stays is found free and swept by the next host.
        let _ = fs::remove_file(&self.path);
    }
}

impl FreeLease {
    /// Forgets the lease when for a grace nothing of it was left: what its host asked of a backend
    /// last may come to be after that host died.
    pub(crate) fn nothing_left(self, grace: Duration) {
        let age = self
            .file
            .metadata()
            .and_then(|metadata| metadata.modified());
        let age = age.map(|modified| modified.elapsed().unwrap_or_default());
        let is_over = grace.is_zero() || (self.was_clean() && age.is_ok_and(|age| age >= grace));
        // What fails here is tried again by the next sweep.
        if is_over {
            let _ = fs::remove_file(&self.path);
        } else if !self.was_clean() {
            let _ = self.file.set_modified(SystemTime::now());
            let _ = fs::rename(&self.path, self.path.with_extension(CLEAN));
        }
    }

    /// Whether nothing of it was left at an earlier sweep, whose time is the file's.
    fn was_clean(&self) -> bool {
        self.path.extension().is_some_and(|found| found == CLEAN)
    }
}

/// Finds the leases in a directory whose processes are dead.
pub(crate) fn free(directory: &Path) -> Vec<FreeLease> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .filter_map(|entry| lock_free(&entry.path()))
        .collect()
}

fn lock_free(path: &Path) -> Option<FreeLease> {
    let mut file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let types = text.lines().map(str::to_owned).collect();
    let id = path.file_stem()?.to_str()?.to_owned();
    Some(FreeLease {
        id,
        types,
        path: path.into(),
        file,
    })
}

/// Returns a host's name, which lives as long as its state directory and outlives a power cut.
///
/// A file that holds no name gets another one: what has no name would share it with every other host
/// that has none, and sweep for them.
pub(crate) fn host_id(state_dir: &Path) -> io::Result<String> {
    fs::create_dir_all(state_dir)?;
    let path = state_dir.join("host-id");
    let error = match read_id(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match write_id(state_dir, |file| file.persist_noclobber(&path)) {
                // Another process was first.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_id(&path),
                written => written,
            };
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => error,
        read => return read,
    };
    // Whoever finds it damaged waits here for the one who replaces it: two names would be one too many.
    let damaged = OpenOptions::new().read(true).write(true).open(&path)?;
    damaged.lock()?;
    if let Ok(id) = read_id(&path) {
        return Ok(id);
    }
    tracing::warn!("{error}: it is replaced");
    write_id(state_dir, |file| file.persist(&path))
}

fn read_id(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path)?;
    let id = bytes.trim_ascii();
    if id.is_empty() || !id.iter().all(u8::is_ascii_graphic) {
        let message = format!("{} holds no name of a host", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(String::from_utf8_lossy(id).into_owned())
}

/// Writes a new name; `persist` gives the file its own.
fn write_id(
    state_dir: &Path,
    persist: impl FnOnce(NamedTempFile) -> Result<File, PersistError>,
) -> io::Result<String> {
    let mut file = NamedTempFile::new_in(state_dir)?;
    let id = new_id();
    writeln!(file, "{id}")?;
    // A power cut must not leave a file without its content, nor the name of one that was used.
    file.as_file().sync_all()?;
    persist(file).map_err(|error| error.error)?;
    File::open(state_dir)?.sync_all()?;
    Ok(id)
}

/// Returns a name that no other host, lease or sandbox has.
pub(crate) fn new_id() -> String {
    const ALPHABET: [char; 32] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r',
        's', 't', 'u', 'v', 'w', 'x', 'y', 'z', '2', '3', '4', '5', '6', '7',
    ];
    nanoid::nanoid!(12, &ALPHABET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_free_once_its_holder_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let held = Lease::take(directory.path()).unwrap();
        let dead = Lease::take(directory.path()).unwrap();
        dead.note_type("docker").unwrap();
        dead.note_type("docker").unwrap();
        let dead_id = dead.id().to_owned();
        assert!(free(directory.path()).is_empty());
        drop(dead);
        let found = free(directory.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, dead_id);
        assert_eq!(found[0].types, BTreeSet::from(["docker".to_owned()]));
        for lease in found {
            lease.nothing_left(Duration::ZERO);
        }
        held.release();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lease_is_forgotten_when_nothing_was_left_for_a_grace() {
        const GRACE: Duration = Duration::from_secs(60);
        let directory = tempfile::tempdir().unwrap();
        let dead = Lease::take(directory.path()).unwrap().id().to_owned();
        let sweep = || {
            let [lease] = <[FreeLease; 1]>::try_from(free(directory.path())).unwrap();
            assert_eq!(lease.id, dead);
            lease
        };
        sweep().nothing_left(GRACE);
        sweep().nothing_left(GRACE);
        let lease = sweep();
        lease.file.set_modified(SystemTime::now() - GRACE).unwrap();
        lease.nothing_left(GRACE);
        assert!(free(directory.path()).is_empty());
    }

    #[test]
    fn a_lease_under_which_something_may_be_left_is_there_for_the_next_host() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Lease::take(directory.path()).unwrap();
        kept.keep();
        kept.release();
        drop(kept);
        assert_eq!(free(directory.path()).len(), 1);
    }

    #[test]
    fn a_host_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let first = host_id(directory.path()).unwrap();
        assert_eq!(host_id(directory.path()).unwrap(), first);
    }

    #[test]
    fn a_host_whose_name_was_lost_gets_another_and_keeps_that() {
        for damaged in [&b""[..], b" \n", &[0; 13], b"\xff\xfe"] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("host-id"), damaged).unwrap();
            let names: BTreeSet<String> = std::thread::scope(|scope| {
                let named = || host_id(directory.path()).unwrap();
                let hosts: Vec<_> = (0..8).map(|_| scope.spawn(named)).collect();
                hosts.into_iter().map(|host| host.join().unwrap()).collect()
            });
            let [name] = Vec::from_iter(names).try_into().unwrap();
            assert_eq!(name.len(), new_id().len(), "{damaged:?}: {name:?}");
            assert_eq!(host_id(directory.path()).unwrap(), name);
        }
    }

    #[test]
    fn hosts_that_start_at_once_have_one_name() {
        let directory = tempfile::tempdir().unwrap();
        let names: BTreeSet<String> = std::thread::scope(|scope| {
            let named = || host_id(directory.path()).unwrap();
            let hosts: Vec<_> = (0..8).map(|_| scope.spawn(named)).collect();
            hosts.into_iter().map(|host| host.join().unwrap()).collect()
        });
        assert_eq!(names.len(), 1, "{names:?}");
    }
}
