//! The agent's program, as a plugin carries it.

use std::{borrow::Cow, env::consts::ARCH, fs, io, path::Path};

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
}
