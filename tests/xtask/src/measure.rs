//! `cargo measure`: the cost of things beside their floor, in one run.

use crate::step::{cargo, step};

pub(crate) fn run() -> Result<(), String> {
    step("build", cargo().args(["build", "--release"]))?;
    for (package, bench) in [
        ("boxyard-conformance", "cost"),
        ("boxyard-conformance", "docker"),
        ("boxyard-agent", "cost"),
    ] {
        let arguments = ["bench", "--package", package, "--bench", bench];
        step(
            &format!("measure {package} {bench}"),
            cargo().args(arguments),
        )?;
    }
    Ok(())
}
