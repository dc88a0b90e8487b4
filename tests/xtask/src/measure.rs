//! `cargo measure`: the cost of things beside their floor, in one run.

use crate::step::{cargo, step};

pub(crate) fn run() -> Result<(), String> {
    step("build", cargo().args(["build", "--release"]))?;
    step(
        "measure",
        cargo().args([
            "bench",
            "--package",
            "boxyard-conformance",
            "--bench",
            "cost",
        ]),
    )
}
