//! The crate as its two sides use it, in one process: a host's calls on one end, a plugin that
//! `register_plugin!` registered on the other, and the stable ABI between them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]

mod documents;
mod golden;
mod host;
mod layout;
mod methods;
mod open;
mod panic;
mod plugin;
mod roundtrip;
