//! Tar streams in and out.

use std::{
    collections::{HashMap, hash_map},
    ffi::{CStr, CString},
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, fchmod,
        fstat, linkat, mkdirat, openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
    process::geteuid,
};
use serde_json::Value;
use tar::{Archive, Builder, Entry, EntryType, Header};

use super::{
    Streams, make_directories,
    place::{Places, open_within},
};
use crate::failure::{Failure, Result};

/// How much is read or written at a time.
const BUFFER: usize = 64 * 1024;
/// A block of a tar archive.
const BLOCK: u64 = 512;
/// How deep a directory that is packed may be.
const MAX_DEPTH: usize = 256;

/// Unpacks the input into a directory. Nothing of the archive leaves it, be it by `..`, by an
/// absolute path or by a link that the archive itself has.
pub(super) fn put(places: &Places, directory: &str, streams: Streams<'_>) -> Result<Value> {
    let target = Target {
        directory: make_directories(places, directory, 0o755)?,
    };
    let mut input = File::from(streams.input.try_clone()?);
    let mut beginning = Vec::new();
    (&mut input).take(BLOCK).read_to_end(&mut beginning)?;
    let compression = compression_of(&beginning);
    let input = io::Cursor::new(beginning).chain(input);
    let mut archive = Archive::new(BufReader::with_capacity(BUFFER, input));
    // Directories get their times and modes last: read-only ones take files until then.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry.map_err(|error| match compression {
            // Only of what cannot be read: an archive may begin with any name.
            Some(compression) if error.raw_os_error().is_none() => {
                Failure::invalid_argument(format_args!(
                    "the archive is compressed with {compression}: expected a tar archive as it is"
                ))
            }
            _ => malformed(error),
        })?;
        let path = inner_path(&entry)?;
        let at = |failure: Failure| failure.context(format_args!("`{}`", path.display()));
        match kind_of(&entry) {
            EntryType::XGlobalHeader => {}
            EntryType::Directory => {
                target.directory(&path).map_err(at)?;
                directories.push((path.clone(), entry.header().clone()));
            }
            _ => target.unpack(&path, &mut entry).map_err(at)?,
        }
    }
    for (path, header) in directories.iter().rev() {
        let made = target.directory(path)?;
        // One that was there of somebody else's stays as it is; the new ones are ours.
        match finish(made.as_fd(), header) {
            Err(failure) if failure.is(Errno::PERM) && !is_ours(&made)? => {}
            finished => finished?,
        }
    }
    // What comes after the archive's end is taken, so that its writer is not broken off.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    streams.complete()?;
    Ok(Value::Null)
}

fn malformed(error: io::Error) -> Failure {
    match error.raw_os_error() {
        Some(_) => error.into(),
        None => {
            // It may quote what is no text.
            let unreadable = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
            let error = error.to_string().replace(unreadable, "?");
            Failure::invalid_argument(format_args!("the input is no tar archive: {error}"))
        }
    }
}

/// Returns what something is compressed with that begins so.
fn compression_of(beginning: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], _); 4] = [
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ];
    let mut known = known.into_iter();
    let found = known.find(|(magic, _)| beginning.starts_with(magic));
    found.map(|(_, name)| name)
}

/// The oldest archives have directories as files whose name ends with a slash.
fn kind_of<R: Read>(entry: &Entry<'_, R>) -> EntryType {
    match entry.header().entry_type() {
        EntryType::Regular if entry.path_bytes().ends_with(b"/") => EntryType::Directory,
        kind => kind,
    }
}

/// Returns where in the directory an entry belongs.
fn inner_path<R: Read>(entry: &Entry<'_, R>) -> Result<PathBuf> {
    let path = entry.path().map_err(malformed)?;
    let mut inner = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inner.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(Failure::invalid_argument(format_args!(
                    "the archive has `{}`, which would leave the directory",
                    path.display()
                )));
            }
        }
    }
    Ok(inner)
}

fn is_ours(directory: &OwnedFd) -> Result<bool> {
    Ok(fstat(directory)?.st_uid == geteuid().as_raw())
}

/// Where an archive is unpacked.
struct Target {
    directory: OwnedFd,
}

impl Target {
    /// Opens a directory of the target, made with those above it where they are missing.
    fn directory(&self, path: &Path) -> Result<OwnedFd> {
        match self.open(path) {
            Err(failure) if failure.is(Errno::NOENT) => {}
            found => return found,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::NOENT.into());
        };
        let parent = self.directory(parent)?;
        let name = c_name(name.as_bytes())?;
        match mkdirat(&parent, &*name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(parent, &*name, flags, Mode::empty())?)
    }

    /// Opens a directory of the target that is there.
    fn open(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let confined = ResolveFlags::BENEATH;
        match open_within(&self.directory, path, flags, Mode::empty(), confined) {
            Err(Errno::XDEV) => Err(leaves()),
            found => Ok(found?),
        }
    }

    fn unpack<R: Read>(&self, path: &Path, entry: &mut Entry<'_, R>) -> Result<()> {
        let Some(name) = path.file_name() else {
            return Err(Failure::invalid_argument(
                "an entry of the archive has no name",
            ));
        };
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        let name = c_name(name.as_bytes())?;
        let header = entry.header().clone();
        // What is there is replaced, a link itself and never what it points to.
        match unlinkat(&parent, &*name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        match header.entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(&parent, &*name, flags, Mode::RUSR | Mode::WUSR)?;
                let mut file = BufWriter::with_capacity(BUFFER, File::from(file));
                io::copy(entry, &mut file).map_err(malformed)?;
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                finish(file.as_fd(), &header)
            }
            EntryType::Symlink => {
                let link = link_of(entry)?;
                symlinkat(link.as_os_str(), &parent, &*name)?;
                let times = times_of(&header)?;
                Ok(utimensat(
                    &parent,
                    &*name,
                    &times,
                    AtFlags::SYMLINK_NOFOLLOW,
                )?)
            }
            EntryType::Link => {
                let to = link_of(entry)?;
                let source = self.existing(&to)?;
                let (directory, source) = (&source.0, &*source.1);
                Ok(linkat(
                    directory,
                    source,
                    &parent,
                    &*name,
                    AtFlags::empty(),
                )?)
            }
            other => Err(Failure::invalid_argument(format_args!(
                "the archive has an entry of type {other:?}; expected files, directories and links"
            ))),
        }
    }

    /// Finds what a hard link names.
    fn existing(&self, path: &Path) -> Result<(OwnedFd, CString)> {
        let leads_out =
            |part: Component<'_>| !matches!(part, Component::Normal(_) | Component::CurDir);
        let Some(name) = path
            .file_name()
            .filter(|_| !path.components().any(leads_out))
        else {
            return Err(leaves());
        };
        let parent = self.open(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, c_name(name.as_bytes())?))
    }
}

fn leaves() -> Failure {
    Failure::invalid_argument("an entry of the archive would leave the directory")
}

fn link_of<R: Read>(entry: &Entry<'_, R>) -> Result<PathBuf> {
    match entry.link_name().map_err(malformed)? {
        Some(link) => Ok(link.into_owned()),
        None => Err(Failure::invalid_argument(
            "a link of the archive has no target",
        )),
    }
}

/// Gives a file the mode and the time that the archive has for it.
fn finish(file: BorrowedFd<'_>, header: &Header) -> Result<()> {
    let mode = header.mode().map_err(malformed)? & 0o7777;
    fchmod(file, Mode::from_raw_mode(mode))?;
    Ok(rustix::fs::futimens(file, &times_of(header)?)?)
}

fn times_of(header: &Header) -> Result<Timestamps> {
    let seconds = i64::try_from(header.mtime().map_err(malformed)?).unwrap_or(0);
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    Ok(Timestamps {
        last_access: time,
        last_modification: time,
    })
}

fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name)
        .map_err(|_| Failure::invalid_argument("a name of the archive has a NUL byte"))
}

/// Packs what is at a path, under its own name; a directory with everything in it, links as
/// links.
pub(super) fn get(places: &Places, path: &str, streams: Streams<'_>) -> Result<Value> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let found = places.open(path, flags, Mode::empty())?;
    let is_directory = FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Directory;
    let output = BufWriter::with_capacity(BUFFER, File::from(streams.output));
    let mut packer = Packer {
        builder: Builder::new(output),
        packed: HashMap::new(),
    };
    if is_directory {
        // Its own name where it has one; what is in it otherwise, as `tar -C directory .` does.
        let name = Path::new(path).file_name().map(PathBuf::from);
        let directory = places.open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        packer.directory(directory, &name.unwrap_or_else(|| ".".into()), 0)?;
    } else {
        let place = places.place(path)?;
        let name = Path::new(path).file_name().map(PathBuf::from);
        packer.entry(
            place.directory.as_fd(),
            &place.name,
            &name.unwrap_or_default(),
            0,
        )?;
    }
    packer.builder.into_inner()?.flush()?;
    Ok(Value::Null)
}

struct Packer<W: Write> {
    builder: Builder<W>,
    /// Files with several names, by device and number: the name that each was packed under.
    packed: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    fn directory(&mut self, directory: OwnedFd, path: &Path, depth: usize) -> Result<()> {
        let mut header = header_of(&fstat(&directory)?, EntryType::Directory);
        header.set_size(0);
        self.builder.append_data(&mut header, path, io::empty())?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let inner = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            self.entry(directory.as_fd(), name, &inner, depth + 1)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: &Path,
        depth: usize,
    ) -> Result<()> {
        let at = |failure: Failure| failure.context(format_args!("`{}`", path.display()));
        if depth > MAX_DEPTH {
            return Err(at(Failure::invalid_argument(format_args!(
                "more than {MAX_DEPTH} directories deep"
            ))));
        }
        let found = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            // One that is gone meanwhile is not there.
            Err(Errno::NOENT) if depth > 0 => return Ok(()),
            Err(errno) => return Err(at(errno.into())),
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = openat(directory, name, flags, Mode::empty());
                self.directory(inner.map_err(|errno| at(errno.into()))?, path, depth)
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new())?;
                let target = Path::new(std::ffi::OsStr::from_bytes(target.to_bytes())).to_owned();
                let mut header = header_of(&found, EntryType::Symlink);
                header.set_size(0);
                Ok(self.builder.append_link(&mut header, path, target)?)
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(directory, name, flags, Mode::empty());
                let file = file.map_err(|errno| at(errno.into()))?;
                let found = fstat(&file)?;
                if found.st_nlink > 1 {
                    match self.packed.entry((found.st_dev, found.st_ino)) {
                        hash_map::Entry::Occupied(first) => {
                            let mut header = header_of(&found, EntryType::Link);
                            header.set_size(0);
                            let appended = self.builder.append_link(&mut header, path, first.get());
                            return Ok(appended?);
                        }
                        hash_map::Entry::Vacant(first) => drop(first.insert(path.to_owned())),
                    }
                }
                let size = u64::try_from(found.st_size).unwrap_or(0);
                let mut header = header_of(&found, EntryType::Regular);
                header.set_size(size);
                let mut content = Exactly {
                    file: File::from(file),
                    left: size,
                };
                self.builder
                    .append_data(&mut header, path, &mut content)
                    .map_err(|error| at(error.into()))
            }
            // Sockets, pipes and devices are of no use elsewhere.
            _ => Ok(()),
        }
    }
}

fn header_of(found: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(Mode::from_raw_mode(found.st_mode).bits());
    header.set_uid(found.st_uid.into());
    header.set_gid(found.st_gid.into());
    header.set_mtime(u64::try_from(found.st_mtime).unwrap_or(0));
    header
}

/// A file that has as many bytes as its header says: more are left out, fewer are an error.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.file.read(buffer.get_mut(..most).unwrap_or_default())?;
        if read == 0 && most > 0 {
            return Err(io::Error::other(
                "the file became shorter while it was read",
            ));
        }
        self.left -= read as u64;
        Ok(read)
    }
}
