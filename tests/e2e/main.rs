//! What Boxyard promises, tried end to end through real libraries.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is not as expected"
)]

mod cancel;
mod ending;
mod lifecycle;
mod logs;
mod panics;
mod streams;
mod sweep;
mod tools;
mod world;
