//! Finding the program of a command, and what a shell says where it cannot run one.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use boxyard_plugin_api::{CommandExit, Program};
use rustix::{
    fs::{Access, access},
    io::Errno,
};

use crate::environment::DEFAULT_PATH;

/// What runs a [`Program::Shell`].
pub(crate) const SHELL: &str = "/bin/sh";

/// A command taken apart: the file to execute and the arguments that it is given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) file: PathBuf,
    /// The program as the caller named it: its argument 0.
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
}

/// A program that cannot be run: how the command ends and what its standard error says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) exit_code: i32,
    pub(crate) message: String,
}

impl Invocation {
    /// Finds the program of a command that runs in `directory`.
    ///
    /// A name with a slash is taken as it is, and executing it says whether it is there.
    pub(crate) fn find(
        program: Program,
        path: Option<&OsStr>,
        directory: &Path,
    ) -> Result<Self, Refusal> {
        let mut argv = match program {
            Program::Shell(line) => {
                return Ok(Self {
                    file: SHELL.into(),
                    name: "sh".into(),
                    arguments: vec!["-c".into(), line],
                });
            }
            Program::Argv(argv) => argv.into_iter(),
        };
        let name = argv.next().unwrap_or_default();
        let file = if name.contains('/') {
            name.clone().into()
        } else {
            let path = path.unwrap_or(DEFAULT_PATH.as_ref());
            search(&name, path, directory).map_err(|errno| Refusal::new(&name, errno))?
        };
        Ok(Self {
            file,
            name,
            arguments: argv.collect(),
        })
    }

    /// Looks whether the program is there, without executing it.
    pub(crate) fn check(&self, directory: &Path) -> Result<(), Refusal> {
        executable(&directory.join(&self.file)).map_err(|errno| Refusal::new(&self.name, errno))
    }
}

impl Refusal {
    /// What executing `name` failed with, as a shell has it.
    pub(crate) fn new(name: &str, errno: Errno) -> Self {
        let missing = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::NAMETOOLONG];
        let exit_code = if missing.contains(&errno) {
            CommandExit::NOT_FOUND
        } else {
            CommandExit::NOT_EXECUTABLE
        };
        let reason = match errno {
            Errno::NOENT => "not found".into(),
            Errno::ACCESS | Errno::PERM => "Permission denied".into(),
            Errno::ISDIR => "Is a directory".into(),
            Errno::NOEXEC => "Exec format error".into(),
            other => {
                let text = io::Error::from(other).to_string();
                let end = text.find(" (os error").unwrap_or(text.len());
                text.get(..end).unwrap_or_default().to_owned()
            }
        };
        // A name may hold anything; the message is one line.
        let name = name.replace(char::is_control, "?");
        Self {
            exit_code,
            message: format!("sh: {name}: {reason}\n"),
        }
    }
}

/// Looks for `name` as `execvp` does: the first that can be executed wins, and one that
/// cannot is remembered.
fn search(name: &str, path: &OsStr, directory: &Path) -> Result<PathBuf, Errno> {
    let mut failure = Errno::NOENT;
    if name.is_empty() {
        return Err(failure);
    }
    for place in path.as_bytes().split(|byte| *byte == b':') {
        // An empty place is the command's own directory.
        let candidate = directory.join(OsStr::from_bytes(place)).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => failure = errno,
        }
    }
    Err(failure)
}

fn executable(file: &Path) -> Result<(), Errno> {
    access(file, Access::EXEC_OK)?;
    if file.is_dir() {
        return Err(Errno::ISDIR);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
    };

    use super::*;

    #[test]
    fn the_first_executable_on_the_path_wins() {
        let place = tempfile::tempdir().unwrap();
        for (file, mode) in [
            ("a/x", 0o600),
            ("b/x", 0o700),
            ("c/x", 0o700),
            ("a/y", 0o600),
        ] {
            let file = place.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(place.path().join("a/z")).unwrap();
        let find = |name: &str, path: &str| {
            let argv = Program::Argv(vec![name.into(), "1 2".into()]);
            Invocation::find(argv, Some(path.as_ref()), place.path())
        };
        let found = find("x", "nowhere:a:b:c").unwrap();
        assert_eq!(found.file, place.path().join("b/x"));
        assert_eq!(
            (found.name.as_str(), found.arguments),
            ("x", vec!["1 2".to_owned()])
        );
        assert_eq!(find("./any", "a").unwrap().file, Path::new("./any"));
        for (name, exit_code, message) in [
            ("x", 126, "sh: x: Permission denied\n"),
            ("z", 126, "sh: z: Is a directory\n"),
            ("q\nr", 127, "sh: q?r: not found\n"),
            ("", 127, "sh: : not found\n"),
        ] {
            let refusal = find(name, "a").unwrap_err();
            assert_eq!(refusal.exit_code, exit_code, "{name}");
            assert_eq!(refusal.message, message);
        }
        assert!(find("b", "").unwrap_err().exit_code == 126);
        assert!(Invocation::find(Program::Argv(vec!["true".into()]), None, place.path()).is_ok());
    }

    #[test]
    fn a_program_with_a_slash_can_be_checked_in_its_directory() {
        let find = |name: &str| {
            Invocation::find(Program::Argv(vec![name.into()]), None, Path::new("/bin")).unwrap()
        };
        find("./sh").check(Path::new("/bin")).unwrap();
        assert_eq!(
            find("./no").check(Path::new("/bin")).unwrap_err().exit_code,
            127
        );
        assert_eq!(
            find("/bin").check(Path::new("/")).unwrap_err().exit_code,
            126
        );
    }
}
