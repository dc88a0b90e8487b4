//! Files: every request about them, served where the sandbox's paths mean something.

mod archive;
mod place;
mod write;

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use boxyard_agent::remove_tree;
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat, readlinkat,
        statat, unlinkat,
    },
    io::Errno,
};
use serde::Serialize;
use serde_json::Value;

use self::place::{Place, Places};
use super::{Told, World, credentials, told};
use crate::{
    failure::{Failure, Result},
    request::{MakeDirectory, ReadFile, RemovePath, Request},
    sys,
};

/// The streams of a request about files.
#[derive(Debug)]
pub(super) struct Streams<'a> {
    /// A file's content or an archive, from the host.
    pub(super) input: OwnedFd,
    /// The same, to the host; a listing, too.
    pub(super) output: OwnedFd,
    pub(super) line: BorrowedFd<'a>,
}

impl Streams<'_> {
    /// Waits for the agent to say whether the input, which was read to its end, is whole.
    ///
    /// # Errors
    ///
    /// It was broken off.
    fn complete(&self) -> Result<()> {
        loop {
            match told(self.line)? {
                Told::Complete => return Ok(()),
                Told::Cancel | Told::AgentGone => {
                    return Err(Failure::aborted("the input was broken off"));
                }
                Told::Signal(_) | Told::Other => {}
            }
        }
    }
}

/// What is at a path, as the plugin API's type of that name has it.
#[derive(Debug, Serialize)]
struct FileInfo {
    name: String,
    kind: &'static str,
    size: u64,
    mode: u32,
    modified_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

/// Serves one request, with the rights of the user that the sandbox's commands run as.
///
/// # Errors
///
/// The runner did not become itself again, and must not go on.
pub(super) fn serve(
    request: Request,
    streams: Streams<'_>,
    world: &World,
) -> io::Result<Result<Value>> {
    let begun = (|| {
        let user = credentials(world.setup.user.as_deref())?;
        // As ourselves: a user may be given a directory that he cannot find by himself.
        let places = Places::new(&world.setup)?;
        let actor = sys::act_as(user.as_ref(), world.capabilities).map_err(|errno| {
            Failure::from(errno).context("acting as the user of the sandbox's commands")
        })?;
        Ok((places, actor))
    })();
    let (places, actor) = match begun {
        Ok(begun) => begun,
        Err(failure) => return Ok(Err(failure)),
    };
    let answer = answer(request, streams, &places);
    actor.return_to_itself()?;
    Ok(answer)
}

fn answer(request: Request, streams: Streams<'_>, places: &Places) -> Result<Value> {
    match request {
        Request::ReadFile(request) => read_file(places, &request, streams),
        Request::WriteFile(request) => write::write_file(places, &request, streams),
        Request::Stat { path } => stat(places, &path),
        Request::List { path } => list(places, &path, streams),
        Request::Remove(request) => remove(places, &request),
        Request::MakeDirectory(request) => make_directory(places, &request),
        Request::PutArchive { directory } => archive::put(places, &directory, streams),
        Request::GetArchive { path } => archive::get(places, &path, streams),
        Request::ExecuteCommand(_) | Request::Processes {} => {
            Err(Failure::internal("a request that is not about files"))
        }
    }
}

fn read_file(places: &Places, request: &ReadFile, streams: Streams<'_>) -> Result<Value> {
    let at = |error: io::Error| Failure::from(error).context(format_args!("`{}`", request.path));
    // Nonblocking, so that a pipe does not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = places.open(&request.path, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::Directory {
        return Err(Failure::from(Errno::ISDIR).context(format_args!("`{}`", request.path)));
    }
    let mut file = File::from(file);
    if request.offset > 0 {
        file.seek(SeekFrom::Start(request.offset)).map_err(at)?;
    }
    let mut limited = io::Read::take(&mut file, request.length.unwrap_or(u64::MAX));
    match io::copy(&mut limited, &mut File::from(streams.output)) {
        Ok(_) => Ok(Value::Null),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(Failure::failed_precondition(format_args!(
                "`{}` has nothing to read now, and only a command waits",
                request.path
            )))
        }
        Err(error) => Err(at(error)),
    }
}

fn stat(places: &Places, path: &str) -> Result<Value> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let file = places.open(path, flags, Mode::empty())?;
    let found = fstat(&file)?;
    let info = info(path.as_bytes(), &found, file.as_fd(), c"");
    serde_json::to_value(info).map_err(Failure::internal)
}

/// Writes a line of JSON for each entry: a listing has no limit, a document has.
fn list(places: &Places, path: &str, streams: Streams<'_>) -> Result<Value> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = places.open(path, flags, Mode::empty())?;
    let mut output = io::BufWriter::new(File::from(streams.output));
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // One that is gone meanwhile is not there.
        let Ok(found) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let info = info(name.to_bytes(), &found, directory.as_fd(), name);
        serde_json::to_writer(&mut output, &info).map_err(Failure::internal)?;
        output.write_all(b"\n")?;
    }
    output.flush()?;
    Ok(Value::Null)
}

fn info(name: &[u8], found: &Stat, at: BorrowedFd<'_>, link: &std::ffi::CStr) -> FileInfo {
    let file_type = FileType::from_raw_mode(found.st_mode);
    let target = match file_type {
        FileType::Symlink => readlinkat(at, link, Vec::new()).ok(),
        _ => None,
    };
    let seconds = i128::from(found.st_mtime);
    let modified_ms = seconds * 1000 + i128::from(found.st_mtime_nsec / 1_000_000);
    FileInfo {
        name: String::from_utf8_lossy(name).into_owned(),
        kind: match file_type {
            FileType::RegularFile => "file",
            FileType::Directory => "directory",
            FileType::Symlink => "symlink",
            _ => "other",
        },
        size: u64::try_from(found.st_size).unwrap_or(0),
        mode: Mode::from_raw_mode(found.st_mode).bits(),
        modified_ms: u64::try_from(modified_ms.max(0)).unwrap_or(u64::MAX),
        target: target.map(|target| target.to_string_lossy().into_owned()),
    }
}

fn remove(places: &Places, request: &RemovePath) -> Result<Value> {
    let at = |failure: Failure| failure.context(format_args!("`{}`", request.path));
    let Place { directory, name } = places.place(&request.path)?;
    if request.recursive {
        // Only here is it an error that nothing is there.
        statat(&directory, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| at(errno.into()))?;
        remove_tree(&directory, &name).map_err(|error| at(error.into()))?;
        return Ok(Value::Null);
    }
    let removed = match unlinkat(&directory, &*name, AtFlags::empty()) {
        Err(refused @ (Errno::ISDIR | Errno::PERM)) => {
            match unlinkat(&directory, &*name, AtFlags::REMOVEDIR) {
                // A file that we may not remove.
                Err(Errno::NOTDIR) => Err(refused),
                result => result,
            }
        }
        result => result,
    };
    removed.map_err(|errno| at(errno.into()))?;
    Ok(Value::Null)
}

fn make_directory(places: &Places, request: &MakeDirectory) -> Result<Value> {
    let mode = request.mode.unwrap_or(0o755) & 0o7777;
    let at = |errno: Errno| Failure::from(errno).context(format_args!("`{}`", request.path));
    if request.parents {
        return match make_directories(places, &request.path, mode) {
            Ok(_) => Ok(Value::Null),
            // What is there and no directory is in the way.
            Err(_) if is_there(places, &request.path) => Err(at(Errno::EXIST)),
            Err(failure) => Err(failure),
        };
    }
    let place = places.place(&request.path)?;
    make_in(&place, mode).map_err(at)?;
    Ok(Value::Null)
}

fn is_there(places: &Places, path: &str) -> bool {
    places.place(path).is_ok_and(|Place { directory, name }| {
        statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    })
}

/// Makes a directory and all above it that are missing; those that are there stay as they are.
fn make_directories(places: &Places, path: &str, mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match places.open(path, flags, Mode::empty()) {
        Err(failure) if failure.is(Errno::NOENT) || failure.is(Errno::NOTDIR) => {}
        found => return found,
    }
    let parent = parent_of(path);
    let place = match places.place(path) {
        Err(failure) if failure.is(Errno::NOENT) && !parent.is_empty() => {
            make_directories(places, parent, 0o755)?;
            places.place(path)?
        }
        place => place?,
    };
    match make_in(&place, mode) {
        // Somebody else made it meanwhile, or it is something else.
        Ok(()) | Err(Errno::EXIST) => places.open(path, flags, Mode::empty()),
        Err(errno) => Err(Failure::from(errno).context(format_args!("`{path}`"))),
    }
}

/// Returns the path of the directory above, empty where the path has none.
fn parent_of(path: &str) -> &str {
    let parent = Path::new(path).parent();
    parent.and_then(Path::to_str).unwrap_or_default()
}

fn make_in(place: &Place, mode: u32) -> Result<(), Errno> {
    let Place { directory, name } = place;
    // Ours to open until it has the mode that it is to have, which is past the umask.
    mkdirat(directory, &**name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(directory, &**name, flags, Mode::empty())?;
    fchmod(made, Mode::from_raw_mode(mode))
}
