//! Messages: what a frame means, in each direction.

mod wire;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// A stream of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// What the request reads: standard input, a file's content, an archive.
    Stdin,
    /// What it writes: standard output, a terminal, a file's content, an archive.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The agent's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// Its process id where it runs.
    pub pid: u32,
    /// What the host gave it on its first connection; `None` on that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// The host's first message: what all commands of the sandbox start from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setup {
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// The environment of every command. Where it has no `HOME`, each has that of its user.
    pub env: BTreeMap<String, String>,
    /// Where commands run that do not say so; `/` where empty. Relative paths of files start
    /// there, too.
    pub working_dir: String,
    /// Who runs commands that do not say so; the agent's own user where `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The directory that no path of a file operation leaves; none where `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The `oom_score_adj` of commands, so that the kernel takes them before the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// The capabilities that commands keep, as `capabilities(7)` calls them without `CAP_`; all of
    /// the agent's own where `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Whether no program that a command starts gains rights by being executed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_new_privileges: bool,
    /// What the agent must show when it connects again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// How long the agent tries to connect again when the connection is lost, in
    /// milliseconds; it ends at once where 0.
    pub linger_ms: u64,
}

/// The last message on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// What went wrong; `None` after a [`FromHost::Shutdown`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a request ended: a document of its own, or an error of the plugin API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply<T, E> {
    /// What it answers.
    Ok(T),
    /// Why it failed.
    Error(E),
}

/// A message that no peer of ours sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// A kind that this direction does not have.
    Kind {
        /// The kind found.
        kind: u8,
    },
    /// A stream that this message cannot be about.
    Stream {
        /// The stream's number.
        stream: u8,
    },
    /// A channel 0 where a request is meant, or another where the connection is.
    Channel {
        /// The kind of frame.
        kind: u8,
        /// The channel found.
        channel: u32,
    },
    /// A payload of the wrong form.
    Payload {
        /// The kind of frame.
        kind: u8,
        /// What is wrong with it.
        message: String,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind { kind } => write!(f, "a frame of kind {kind}, which nobody sends this way"),
            Self::Stream { stream } => write!(f, "a frame about stream {stream}, which is none"),
            Self::Channel { kind, channel } => {
                write!(f, "a frame of kind {kind} on channel {channel}")
            }
            Self::Payload { kind, message } => {
                write!(
                    f,
                    "a frame of kind {kind} with a malformed payload: {message}"
                )
            }
        }
    }
}

impl std::error::Error for MessageError {}

/// A message from the host to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHost<'a> {
    /// Answers the agent's [`Hello`].
    Setup(Setup),
    /// Opens a channel with a request, a JSON document.
    Open {
        /// The channel: a number that is not in use.
        channel: u32,
        /// What is asked for.
        request: &'a [u8],
    },
    /// Bytes for the request's input.
    Data {
        /// The request.
        channel: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The end of the request's input.
    End {
        /// The request.
        channel: u32,
    },
    /// So many more bytes of an output may come.
    Credit {
        /// The request.
        channel: u32,
        /// Which output.
        stream: Stream,
        /// How many bytes more.
        bytes: u32,
    },
    /// Nobody reads this output any more.
    Close {
        /// The request.
        channel: u32,
        /// Which output.
        stream: Stream,
    },
    /// A signal for a command.
    Signal {
        /// The request.
        channel: u32,
        /// The signal's number.
        number: i32,
    },
    /// A size for a command's terminal.
    Resize {
        /// The request.
        channel: u32,
        /// Characters in a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// Kill the request with everything it started, and drop its output.
    Cancel {
        /// The request.
        channel: u32,
    },
    /// Kill everything and end.
    Shutdown,
}

/// A message from the agent to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromAgent<'a> {
    /// The first message.
    Hello(Hello),
    /// Bytes of an output.
    Data {
        /// The request.
        channel: u32,
        /// Which output.
        stream: Stream,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The end of an output.
    End {
        /// The request.
        channel: u32,
        /// Which output.
        stream: Stream,
    },
    /// So many more bytes of the request's input may come.
    Credit {
        /// The request.
        channel: u32,
        /// How many bytes more.
        bytes: u32,
    },
    /// Nobody reads the request's input any more.
    Close {
        /// The request.
        channel: u32,
    },
    /// How the request ended, a JSON document. With it and the ends of both outputs the
    /// channel is free again.
    Reply {
        /// The request.
        channel: u32,
        /// A [`Reply`].
        document: &'a [u8],
    },
    /// The last message.
    Goodbye(Goodbye),
}
