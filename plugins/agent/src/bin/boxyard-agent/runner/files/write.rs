//! Writing a file whole or not at all.

use std::{ffi::CString, fs::File, io, os::fd::AsFd};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, openat, renameat, statat,
        unlinkat,
    },
    io::Errno,
    process::getpid,
};
use serde_json::Value;

use super::{
    Streams, make_directories, parent_of,
    place::{Place, Places},
};
use crate::{
    failure::{Failure, Result},
    request::WriteFile,
};

/// The permission bits of a new file that the request does not name.
const DEFAULT_MODE: u32 = 0o644;

pub(super) fn write_file(
    places: &Places,
    request: &WriteFile,
    streams: Streams<'_>,
) -> Result<Value> {
    let path = &request.path;
    let parent = parent_of(path);
    if request.make_parents && !parent.is_empty() {
        make_directories(places, parent, 0o755)?;
    }
    let place = places.place(path)?;
    let at = |failure: Failure| failure.context(format_args!("`{path}`"));
    let replaced = replaced(&place).map_err(at)?;
    let new = NewFile::create(&place).map_err(|errno| at(errno.into()))?;
    let mut content = File::from(streams.input.try_clone()?);
    io::copy(&mut content, &mut &new.file).map_err(|error| at(error.into()))?;
    streams.complete().map_err(at)?;
    let mode = match &replaced {
        Some(old) => {
            keep_owner(&new, old);
            old.st_mode
        }
        None => request.mode.unwrap_or(DEFAULT_MODE),
    };
    places
        .give(new.file.as_fd())
        .map_err(|errno| at(errno.into()))?;
    let mode = Mode::from_raw_mode(mode & 0o7777);
    fchmod(&new.file, mode).map_err(|errno| at(errno.into()))?;
    new.put(&place).map_err(|errno| at(errno.into()))?;
    Ok(Value::Null)
}

/// Looks at the file that is to be replaced; a link is replaced as if nothing were there.
fn replaced(place: &Place) -> Result<Option<Stat>> {
    let found = match statat(&place.directory, &*place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(Some(found)),
        FileType::Symlink => Ok(None),
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Err(Failure::failed_precondition(
            "it is a device, a pipe or a socket, which is not replaced by a file",
        )),
    }
}

/// Gives the new file to whom the old one belongs, as if it had been written in place.
fn keep_owner(new: &NewFile<'_>, old: &Stat) {
    let (uid, gid) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
    // Who is not root may only make files of his own.
    let _ = fchown(&new.file, Some(uid), Some(gid));
}

/// A file beside the one that it will be, removed again unless it becomes it.
struct NewFile<'a> {
    place: &'a Place,
    name: CString,
    file: File,
}

impl<'a> NewFile<'a> {
    fn create(place: &'a Place) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        for number in 0_u32.. {
            let name = format!(".boxyard-{}-{number}", getpid().as_raw_pid());
            let name = CString::new(name).map_err(|_| Errno::INVAL)?;
            match openat(&place.directory, &*name, flags, mode) {
                Ok(file) => {
                    return Ok(Self {
                        place,
                        name,
                        file: file.into(),
                    });
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }

    fn put(self, place: &Place) -> Result<(), Errno> {
        renameat(
            &place.directory,
            &*self.name,
            &place.directory,
            &*place.name,
        )
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        // Gone already where it became what it was to be.
        let _ = unlinkat(&self.place.directory, &*self.name, AtFlags::empty());
    }
}
