//! `shell_executor`: a command in the sandbox.

use std::sync::Arc;

use boxyard_plugin_api::{Command, Error};
use serde::Deserialize;
use serde_json::json;

use super::{
    ToolStatus,
    builtin::{Description, Limit, Outcome, timeout_property},
};
use crate::sandbox::Sandbox;

#[derive(Deserialize)]
pub(super) struct Params {
    command: Words,
    #[serde(default)]
    timeout: Limit,
}

/// A line for a shell, or a program and its arguments.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Line(String),
    Argv(Vec<String>),
}

pub(super) fn description() -> Description {
    let properties = json!({
        "command": { "anyOf": [
            { "type": "string", "description": "Shell command to execute" },
            {
                "type": "array",
                "description": "List of shell command arguments to execute",
                "items": { "type": "string" },
            },
        ] },
        "timeout": timeout_property(),
    });
    let description = "Execute shell commands in an isolated environment";
    (
        "shell_executor",
        description.into(),
        properties,
        &["command"],
    )
}

pub(super) async fn execute(params: Params, sandbox: &Arc<Sandbox>) -> Result<Outcome, Error> {
    let mut command = match params.command {
        Words::Line(line) if line.trim().is_empty() => {
            return Ok(Outcome::error("No command provided"));
        }
        Words::Argv(argv) if argv.is_empty() => return Ok(Outcome::error("No command provided")),
        Words::Line(line) => Command::shell(line),
        Words::Argv(argv) => Command::argv(argv),
    };
    command.timeout = Some(params.timeout.duration());
    let result = sandbox.run(command, None).await?;
    let mut outcome = Outcome::of(&result, &params.timeout);
    // Clients read the number out of these words.
    if outcome.status == ToolStatus::Error && outcome.error.is_none() {
        let words = format!("Command failed with exit code {}", result.exit.exit_code);
        match &mut outcome.cut {
            Some(cut) => *cut = words,
            None => outcome.error = Some(words),
        }
    }
    Ok(outcome)
}
