//! The conformance tests of Boxyard.

pub mod fixtures;
pub mod loopback;
