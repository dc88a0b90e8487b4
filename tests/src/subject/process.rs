//! What belongs to the whole process, and so to the host.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::Result;

/// What of a process only its host may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProcessState {
    pub(crate) working_dir: PathBuf,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) umask: String,
    /// The signals that it handles and those that it ignores, a bit each.
    pub(crate) signals: [String; 2],
    pub(crate) children: String,
}

impl ProcessState {
    pub(crate) fn now() -> Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let mut children = String::new();
        for task in fs::read_dir("/proc/self/task")? {
            // A thread that has just ended has none.
            let of_thread = fs::read_to_string(task?.path().join("children"));
            children.push_str(&of_thread.unwrap_or_default());
        }
        Ok(Self {
            working_dir: std::env::current_dir()?,
            environment: std::env::vars().collect(),
            umask: field("Umask:"),
            signals: [field("SigCgt:"), field("SigIgn:")],
            children,
        })
    }
}
