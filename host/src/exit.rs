//! The exit codes of the `boxyard` program.
//!
//! `run` ends with the code of the command that it ran, or with one of these.

/// All went well.
pub const SUCCESS: u8 = 0;
/// What was asked for failed: a plugin was refused, a tool answered an error.
pub const FAILURE: u8 = 1;
/// The flags are wrong, or what they name cannot be read. What is read and does not fit the sandbox type
/// or the tool is [`NOT_RUN`].
pub const USAGE: u8 = 2;
/// The configuration file is wrong.
pub const CONFIG: u8 = 78;
/// Boxyard could not try the command or the tool: there is no such type or tool, the sandbox's
/// configuration or the tool's parameters do not fit, or the backend failed.
pub const NOT_RUN: u8 = 125;
/// Ctrl-C: 128 and the signal's number.
pub const INTERRUPTED: u8 = 130;
/// SIGTERM: 128 and the signal's number.
pub const TERMINATED: u8 = 143;
/// SIGHUP: 128 and the signal's number.
pub const HUNG_UP: u8 = 129;
