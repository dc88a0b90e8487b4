//! Writing a file, whole or not at all where that can be.
//!
//! What is written goes where a shell's `> path` goes: the links that a path ends with are followed.
//! A file of one name is replaced by a new one. One of several names, one of somebody else's, one that
//! something is mounted on and one that none can be made beside stay what they are and get the new
//! content in place, which a reader may see half done and a full disk breaks off.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Seek},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, openat, renameat,
        unlinkat,
    },
    io::Errno,
    process::getpid,
};
use serde_json::Value;

use super::{
    Streams, make_directories, parent_of,
    place::{Place, Places, Target},
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
    let target = places.target(path)?;
    write(&target, request.mode, &streams)
        .map_err(|failure| failure.context(format_args!("`{path}`")))?;
    Ok(Value::Null)
}

fn write(target: &Target, mode: Option<u32>, streams: &Streams<'_>) -> Result<()> {
    let Target { place, found } = target;
    if let Some(found) = found {
        takes_content(found)?;
    }
    let mut content = File::from(streams.input.try_clone()?);
    let mut new = match NewFile::create(place) {
        Ok(new) => new,
        Err(errno) if found.is_some() && is_refusal(errno) => {
            overwrite(place, &mut content)?;
            return streams.complete();
        }
        Err(errno) => return Err(errno.into()),
    };
    io::copy(&mut content, &mut new.file)?;
    // From here on nothing but the file system itself breaks it off.
    streams.complete()?;
    let Some(old) = found else {
        return Ok(new.put(mode.unwrap_or(DEFAULT_MODE))?);
    };
    if old.st_nlink == 1 && keep_owner(&new, old).is_ok() {
        match new.put(old.st_mode) {
            Err(errno) if is_refusal(errno) => {}
            put => return Ok(put?),
        }
    }
    new.file.rewind()?;
    overwrite(place, &mut new.file)
}

/// Refuses what is no file.
fn takes_content(found: &Stat) -> Result<()> {
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Err(Failure::failed_precondition(
            "it is a device, a pipe or a socket, which is not written as a file is",
        )),
    }
}

/// Returns whether a directory is closed to a new file that may still be open to its old one: it
/// is read-only or another's, or something is mounted on the file.
fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::BUSY | Errno::ROFS | Errno::ACCESS | Errno::PERM
    )
}

/// Gives a file new content in place.
fn overwrite(place: &Place, content: &mut impl Read) -> Result<()> {
    // Whatever is there by now: a link is not followed, a pipe not waited for, and nothing is
    // changed that was not looked at.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = flags | OFlags::CLOEXEC;
    let mut file = File::from(openat(
        &place.directory,
        &*place.name,
        flags,
        Mode::empty(),
    )?);
    takes_content(&fstat(&file)?)?;
    file.set_len(0)?;
    io::copy(content, &mut file)?;
    Ok(())
}

/// Gives the new file to whom the old one belongs, as if it had been written in place.
fn keep_owner(new: &NewFile<'_>, old: &Stat) -> Result<(), Errno> {
    let found = fstat(&new.file)?;
    if (found.st_uid, found.st_gid) == (old.st_uid, old.st_gid) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
    fchown(&new.file, Some(uid), Some(gid))
}

/// A file beside the one that it will be, removed again unless it becomes it.
struct NewFile<'a> {
    place: &'a Place,
    name: CString,
    file: File,
}

impl<'a> NewFile<'a> {
    fn create(place: &'a Place) -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
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

    /// Puts it where it is to be, with its permission bits, which are past the umask.
    fn put(&self, mode: u32) -> Result<(), Errno> {
        let Place { directory, name } = self.place;
        fchmod(&self.file, Mode::from_raw_mode(mode & 0o7777))?;
        renameat(directory, &*self.name, directory, &**name)
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        // Gone already where it became what it was to be.
        let _ = unlinkat(&self.place.directory, &*self.name, AtFlags::empty());
    }
}
