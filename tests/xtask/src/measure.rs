//! `cargo measure`: the cost of things beside their floor, in one run.

use crate::step::{cargo, step};

pub(crate) fn run() -> Result<(), String> {
    step("build", cargo().args(["build", "--release"]))?;
    for package in ["boxyard-conformance", "boxyard-agent"] {
        let bench = ["bench", "--package", package, "--bench", "cost"];
        step(&format!("measure {package}"), cargo().args(bench))?;
    }
    Ok(())
}
