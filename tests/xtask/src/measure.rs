//! `cargo measure`: the cost of things beside their floor, in one run.

use crate::{
    docker::docker,
    setup,
    step::{cargo, step},
};

pub(crate) fn run() -> Result<(), String> {
    // Whatever is not there leaves its rows out, and says so.
    docker();
    let ms_enclave = setup::ms_enclave().unwrap_or_default();
    step("build", cargo().args(["build", "--release"]))?;
    for (package, bench) in [
        ("boxyard-conformance", "cost"),
        ("boxyard-conformance", "docker"),
        ("boxyard-conformance", "server"),
        ("boxyard-agent", "cost"),
    ] {
        let arguments = ["bench", "--package", package, "--bench", bench];
        step(
            &format!("measure {package} {bench}"),
            cargo()
                .args(arguments)
                .env("BOXYARD_MS_ENCLAVE_PYTHON", &ms_enclave),
        )?;
    }
    Ok(())
}
