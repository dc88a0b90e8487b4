//! What Boxyard promises, tried end to end through real libraries.

mod cancel;
mod ending;
mod lifecycle;
mod logs;
mod panics;
mod streams;
mod sweep;
mod tools;
mod world;
