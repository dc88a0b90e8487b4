//! What the host asks for: the documents that open a channel.
//!
//! Their fields are those of the plugin API's types of the same names.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A request. Fields that this version does not know are ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    ExecuteCommand(Command),
    Processes {},
    ReadFile(ReadFile),
    WriteFile(WriteFile),
    Stat { path: String },
    List { path: String },
    Remove(RemovePath),
    MakeDirectory(MakeDirectory),
    PutArchive { directory: String },
    GetArchive { path: String },
}

impl Request {
    /// Returns whether the request reads its input.
    pub(crate) fn has_input(&self) -> bool {
        match self {
            Self::ExecuteCommand(command) => command.stdin,
            Self::WriteFile(_) | Self::PutArchive { .. } => true,
            _ => false,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Command {
    pub(crate) program: Program,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) clear_env: bool,
    #[serde(default)]
    pub(crate) working_dir: Option<String>,
    #[serde(default)]
    pub(crate) user: Option<String>,
    #[serde(default)]
    pub(crate) tty: Option<TerminalSize>,
    #[serde(default)]
    pub(crate) stdin: bool,
    #[serde(default)]
    pub(crate) timeout_ms: Option<u64>,
    #[serde(default)]
    pub(crate) limits: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Program {
    Shell(String),
    Argv(Vec<String>),
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct TerminalSize {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ReadFile {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) offset: u64,
    #[serde(default)]
    pub(crate) length: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct WriteFile {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) mode: Option<u32>,
    #[serde(default)]
    pub(crate) make_parents: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RemovePath {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) recursive: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct MakeDirectory {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) mode: Option<u32>,
    #[serde(default)]
    pub(crate) parents: bool,
}
