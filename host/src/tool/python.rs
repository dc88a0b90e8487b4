//! `python_executor`: a Python script in the sandbox.

use std::sync::Arc;

use boxyard_plugin_api::{Command, Error};
use serde::Deserialize;
use serde_json::json;

use super::{
    builtin::{Description, Limit, Outcome, timeout_property},
    scratch::Scratch,
};
use crate::sandbox::Sandbox;

/// What a sandbox without a Python says.
pub(super) const NO_PYTHON: &str =
    "there is no Python in this sandbox: neither python3 nor python is on its PATH";

#[derive(Deserialize)]
pub(super) struct Params {
    code: String,
    #[serde(default)]
    timeout: Limit,
}

pub(super) fn description() -> Description {
    let properties = json!({
        "code": { "type": "string", "description": "Python code to execute" },
        "timeout": timeout_property(),
    });
    let description = "Execute Python code in an isolated environment using IPython";
    ("python_executor", description.into(), properties, &["code"])
}

pub(super) async fn execute(params: Params, sandbox: &Arc<Sandbox>) -> Result<Outcome, Error> {
    if params.code.trim().is_empty() {
        return Ok(Outcome::error("No code provided"));
    }
    let scratch = Scratch::with(sandbox, "script.py", params.code).await?;
    let script = format!("{}/script.py", scratch.path());
    let mut command = interpreter(["python", "python3"], "", &script);
    command.timeout = Some(params.timeout.duration());
    let result = sandbox.run(command, None).await?;
    Ok(Outcome::of(&result, &params.timeout))
}

/// Returns a command that becomes the first interpreter of these names that the sandbox has, and runs
/// `program` with it, behind `options`.
pub(super) fn interpreter(names: [&str; 2], options: &str, program: &str) -> Command {
    let tried = names
        .map(|name| format!(r#"command -v {name} >/dev/null 2>&1 && exec {name} {options} "$1""#));
    let line = format!("{}; echo '{NO_PYTHON}' >&2; exit 127", tried.join("; "));
    // Shells that fail begin with `$0`, and a program can be long.
    Command::argv(["sh", "-c", &line, "boxyard", program])
}
