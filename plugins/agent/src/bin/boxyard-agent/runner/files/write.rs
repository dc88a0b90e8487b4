//! Writing a file whole or not at all.

use std::{ffi::CString, fs::File, io};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fchmod, openat, renameat, statat, unlinkat},
    io::Errno,
    process::getpid,
};
use serde_json::Value;

use super::{
    Streams, make_directories,
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
    if request.make_parents {
        let parent = std::path::Path::new(path).parent();
        let parent = parent.and_then(std::path::Path::to_str).unwrap_or_default();
        if !parent.is_empty() {
            make_directories(places, parent, 0o755)?;
        }
    }
    let place = places.place(path)?;
    let at = |failure: Failure| failure.context(format_args!("`{path}`"));
    let found = statat(&place.directory, &*place.name, AtFlags::SYMLINK_NOFOLLOW);
    let mode = match found {
        Ok(found) => match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => return Err(at(Errno::ISDIR.into())),
            FileType::RegularFile => Mode::from_raw_mode(found.st_mode),
            _ => new_mode(request),
        },
        Err(_) => new_mode(request),
    };
    let new = NewFile::create(&place).map_err(|errno| at(errno.into()))?;
    places
        .give(std::os::fd::AsFd::as_fd(&place.directory), &new.name)
        .map_err(|errno| at(errno.into()))?;
    let mut content = File::from(streams.input.try_clone()?);
    io::copy(&mut content, &mut &new.file).map_err(|error| at(error.into()))?;
    streams.complete().map_err(at)?;
    fchmod(&new.file, mode).map_err(|errno| at(errno.into()))?;
    new.put(&place).map_err(|errno| at(errno.into()))?;
    Ok(Value::Null)
}

fn new_mode(request: &WriteFile) -> Mode {
    Mode::from_raw_mode(request.mode.unwrap_or(DEFAULT_MODE) & 0o7777)
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
