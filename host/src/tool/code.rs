//! `multi_code_executor`: a program in one of many languages. The languages are data.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
    sync::{Arc, LazyLock},
};

use boxyard_plugin_api::{Command, CommandExit, Error};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    ToolStatus,
    builtin::{Description, Limit, Outcome},
    scratch::Scratch,
};
use crate::{output::CommandResult, sandbox::Sandbox};

/// How a program in a language is run.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// The file that the code is written to.
    pub file: String,
    /// A line for `sh -c` that makes what is run, where something must be made.
    pub compile: Option<String>,
    /// A line for `sh -c` that runs it.
    pub run: String,
}

/// The languages that every host knows.
static LANGUAGES: LazyLock<BTreeMap<String, Language>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a file of our own, which a test reads")]
    toml::from_str(include_str!("languages.toml")).expect("the languages are understood")
});

#[derive(Deserialize)]
pub(super) struct Params {
    language: String,
    code: String,
    files: Option<BTreeMap<String, String>>,
    #[serde(default = "Limit::none")]
    compile_timeout: Limit,
    #[serde(default)]
    run_timeout: Limit,
}

pub(super) fn description() -> Description {
    let names = LANGUAGES.keys().cloned().collect::<Vec<_>>().join(", ");
    let properties = json!({
        "language": { "type": "string", "description": format!("Language to execute ({names})") },
        "code": { "type": "string", "description": "Source code to execute" },
        "files": {
            "type": "object",
            "additionalProperties": { "type": "string" },
            "description": "Optional additional files to write before execution (filename -> content)",
        },
        "compile_timeout": {
            "type": "integer",
            "description": "Compile timeout in seconds (omit to disable compilation timeout)",
        },
        "run_timeout": {
            "type": "integer",
            "description": "Run timeout in seconds",
            "default": Limit::SECONDS,
        },
    });
    let description = format!("Execute code in various languages ({names}) with runtime tuning");
    let required = &["language", "code"];
    ("multi_code_executor", description, properties, required)
}

pub(super) async fn execute(params: Params, sandbox: &Arc<Sandbox>) -> Result<Outcome, Error> {
    if params.language.trim().is_empty() || params.code.trim().is_empty() {
        return Ok(Outcome::error("Invalid input"));
    }
    let name = params.language.trim().to_lowercase();
    let added = sandbox.languages();
    let Some(language) = added.get(&name).or_else(|| LANGUAGES.get(&name)) else {
        let language = params.language;
        return Ok(Outcome::error(format!("Unsupported language: {language}")));
    };
    let files = params.files.unwrap_or_default();
    if let Some(file) = files.keys().find(|file| !is_inside(file)) {
        return Ok(Outcome::error(format!(
            "the file name `{file}` leads out of the program's directory"
        )));
    }
    let scratch = Scratch::with(sandbox, &language.file, params.code).await?;
    for (file, content) in files {
        let path = Path::new(&file);
        // The code is what it is, also where another file has its name.
        if path.strip_prefix(".").unwrap_or(path) != Path::new(&language.file) {
            scratch.write(&file, content).await?;
        }
    }
    let step = |line: &str, limit: &Limit| {
        let mut command = Command::shell(format!("cd {} || exit\n{line}", scratch.path()));
        command.timeout = Some(limit.duration());
        async move { sandbox.run(command, None).await }
    };
    let mut compiled = String::new();
    if let Some(line) = &language.compile {
        let result = step(line, &params.compile_timeout).await?;
        if result.exit.exit_code != 0 {
            return Ok(not_compiled(&result, &params.compile_timeout));
        }
        compiled = result.stdout_text();
    }
    // A program without any limit would outlive whoever asked for it.
    let limit = params.run_timeout.or_default();
    let result = step(&language.run, &limit).await?;
    let mut outcome = Outcome::of(&result, &limit);
    if result.exit.exit_code == CommandExit::NOT_EXECUTABLE
        && let Some(why) = scratch.why_nothing_runs()
    {
        outcome.add_error(why);
    }
    if !compiled.is_empty() {
        let outputs = [compiled, outcome.output].into_iter();
        let said: Vec<String> = outputs.filter(|output| !output.is_empty()).collect();
        outcome.output = said.join("\n");
    }
    Ok(outcome)
}

fn not_compiled(result: &CommandResult, limit: &Limit) -> Outcome {
    let mut outcome = Outcome::of(result, limit);
    outcome.status = ToolStatus::Error;
    if outcome.cut.is_none() {
        outcome.error = outcome.error.or_else(|| Some("Compilation failed".into()));
    }
    outcome
}

/// Whether a name leads to a file inside a directory.
fn is_inside(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    !name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_languages_are_understood_and_write_one_file_inside() {
        assert!(LANGUAGES.len() >= 29);
        for (name, language) in &*LANGUAGES {
            assert!(is_inside(&language.file), "{name}");
            assert_eq!(&name.to_lowercase(), name);
        }
    }

    #[test]
    fn files_stay_inside() {
        for (name, expected) in [
            ("a", true),
            ("a/b", true),
            ("./a", true),
            ("../a", false),
            ("/a", false),
            ("a/../../b", false),
            ("", false),
        ] {
            assert_eq!(is_inside(name), expected, "{name}");
        }
    }
}
