//! Where the sandbox's paths lead, and that they do not lead out of its root.

use std::{
    ffi::{CString, OsStr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use boxyard_agent::protocol::Setup;
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Stat, fstatfs, open,
        openat, openat2, readlinkat, statat,
    },
    io::Errno,
};

use crate::failure::{Failure, Result};

/// How often a path is tried again that changed while it was followed.
const TRIES: usize = 16;
/// How many links a path may end with, one leading to the next; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// The sandbox's file system as its paths see it.
#[derive(Debug)]
pub(super) struct Places {
    /// The directory that nothing leaves, and its own path.
    root: Option<(OwnedFd, PathBuf)>,
    working_dir: PathBuf,
    /// The same, which whoever asks may not be able to find by himself; `None` within a root, and
    /// while it is not there.
    start: Option<OwnedFd>,
}

/// A name in a directory, be something there or not.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: CString,
}

/// What a path leads to, be something there or not; it is no link.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) place: Place,
    pub(super) found: Option<Stat>,
}

impl Places {
    pub(super) fn new(setup: &Setup) -> Result<Self> {
        let root = match &setup.root {
            None => None,
            Some(path) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = open(path.as_str(), flags, Mode::empty());
                let root = root.map_err(|errno| {
                    Failure::from(errno).context(format_args!("the sandbox's directory `{path}`"))
                })?;
                Some((root, path.into()))
            }
        };
        let working_dir = Path::new("/").join(&setup.working_dir);
        let start = match &root {
            Some(_) => None,
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                open(&working_dir, flags, Mode::empty()).ok()
            }
        };
        Ok(Self {
            root,
            working_dir,
            start,
        })
    }

    /// Opens what a path leads to.
    pub(super) fn open(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        if path.is_empty() {
            return Err(Failure::invalid_argument("the path is empty"));
        }
        self.open_path(Path::new(path), flags, mode)
            .map_err(|errno| failure(errno, path))
    }

    fn open_path(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        match (&self.root, &self.start) {
            (None, Some(start)) => openat(start, path, flags, mode),
            (None, None) => openat(CWD, self.inner(path), flags, mode),
            (Some((root, _)), _) => {
                let path = self.inner(path);
                open_within(root, &path, flags, mode, ResolveFlags::IN_ROOT)
            }
        }
    }

    /// Returns the path from the root on, from that of the system where there is none.
    fn inner(&self, path: &Path) -> PathBuf {
        let path = self.working_dir.join(path);
        let Some((_, root_path)) = &self.root else {
            return path;
        };
        // Both the path that commands see and one that starts at the root mean the same file.
        let inner = path.strip_prefix(root_path).unwrap_or(&path);
        inner.strip_prefix("/").unwrap_or(inner).to_owned()
    }

    /// Returns the directory and the name that a path ends with; the name is not followed.
    pub(super) fn place(&self, path: &str) -> Result<Place> {
        let place = self.place_of(Path::new(path));
        place.map_err(|errno| failure(errno, path))?.ok_or_else(|| {
            Failure::invalid_argument(format_args!(
                "`{path}` does not end with the name of a file"
            ))
        })
    }

    /// Returns the same; `None` where the path does not end with a name.
    fn place_of(&self, path: &Path) -> Result<Option<Place>, Errno> {
        let ends_with_name = |path: &Path| {
            let last = path.components().next_back();
            matches!(last, Some(Component::Normal(_)))
        };
        // The root has no name, however it is spelt.
        let inner = self.inner(path);
        let is_name = ends_with_name(path) && ends_with_name(&inner);
        let Some(name) = inner.file_name().filter(|_| is_name) else {
            return Ok(None);
        };
        let parent = path.parent().map(Path::as_os_str);
        let parent = parent.filter(|parent| !parent.is_empty());
        let parent = parent.unwrap_or(OsStr::new("."));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = self.open_path(Path::new(parent), flags, Mode::empty())?;
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
        Ok(Some(Place { directory, name }))
    }

    /// Returns where a path leads: the links that it ends with are followed, each from its own
    /// directory, to the name that a new file would get where nothing is there.
    ///
    /// Only names are put together here. Every directory is opened within the root, whatever the
    /// links say and however they change meanwhile.
    pub(super) fn target(&self, path: &str) -> Result<Target> {
        let mut place = self.place(path)?;
        let mut followed = PathBuf::from(path);
        let at = |errno| failure(errno, path);
        for _ in 0..=MAX_LINKS {
            let found = match statat(&place.directory, &*place.name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => Some(found),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(at(errno)),
            };
            let kind = found.map(|found| FileType::from_raw_mode(found.st_mode));
            if kind != Some(FileType::Symlink) {
                return Ok(Target { place, found });
            }
            if fstatfs(&place.directory).map_err(at)?.f_type == PROC_SUPER_MAGIC {
                return Err(Failure::failed_precondition(format_args!(
                    "`{path}` leads to what a process has open, which is another for each process"
                )));
            }
            // One that is gone meanwhile is looked at again.
            match readlinkat(&place.directory, &*place.name, Vec::new()) {
                Ok(link) => {
                    followed.pop();
                    followed.push(OsStr::from_bytes(link.as_bytes()));
                }
                Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(at(errno)),
            }
            // What has no name is a directory, as `..` is.
            let next = self.place_of(&followed).map_err(at)?;
            place = next.ok_or_else(|| at(Errno::ISDIR))?;
        }
        Err(at(Errno::LOOP))
    }
}

/// Opens a path of a directory that it may not leave.
pub(super) fn open_within(
    directory: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    confined: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let resolve = confined | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match openat2(&directory, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

fn failure(errno: Errno, path: &str) -> Failure {
    match errno {
        Errno::AGAIN => Failure::aborted("it changes faster than it can be followed").retryable(),
        errno => errno.into(),
    }
    .context(format_args!("`{path}`"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use rustix::fs::fstat;

    use super::*;

    #[test]
    fn no_path_leaves_the_root() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "").unwrap();
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("inner")).unwrap();
        fs::write(root.join("inner/file"), "").unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink(outside.path(), root.join("out")).unwrap();
        symlink("/inner", root.join("absolute")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let setup = Setup {
            root: Some(root.to_str().unwrap().into()),
            working_dir: root.to_str().unwrap().into(),
            ..Setup::default()
        };
        let places = Places::new(&setup).unwrap();
        let open = |path: &str| places.open(path, OFlags::RDONLY, Mode::empty());
        let file = fstat(open("inner/file").unwrap()).unwrap().st_ino;
        for path in [
            "./inner/../inner/file",
            "/inner/file",
            "../../../inner/file",
            "absolute/file",
            "up/inner/file",
            root.join("inner/file").to_str().unwrap(),
        ] {
            assert_eq!(fstat(open(path).unwrap()).unwrap().st_ino, file, "{path}");
        }
        for path in [
            "../secret",
            "up/secret",
            "out/secret",
            "/../secret",
            "magic/etc/passwd",
            outside.path().join("secret").to_str().unwrap(),
            "",
        ] {
            assert!(open(path).is_err(), "{path}");
        }
        for path in ["..", ".", "/", "inner/.."] {
            assert!(places.place(path).is_err(), "{path}");
        }
        for path in ["away", "far", "root"] {
            let link = match path {
                "away" => Path::new("../secret"),
                "far" => Path::new("/../../secret"),
                _ => &root.join("secret"),
            };
            symlink(link, root.join(path)).unwrap();
            let target = places.target(path).unwrap();
            let directory = fstat(&target.place.directory).unwrap().st_ino;
            assert_eq!(directory, fstat(open(".").unwrap()).unwrap().st_ino);
            assert_eq!(target.place.name.to_bytes(), b"secret");
            assert!(target.found.is_none(), "{path}");
        }
        symlink(outside.path().join("secret"), root.join("host")).unwrap();
        for path in ["host", "up", "out", "magic"] {
            assert!(places.target(path).is_err(), "{path}");
        }
        let place = places.place("up/../new").unwrap();
        assert_eq!(place.name.to_bytes(), b"new");
        let inode = |fd: &OwnedFd| fstat(fd).unwrap().st_ino;
        assert_eq!(inode(&place.directory), inode(&open(".").unwrap()));
    }
}
