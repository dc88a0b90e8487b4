//! Support for testing Boxyard with real plugins: build them, alter them, load them.
//!
//! 1. [`Library`] is a plugin's shared library: a fixture of this package or a plugin of the
//!    workspace, built once for all tests. A test renames it, lies in its manifest or breaks
//!    its bytes; nothing is built again for that.
//! 2. [`Yard`] is a plugin directory with a host's state and cache beside it. A test puts
//!    libraries in it and starts hosts on it. One process can hold many hosts, for each yard
//!    has a cache of its own: the dynamic linker takes one file for one library.
//! 3. [`Loopback`](loopback::Loopback) is a placement that turns everything that crosses between
//!    a host and its plugins into bytes and back.
//! 4. [`cargo`] builds what is no part of the workspace.
//! 5. [`libtest`] makes the cases tests of a plugin's own package.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use boxyard_conformance::{Library, Yard};
//!
//! let yard = Yard::new()?;
//! yard.put("good.so", &Library::example("good")?)?;
//! let host = yard.host().await?;
//! assert_eq!(host.registry().types().count(), 1);
//! host.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod cargo;
mod case;
pub mod cases;
pub mod interrupt;
mod isolate;
mod library;
pub mod libtest;
pub mod loopback;
pub mod report;
pub mod subject;
pub mod suite;
mod verdict;
mod yard;

pub use case::{Case, Level, Needs, Running};
pub use library::Library;
pub use verdict::{Finding, Outcome, Verdict};
pub use yard::Yard;

/// A variable of the harness's own environment, whose value no sandbox, log or document may have.
pub(crate) const HOST_SECRET: &str = "BOXYARD_CONFORMANCE_SECRET";

/// The value of [`HOST_SECRET`], in the process of a case.
pub(crate) fn secret() -> String {
    std::env::var(HOST_SECRET).unwrap_or_else(|_| "no-secret-was-set".into())
}
