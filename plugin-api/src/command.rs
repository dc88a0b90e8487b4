//! A command, its streams and how it ended.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ByteSink, ByteSource, Error, Result};

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// A line for `sh -c`.
    Shell(String),
    /// A program and its arguments, run as they are and never joined.
    Argv(Vec<String>),
}

impl Program {
    /// Returns the argument vector that is executed.
    pub fn to_argv(&self) -> Vec<String> {
        match self {
            Self::Shell(line) => vec!["sh".into(), "-c".into(), line.clone()],
            Self::Argv(argv) => argv.clone(),
        }
    }
}

/// A command and everything it is asked to run with.
///
/// ```
/// use std::time::Duration;
/// use boxyard_plugin_api::Command;
///
/// let command = Command::argv(["ls", "-l"]).env("LANG", "C").timeout(Duration::from_secs(5));
/// assert_eq!(command.program.to_argv(), ["ls", "-l"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// Variables added to the sandbox's environment, or the whole of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whether `env` is the whole environment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clear_env: bool,
    /// Where to run it; the sandbox's own working directory where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// A user name, a uid or `uid:gid`; the sandbox's own user where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The size of its terminal; no terminal where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TerminalSize>,
    /// Whether its standard input is [`CommandIo::stdin`]; otherwise it reads nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// How long it may run before it and all its descendants are killed.
    #[serde(
        default,
        with = "milliseconds",
        rename = "timeout_ms",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<Duration>,
    /// Limits for this command, by `setrlimit` name in lower case (`nofile`, `cpu`, …).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, u64>,
}

impl Command {
    /// Makes a command that runs `line` under `sh -c`.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new(Program::Shell(line.into()))
    }

    /// Makes a command that runs a program with its arguments.
    pub fn argv<I: IntoIterator<Item = S>, S: Into<String>>(argv: I) -> Self {
        Self::new(Program::Argv(argv.into_iter().map(Into::into).collect()))
    }

    fn new(program: Program) -> Self {
        Self {
            program,
            env: BTreeMap::new(),
            clear_env: false,
            working_dir: None,
            user: None,
            tty: None,
            stdin: false,
            timeout: None,
            limits: BTreeMap::new(),
        }
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets the directory it runs in.
    #[must_use]
    pub fn working_dir(mut self, directory: impl Into<String>) -> Self {
        self.working_dir = Some(directory.into());
        self
    }

    /// Sets how long it may run.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Checks what no backend can run: an empty argv, and NUL bytes anywhere.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::INVALID_ARGUMENT`](crate::ErrorCode::INVALID_ARGUMENT), naming the part that is wrong.
    pub fn validate(&self) -> Result<()> {
        fn no_nul(what: impl fmt::Display, text: &str) -> Result<()> {
            match text.find('\0') {
                None => Ok(()),
                Some(at) => Err(Error::invalid_argument(format_args!(
                    "{what} has a NUL byte at offset {at}, which no program can be given"
                ))),
            }
        }
        match &self.program {
            Program::Shell(line) => no_nul("the command line", line)?,
            Program::Argv(argv) => {
                if argv.is_empty() {
                    return Err(Error::invalid_argument(
                        "the command is empty: expected a program and its arguments",
                    ));
                }
                for (index, argument) in argv.iter().enumerate() {
                    no_nul(format_args!("argument {index}"), argument)?;
                }
            }
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains('=') {
                return Err(Error::invalid_argument(format_args!(
                    "environment variable name `{name}` is empty or has an `=`"
                )));
            }
            no_nul("an environment variable name", name)?;
            no_nul(format_args!("environment variable `{name}`"), value)?;
        }
        if let Some(directory) = &self.working_dir {
            no_nul("the working directory", directory)?;
        }
        Ok(())
    }
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// The streams of a running command.
///
/// A backend reads `stdin` when [`Command::stdin`] says so, writes and finishes `stdout`
/// and `stderr`, and obeys `controls`.
#[derive(Debug)]
pub struct CommandIo {
    /// What the command reads.
    pub stdin: ByteSource,
    /// Where its standard output goes; with a terminal, everything it prints.
    pub stdout: ByteSink,
    /// Where its standard error goes.
    pub stderr: ByteSink,
    /// Signals and terminal sizes to pass on while it runs.
    pub controls: Controls,
}

/// Something to do to a running command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "ControlDocument")]
#[non_exhaustive]
pub enum Control {
    /// Send it this signal.
    Signal(i32),
    /// Give its terminal this size.
    Resize(TerminalSize),
}

/// A [`Control`] among fields that this version does not know, which an enum would refuse.
#[derive(Deserialize)]
struct ControlDocument {
    signal: Option<i32>,
    resize: Option<TerminalSize>,
}

impl TryFrom<ControlDocument> for Control {
    type Error = &'static str;

    fn try_from(document: ControlDocument) -> Result<Self, Self::Error> {
        match (document.signal, document.resize) {
            (Some(number), None) => Ok(Self::Signal(number)),
            (None, Some(size)) => Ok(Self::Resize(size)),
            _ => Err("expected one of `signal` and `resize`"),
        }
    }
}

/// The controls of a running command, in order; one JSON document a line on the wire.
#[derive(Debug)]
pub struct Controls {
    source: ByteSource,
    pending: Vec<u8>,
}

impl Controls {
    /// Reads controls from lines of JSON.
    pub fn from_source(source: ByteSource) -> Self {
        Self {
            source,
            pending: Vec::new(),
        }
    }

    /// Makes controls that never come.
    pub fn none() -> Self {
        Self::from_source(ByteSource::empty())
    }

    /// Returns the bytes that the controls are read from.
    pub fn into_source(self) -> ByteSource {
        self.source
    }

    /// Waits for the next control; `None` when there will be no more.
    ///
    /// Cancel-safe. A control of a kind that this version does not know is passed over.
    ///
    /// # Errors
    ///
    /// What reading the stream answers, and a line over 64 KiB.
    pub async fn next(&mut self) -> Result<Option<Control>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                if let Ok(control) = serde_json::from_slice(&line) {
                    return Ok(Some(control));
                }
                continue;
            }
            if self.pending.len() > 64 * 1024 {
                return Err(Error::invalid_argument("a control is longer than 64 KiB"));
            }
            match self.source.read(4096).await? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

impl Control {
    /// Returns the line that [`Controls`] reads.
    pub fn to_line(self) -> Vec<u8> {
        let text = match self {
            Self::Signal(number) => serde_json::json!({ "signal": number }),
            Self::Resize(size) => serde_json::json!({ "resize": size }),
        };
        format!("{text}\n").into_bytes()
    }
}

/// How a command ended.
///
/// `exit_code` follows the shell: 124 for a timeout, 126 for a program that cannot be
/// executed, 127 for one that is not there, 128 + N for signal N.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CommandExit {
    /// The exit code.
    pub exit_code: i32,
    /// The signal that ended it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether its timeout ended it.
    #[serde(default)]
    pub timed_out: bool,
    /// Whether the kernel killed a process of it for want of memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// How many processes were killed at its end, where the backend counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub killed: Option<u32>,
    /// How long it ran, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
}

impl CommandExit {
    /// The exit code of a command that its timeout ended.
    pub const TIMED_OUT: i32 = 124;
    /// The exit code of a program that is there but cannot be executed.
    pub const NOT_EXECUTABLE: i32 = 126;
    /// The exit code of a program that is not there.
    pub const NOT_FOUND: i32 = 127;

    /// Makes the end of a command that exited by itself.
    pub fn exited(exit_code: i32) -> Self {
        Self {
            exit_code,
            ..Self::default()
        }
    }

    /// Makes the end of a command that a signal killed.
    pub fn signalled(signal: i32) -> Self {
        Self {
            exit_code: 128 + signal,
            signal: Some(signal),
            ..Self::default()
        }
    }

    /// Makes the end of a command that ran into its timeout.
    pub fn timed_out() -> Self {
        Self {
            exit_code: Self::TIMED_OUT,
            timed_out: true,
            ..Self::default()
        }
    }
}

/// Where a sandbox's commands run, for tools and people that look from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ExecutionContext {
    /// A process of this machine.
    Process {
        /// Its process id.
        pid: u32,
    },
    /// A container.
    Container {
        /// The engine that runs it, `docker` for example.
        engine: String,
        /// Its id there.
        id: String,
    },
    /// Something of the backend's own.
    Other(Value),
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => {
                serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
            }
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_json_and_defaults_are_left_out() {
        let command = Command::shell("echo hi");
        let text = serde_json::to_string(&command).unwrap();
        assert_eq!(text, r#"{"program":{"shell":"echo hi"}}"#);
        let full = Command::argv(["a b"])
            .env("X", "1")
            .working_dir("/")
            .timeout(Duration::from_millis(1500));
        let back: Command = serde_json::from_str(&serde_json::to_string(&full).unwrap()).unwrap();
        assert_eq!(back, full);
    }

    #[test]
    fn what_no_program_can_be_given_is_refused() {
        for wrong in [
            Command::argv(Vec::<String>::new()),
            Command::shell("a\0b"),
            Command::argv(["a", "b\0"]),
            Command::shell("a").env("B=", "c"),
            Command::shell("a").env("B", "\0"),
            Command::shell("a").working_dir("/\0"),
        ] {
            assert_eq!(
                wrong.validate().unwrap_err().code(),
                crate::ErrorCode::INVALID_ARGUMENT,
                "{wrong:?}"
            );
        }
        Command::argv([""]).validate().unwrap();
    }

    #[tokio::test]
    async fn controls_are_read_whole_from_pieces_and_unknown_ones_are_passed_over() {
        let (sink, source) = crate::pipe();
        let size = TerminalSize {
            columns: 80,
            rows: 24,
        };
        let mut bytes = Control::Signal(15).to_line();
        bytes.extend(b"{\"freeze\":true}\n");
        bytes.extend(Control::Resize(size).to_line());
        let writer = tokio::spawn(async move {
            for byte in bytes {
                sink.write(vec![byte]).await.unwrap();
            }
            sink.finish().await.unwrap();
        });
        let mut controls = Controls::from_source(source);
        assert_eq!(controls.next().await.unwrap(), Some(Control::Signal(15)));
        assert_eq!(controls.next().await.unwrap(), Some(Control::Resize(size)));
        assert_eq!(controls.next().await.unwrap(), None);
        writer.await.unwrap();
    }
}
