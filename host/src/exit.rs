//! The exit codes of the `boxyard` program.
//!
//! `run` and `exec` end with the code of the command that they ran, or with one of these.

/// All went well.
pub const SUCCESS: u8 = 0;
/// What was asked for failed: a plugin was refused, a tool answered an error.
pub const FAILURE: u8 = 1;
/// The request itself is wrong: flags, parameters, a sandbox's configuration.
pub const USAGE: u8 = 2;
/// The configuration file is wrong.
pub const CONFIG: u8 = 78;
/// Boxyard could not run the command at all.
pub const NOT_RUN: u8 = 125;
/// Ctrl-C: 128 and the signal's number.
pub const INTERRUPTED: u8 = 130;
/// SIGTERM: 128 and the signal's number.
pub const TERMINATED: u8 = 143;
/// SIGHUP: 128 and the signal's number.
pub const HUNG_UP: u8 = 129;
