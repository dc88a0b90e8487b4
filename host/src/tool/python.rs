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

/// Becomes the interpreter, whichever of its names the sandbox knows, with the script `$0`.
const INTERPRETER: &str =
    r#"command -v python >/dev/null 2>&1 && exec python "$0"; exec python3 "$0""#;

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
    let scratch = Scratch::new(sandbox);
    let script = scratch.write("script.py", params.code).await?;
    let mut command = Command::argv(["sh", "-c", INTERPRETER, &script]);
    command.timeout = Some(params.timeout.duration());
    let result = sandbox.run(command, None).await?;
    Ok(Outcome::of(&result, &params.timeout))
}
