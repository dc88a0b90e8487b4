//! The working directory that was made for the sandbox, and for nobody in it.

use std::os::fd::{AsFd, OwnedFd};

use boxyard_agent::protocol::Setup;
use rustix::{
    fs::{
        AtFlags, CWD, Dir, Gid, Mode, OFlags, StatxAttributes, StatxFlags, Uid, fchown, fstat,
        openat, statx,
    },
    io::Errno,
    path::Arg,
};

use crate::runner::credentials;

/// Gives the working directory to the user that commands run as, where it is root's and has nothing
/// in it: an engine makes it so, and what commands cannot write in is of no use to them. What is
/// mounted is somebody else's, there and in it.
pub(crate) fn give(setup: &Setup) {
    // A user that is none is said to be by every request.
    if let Ok(Some(user)) = credentials(setup.user.as_deref()) {
        // Where it cannot be given, it is as it was, and whoever writes in it is told so.
        let _ = made_for_nobody(&setup.working_dir).and_then(|directory| match directory {
            Some(directory) => {
                let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
                fchown(directory, Some(uid), Some(gid))
            }
            None => Ok(()),
        });
    }
}

fn made_for_nobody(path: &str) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty())?;
    if fstat(&directory)?.st_uid != 0 || is_mounted(&directory, c"")? {
        return Ok(None);
    }
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") && !is_mounted(&directory, name)? {
            return Ok(None);
        }
    }
    Ok(Some(directory))
}

/// Whether something is mounted on what has a name in a directory, on that itself without one.
/// Where the kernel does not know, which is before 5.8, it may be.
fn is_mounted(directory: impl AsFd, name: impl Arg) -> Result<bool, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = statx(directory, name, flags, StatxFlags::empty())?;
    let is_known = found
        .stx_attributes_mask
        .contains(StatxAttributes::MOUNT_ROOT);
    Ok(!is_known || found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
