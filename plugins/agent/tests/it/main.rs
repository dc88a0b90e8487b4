//! The agent as a plugin has it: the real client against the real program.
//!
//! Most of this asks for root, as an agent in a container is; a test that needs it and has it
//! not says so on standard error and passes; with `BOXYARD_REQUIRE_ALL=1` it fails.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as expected"
)]

mod archives;
mod boundary;
mod cgroup;
mod files;
mod harness;
mod killing;
mod protocol;
mod terminals;
mod users;
