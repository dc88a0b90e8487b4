//! Finding the program of a command, and what a shell says where it cannot run one.

use std::{io, path::Path};

use rustix::io::Errno;

use crate::request::Program;

/// What runs a [`Program::Shell`].
const SHELL: &str = "/bin/sh";
/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command taken apart: the files to try, and the arguments that the first that works gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invocation {
    /// Relative ones start at the command's directory.
    pub(super) candidates: Vec<String>,
    pub(super) argv: Vec<String>,
}

impl Invocation {
    /// Lists where a program may be; a name with a slash is taken as it is.
    pub(super) fn new(program: &Program, path: Option<&str>) -> Self {
        let argv = match program {
            Program::Shell(line) => {
                return Self {
                    candidates: vec![SHELL.into()],
                    argv: vec!["sh".into(), "-c".into(), line.clone()],
                };
            }
            Program::Argv(argv) => argv.clone(),
        };
        let name = argv.first().map(String::as_str).unwrap_or_default();
        let candidates = match name {
            "" => Vec::new(),
            name if name.contains('/') => vec![name.into()],
            name => {
                let places = path.unwrap_or(DEFAULT_PATH).split(':');
                let candidate = |place: &str| match place {
                    // An empty place is the command's own directory.
                    "" => format!("./{name}"),
                    place => format!("{place}/{name}"),
                };
                places.map(candidate).collect()
            }
        };
        Self { candidates, argv }
    }

    fn name(&self) -> &str {
        self.argv.first().map(String::as_str).unwrap_or_default()
    }
}

/// A program that cannot be run: how the command ends and what its standard error says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) exit_code: i32,
    pub(super) message: String,
}

impl Refusal {
    /// What executing a program in `place` failed with, as a shell has it.
    pub(super) fn new(invocation: &Invocation, errno: Errno, place: &Path) -> Self {
        let missing = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::NAMETOOLONG];
        let exit_code = if missing.contains(&errno) { 127 } else { 126 };
        let candidates = &invocation.candidates;
        let is_directory = |candidate: &String| place.join(candidate).is_dir();
        let reason = match errno {
            Errno::NOENT => "not found".into(),
            Errno::ACCESS if candidates.iter().any(is_directory) => "Is a directory".into(),
            Errno::ACCESS | Errno::PERM => "Permission denied".into(),
            Errno::NOEXEC => "Exec format error".into(),
            other => {
                let text = io::Error::from(other).to_string();
                let end = text.find(" (os error").unwrap_or(text.len());
                text.get(..end).unwrap_or_default().to_owned()
            }
        };
        // A name may hold anything; the message is one line.
        let name = invocation.name().replace(char::is_control, "?");
        Self {
            exit_code,
            message: format!("sh: {name}: {reason}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(name: &str) -> Program {
        Program::Argv(vec![name.into(), "1 2".into()])
    }

    #[test]
    fn a_plain_name_is_looked_for_and_a_path_is_taken() {
        for (name, path, candidates) in [
            ("x", Some("/a:b:"), &["/a/x", "b/x", "./x"][..]),
            ("./x", Some("/a"), &["./x"]),
            ("/x", None, &["/x"]),
            ("", Some("/a"), &[]),
        ] {
            let invocation = Invocation::new(&argv(name), path);
            assert_eq!(invocation.candidates, candidates);
            assert_eq!(invocation.argv, [name, "1 2"]);
        }
        assert!(
            Invocation::new(&argv("x"), None)
                .candidates
                .contains(&"/bin/x".into())
        );
        let shell = Invocation::new(&Program::Shell("a b".into()), None);
        assert_eq!(shell.argv, ["sh", "-c", "a b"]);
    }

    #[test]
    fn a_refusal_is_one_line_and_has_the_shells_code() {
        for (name, errno, exit_code, message) in [
            ("x", Errno::NOENT, 127, "sh: x: not found\n"),
            ("q\nr", Errno::NOENT, 127, "sh: q?r: not found\n"),
            ("./x", Errno::ACCESS, 126, "sh: ./x: Permission denied\n"),
            ("/", Errno::ACCESS, 126, "sh: /: Is a directory\n"),
            ("./x", Errno::NOEXEC, 126, "sh: ./x: Exec format error\n"),
        ] {
            let invocation = Invocation::new(&argv(name), None);
            let refusal = Refusal::new(&invocation, errno, Path::new("/"));
            assert_eq!(
                (refusal.exit_code, refusal.message.as_str()),
                (exit_code, message)
            );
        }
    }
}
