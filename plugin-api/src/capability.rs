//! What a sandbox type says that it can do.

use std::fmt;

/// One thing that a sandbox type can do; what it does not declare it answers with
/// `Unsupported`.
///
/// The names are open: a host ignores those it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(pub &'static str);

impl Capability {
    /// Runs commands.
    pub const COMMANDS: Self = Self("commands");
    /// Gives a command a terminal, and resizes it.
    pub const TERMINAL: Self = Self("terminal");
    /// Runs a command as another user.
    pub const USERS: Self = Self("users");
    /// Reads, writes, lists and removes files.
    pub const FILES: Self = Self("files");
    /// Puts and gets tar archives.
    pub const ARCHIVES: Self = Self("archives");
    /// Measures a sandbox.
    pub const STATS: Self = Self("stats");
    /// Keeps a log of what the sandbox itself printed.
    pub const LOGS: Self = Self("logs");
    /// Brings a sandbox back to the state it started in.
    pub const RESET: Self = Self("reset");
    /// Finds its sandboxes again after the host restarted.
    pub const RECOVERY: Self = Self("recovery");
    /// Removes what a dead host left behind.
    pub const SWEEP: Self = Self("sweep");
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}
