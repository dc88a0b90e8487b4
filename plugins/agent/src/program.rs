//! The agent's program, as a plugin carries it.

use std::{
    borrow::Cow,
    env::consts::ARCH,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use boxyard_plugin_api::{Error, ErrorCode, Result};

/// The program that was built with this library.
const EMBEDDED: &[u8] = include_bytes!(env!("BOXYARD_AGENT_PROGRAM"));
/// The architecture that it was built for.
const EMBEDDED_ARCH: &str = env!("BOXYARD_AGENT_ARCH");

/// The agent's program for one architecture: a static Linux executable.
#[derive(Clone, Debug)]
pub struct Program {
    bytes: Cow<'static, [u8]>,
}

impl Program {
    /// Returns the program for the machine that we run on.
    ///
    /// # Errors
    ///
    /// As [`Program::for_arch`].
    pub fn for_this_machine(data_dir: &Path) -> Result<Self> {
        Self::for_arch(ARCH, data_dir)
    }

    /// Returns the program for an architecture, spelt as in Rust's `std::env::consts::ARCH`:
    /// the one that this plugin was built with, or the file `boxyard-agent-ARCH` of the
    /// plugin's data directory.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::FAILED_PRECONDITION`], naming the architecture and what to do.
    pub fn for_arch(arch: &str, data_dir: &Path) -> Result<Self> {
        if arch == EMBEDDED_ARCH && !EMBEDDED.is_empty() {
            return Ok(Self {
                bytes: Cow::Borrowed(EMBEDDED),
            });
        }
        let file = data_dir.join(format!("boxyard-agent-{arch}"));
        match fs::read(&file) {
            Ok(bytes) => Ok(Self {
                bytes: Cow::Owned(bytes),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::new(
                ErrorCode::FAILED_PRECONDITION,
                format_args!(
                    "there is no guest agent for architecture `{arch}`: this plugin carries one \
                     for `{EMBEDDED_ARCH}`; build `boxyard-agent` for {arch} and put it at {}",
                    file.display()
                ),
            )),
            Err(error) => Err(Error::from(error).context(file.display())),
        }
    }

    /// Returns the executable's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes sure that a file is this program, and one that everybody may execute.
    ///
    /// Whoever runs what was there before goes on with that. A failure leaves nothing else behind.
    ///
    /// # Errors
    ///
    /// What the system says, with the file's name.
    pub fn write_to(&self, path: &Path) -> Result<()> {
        put(path, self.bytes()).map_err(|error| {
            Error::from(error).context(format_args!(
                "writing the guest agent to {}",
                path.display()
            ))
        })
    }
}

/// Compares a file piece by piece: fresh pages for all of it would cost more.
fn holds(path: &Path, mut expected: &[u8]) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut piece)?;
        let found = piece.get(..read).unwrap_or_default();
        match expected.split_at_checked(read) {
            Some((head, rest)) if head == found => expected = rest,
            _ => return Ok(false),
        }
        if read == 0 {
            return Ok(expected.is_empty());
        }
    }
}

/// Makes sure of what a file holds.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if holds(path, bytes).unwrap_or(false) {
        return Ok(());
    }
    // Others may be writing it, too.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let new = path.with_extension(format!("{}-{number}", std::process::id()));
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o755);
    let written = options.open(&new)?.write_all(bytes);
    let renamed = written.and_then(|()| fs::rename(&new, path));
    if renamed.is_err() {
        // What went wrong before says more than that this does, too.
        let _ = fs::remove_file(&new);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_architecture_is_named_and_a_file_is_found() {
        let data_dir = tempfile::tempdir().unwrap();
        let error = Program::for_arch("pdp11", data_dir.path()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::FAILED_PRECONDITION);
        assert!(error.message().contains("pdp11"), "{error}");
        assert!(error.message().contains("boxyard-agent-pdp11"), "{error}");
        fs::write(data_dir.path().join("boxyard-agent-pdp11"), "x").unwrap();
        let program = Program::for_arch("pdp11", data_dir.path()).unwrap();
        assert_eq!(program.bytes(), b"x");
    }

    #[test]
    fn the_embedded_program_is_static_and_small() {
        let program = Program::for_this_machine(Path::new("/nonexistent")).unwrap();
        assert!(program.bytes().starts_with(b"\x7fELF"));
        let size = program.bytes().len();
        assert!(size <= 3 << 19, "{size} bytes, expected at most 1.5 MiB");
        let interpreter = b"/ld-linux";
        let mut windows = program.bytes().windows(interpreter.len());
        assert!(!windows.any(|window| window == interpreter));
    }

    #[test]
    fn a_file_is_put_once_and_replaced_when_it_differs() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let inode = || fs::metadata(&path).unwrap().ino();
        put(&path, b"first").unwrap();
        let first = inode();
        put(&path, b"first").unwrap();
        assert_eq!(inode(), first);
        // Whoever runs the first keeps it, so that its number is not taken again.
        let _running = File::open(&path).unwrap();
        put(&path, b"second").unwrap();
        assert_ne!(inode(), first);
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_put_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::create_dir(&path).unwrap();
        put(&path, b"new").unwrap_err();
        let left = fs::read_dir(directory.path()).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["program"]);
    }

    #[test]
    fn a_file_may_be_put_by_many_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let bytes = vec![7; 1 << 20];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| put(&path, &bytes).unwrap());
            }
        });
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
