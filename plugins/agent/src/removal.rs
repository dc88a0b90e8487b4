//! Removing a directory with everything in it, whatever a command made of it.
//!
//! Read-only and unreadable directories are opened up, symbolic links are removed and never
//! followed, and no depth of nesting costs more than a bounded stack and number of descriptors.

use std::{
    fs::Permissions,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, fstat, openat, renameat, unlinkat},
    io::Errno,
    path::Arg,
};

/// How deep we go before what is below is moved up.
const MAX_DEPTH: usize = 64;

/// Removes what has a name in a directory, and everything in it; that nothing is there is no
/// error. Blocks.
///
/// # Errors
///
/// What the file system answers; a part may be gone then.
pub fn remove_tree(parent: impl AsFd, name: impl Arg + Copy) -> io::Result<()> {
    let parent = parent.as_fd();
    let Some(top) = unlink_or_enter(parent, name)? else {
        return Ok(());
    };
    let mut removal = Removal { top, moved: 0 };
    // Each round leaves only what it moved up.
    loop {
        let before = removal.moved;
        let top = removal.top.try_clone()?;
        removal.empty(&top, 0)?;
        if removal.moved == before {
            break;
        }
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

struct Removal {
    top: OwnedFd,
    /// How many directories were moved up because they were too deep.
    moved: u64,
}

impl Removal {
    fn empty(&mut self, directory: &OwnedFd, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Some(inner) = unlink_or_enter(directory.as_fd(), name)? else {
                continue;
            };
            if depth < MAX_DEPTH {
                self.empty(&inner, depth + 1)?;
                match unlinkat(directory, name, AtFlags::REMOVEDIR) {
                    // Something was moved here, or made by a process we do not know.
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                }
            } else {
                self.moved += 1;
                let free = self.free_name()?;
                renameat(directory, name, &self.top, free)?;
            }
        }
        Ok(())
    }

    fn free_name(&mut self) -> io::Result<String> {
        loop {
            let name = format!(".boxyard-removed-{}", self.moved);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(&self.top, &name, flags, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(name),
                Ok(_) => self.moved += 1,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Removes what has a name, or opens it where it is a directory.
fn unlink_or_enter(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> io::Result<Option<OwnedFd>> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(refused @ (Errno::ISDIR | Errno::PERM)) => match enter(parent, name) {
            // A file that we may not remove.
            Err(error) if error.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) => {
                Err(refused.into())
            }
            // Somebody else removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            entered => entered.map(Some),
        },
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory that is no symbolic link, and gives ourselves all rights to it.
fn enter(parent: BorrowedFd<'_>, name: impl Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
    let mode = Mode::from_raw_mode(fstat(&found)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        // The magic link leads to what is open, so nothing can be put in its place.
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        std::fs::set_permissions(link, Permissions::from_mode(0o700))?;
    }
    Ok(openat(
        &found,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use rustix::fs::{CWD, mkdirat, open};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn links_are_removed_and_never_followed() {
        let place = tempfile::tempdir().unwrap();
        let outside = place.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        mode(&outside, 0o500);
        let tree = place.path().join("tree");
        fs::create_dir(&tree).unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        symlink("/no/such/place", tree.join("dangling")).unwrap();
        remove_tree(CWD, &tree).unwrap();
        assert!(!tree.exists());
        let link = place.path().join("link");
        symlink(&outside, &link).unwrap();
        remove_tree(CWD, &link).unwrap();
        assert!(link.symlink_metadata().is_err());
        assert!(outside.join("kept").exists());
        assert_eq!(
            outside.metadata().unwrap().permissions().mode() & 0o777,
            0o500
        );
        remove_tree(CWD, &link).unwrap();
        mode(&outside, 0o700);
    }

    #[test]
    fn directories_without_rights_are_opened_up() {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        for (name, bits) in [("read-only", 0o500), ("closed", 0o000), ("unlisted", 0o300)] {
            let directory = tree.join(name).join("inner");
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("file"), "x").unwrap();
            mode(&directory, bits);
            mode(&tree.join(name), bits);
        }
        mode(&tree, 0o000);
        remove_tree(CWD, &tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn no_depth_is_too_deep() {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut directory = open(&tree, flags, Mode::empty()).unwrap();
        for _ in 0..5000 {
            mkdirat(&directory, "d", Mode::RWXU).unwrap();
            directory = openat(&directory, "d", flags, Mode::empty()).unwrap();
        }
        remove_tree(CWD, &tree).unwrap();
        assert!(!tree.exists());
    }
}
