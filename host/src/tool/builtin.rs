//! The host's own tools, with the names, parameters and results of ms-enclave's.

use std::{sync::Arc, time::Duration};

use boxyard_plugin_api::{CommandExit, Error, ToolDescriptor};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Number, Value, json};

use super::{Tool, ToolStatus, code, file, notebook, python, shell};
use crate::{output::CommandResult, sandbox::Sandbox};

/// One of the host's own tools.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Builtin {
    Shell,
    Python,
    File,
    Code,
    Notebook,
}

/// What one of them answered: a tool of the host's can have output and fail all the same.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(super) status: ToolStatus,
    pub(super) output: String,
    pub(super) error: Option<String>,
    /// What ended it, where it did not end by itself: the error where there is no other, and the
    /// sandbox's own end where it is that.
    pub(super) cut: Option<String>,
}

impl Outcome {
    pub(super) fn success(output: impl Into<String>) -> Self {
        Self {
            status: ToolStatus::Success,
            output: output.into(),
            error: None,
            cut: None,
        }
    }

    pub(super) fn error(error: impl Into<String>) -> Self {
        Self {
            status: ToolStatus::Error,
            error: Some(error.into()),
            ..Self::success("")
        }
    }

    pub(super) fn cut(why: impl Into<String>) -> Self {
        Self {
            status: ToolStatus::Error,
            cut: Some(why.into()),
            ..Self::success("")
        }
    }

    /// Maps a command's end: what it wrote to standard error is the error, also where it succeeded;
    /// one that ran out of time and wrote nothing there has the words that clients know.
    pub(super) fn of(result: &CommandResult, limit: &Limit) -> Self {
        let stderr = Some(result.stderr_text()).filter(|stderr| !stderr.is_empty());
        let late = || format!("Command timed out after {} seconds", limit.text());
        let status = match (result.exit.timed_out, result.exit.exit_code) {
            (true, _) => ToolStatus::Timeout,
            (false, 0) => ToolStatus::Success,
            (false, _) => ToolStatus::Error,
        };
        let mut outcome = Self {
            status,
            output: result.stdout_text(),
            error: stderr.or_else(|| result.exit.timed_out.then(late)),
            cut: None,
        };
        if let (ToolStatus::Error, Some(killed)) = (status, how_it_was_killed(&result.exit)) {
            // Whatever it could still say, this is why.
            if result.exit.out_of_memory {
                outcome.add_error(&killed);
            } else {
                outcome.cut = Some(killed);
            }
        }
        outcome
    }

    /// Says what ended it, where that was not it itself: the sandbox, where that takes no calls any
    /// more, and whatever else did where it said nothing.
    fn explained(mut self, sandbox: &Sandbox) -> Self {
        let Some(cut) = self.cut.take() else {
            return self;
        };
        if sandbox.status().takes_calls() {
            self.error.get_or_insert(cut);
        } else {
            self.status = ToolStatus::Cancelled;
            self.add_error(&ended(sandbox));
        }
        self
    }

    /// Says more behind the error.
    pub(super) fn add_error(&mut self, more: &str) {
        match &mut self.error {
            Some(error) => *error = format!("{}\n{more}", error.trim_end()),
            None => self.error = Some(more.into()),
        }
    }
}

/// Returns the words for what killed a command or a process of it; `None` where it ended by itself.
pub(super) fn how_it_was_killed(exit: &CommandExit) -> Option<String> {
    let why = match exit.signal {
        _ if exit.out_of_memory => {
            "the sandbox ran out of memory, and the kernel killed a process of it".into()
        }
        Some(signal) => format!("it was killed by signal {signal}"),
        None => return None,
    };
    let code = exit.exit_code;
    Some(format!("Command failed with exit code {code}: {why}"))
}

/// Says why a sandbox takes no calls any more.
fn ended(sandbox: &Sandbox) -> String {
    let metadata = sandbox.summary().metadata;
    let said = |key| metadata.get(key).and_then(Value::as_str);
    match (said("error"), said("expired")) {
        (Some(error), _) => format!("the sandbox failed while the tool ran: {error}"),
        (None, Some(why)) => format!("the sandbox was deleted while the tool ran: {why}"),
        (None, None) => "the sandbox was stopped or deleted while the tool ran".into(),
    }
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        Self::cut(format!("Execution failed: {error}"))
    }
}

/// How long a call may take, in seconds: `null` and what is not positive mean no limit.
#[derive(Clone, Debug)]
pub(super) struct Limit(Option<Number>);

impl Limit {
    /// What holds where nothing is said.
    pub(super) const SECONDS: u64 = 30;
    /// No limit, for commands: ten years. One that says nothing has the limit of its sandbox.
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Returns what a command is given, which is never nothing.
    pub(super) fn duration(&self) -> Duration {
        let limit = self.given().unwrap_or(Self::LONGEST);
        limit.min(Self::LONGEST)
    }

    /// Returns the limit that holds where nothing is said in place of none.
    pub(super) fn or_default(self) -> Self {
        match self.given() {
            Some(_) => self,
            None => Self::default(),
        }
    }

    fn given(&self) -> Option<Duration> {
        let seconds = self.0.as_ref()?.as_f64().filter(|seconds| *seconds > 0.0)?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Returns the number as it was given.
    pub(super) fn text(&self) -> String {
        (self.0.as_ref()).map_or_else(|| "no".into(), Number::to_string)
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(Some(Self::SECONDS.into()))
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self)
    }
}

impl Builtin {
    const ALL: [Self; 5] = [
        Self::Shell,
        Self::Python,
        Self::File,
        Self::Code,
        Self::Notebook,
    ];

    /// Makes the tools that every host has.
    pub(crate) fn tools() -> impl Iterator<Item = Arc<Tool>> {
        Self::ALL
            .into_iter()
            .map(|one| Arc::new(Tool::builtin(one)))
    }

    pub(super) fn descriptor(self) -> ToolDescriptor {
        let (name, description, properties, required) = match self {
            Self::Shell => shell::description(),
            Self::Python => python::description(),
            Self::File => file::description(),
            Self::Code => code::description(),
            Self::Notebook => notebook::description(),
        };
        let descriptor = json!({
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            },
        });
        #[expect(
            clippy::expect_used,
            reason = "a document of our own, of the only shape there is"
        )]
        serde_json::from_value(descriptor).expect("a tool's description is one")
    }

    /// Runs it with parameters that were checked.
    pub(crate) async fn execute(self, params: Value, sandbox: &Arc<Sandbox>) -> Outcome {
        let outcome = async {
            match self {
                Self::Shell => shell::execute(understood(params)?, sandbox).await,
                Self::Python => python::execute(understood(params)?, sandbox).await,
                Self::File => file::execute(understood(params)?, sandbox).await,
                Self::Code => code::execute(understood(params)?, sandbox).await,
                Self::Notebook => notebook::execute(understood(params)?, sandbox).await,
            }
        };
        let outcome = outcome.await.unwrap_or_else(Outcome::from);
        outcome.explained(sandbox)
    }
}

fn understood<T: DeserializeOwned>(params: Value) -> Result<T, Error> {
    serde_json::from_value(params).map_err(Error::invalid_argument)
}

/// Returns what parameters are checked against: what a tool advertises to models, where numbers may
/// have fractions, what may be left out may be `null`, and the tool itself says which words it knows.
pub(super) fn accepted(advertised: &Value) -> Value {
    let mut accepted = advertised.clone();
    let required: Vec<String> = (accepted
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten())
    .filter_map(|name| name.as_str().map(str::to_owned))
    .collect();
    let properties = accepted
        .get_mut("properties")
        .and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        let Some(property) = property.as_object_mut() else {
            continue;
        };
        property.remove("enum");
        merge_alternatives(property);
        if property.get("type") == Some(&json!("integer")) {
            property.insert("type".into(), json!("number"));
        }
        if !required.contains(name)
            && let Some(expected) = property.remove("type")
        {
            property.insert("type".into(), json!([expected, "null"]));
        }
    }
    accepted
}

/// Puts alternatives that differ in their type into one list of types, so that what is none of them is
/// told what is expected.
fn merge_alternatives(property: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = property.remove("anyOf") else {
        return;
    };
    let mut types = Vec::new();
    for mut alternative in alternatives {
        let alternative = alternative.as_object_mut().map(std::mem::take);
        for (key, value) in alternative.into_iter().flatten() {
            if key == "type" {
                types.push(value);
            } else {
                property.insert(key, value);
            }
        }
    }
    property.insert("type".into(), types.into());
}

/// The parameter that limits how long a call may take.
pub(super) fn timeout_property() -> Value {
    json!({ "type": "integer", "description": "Execution timeout in seconds", "default": Limit::SECONDS })
}

/// A tool's name, description, properties and what of them is required.
pub(super) type Description = (&'static str, String, Value, &'static [&'static str]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_with_fractions_and_none_is_longer_than_any_sandbox() {
        for (given, duration, text) in [
            ("30", Duration::from_secs(30), "30"),
            ("0.5", Duration::from_millis(500), "0.5"),
            ("null", Limit::LONGEST, "no"),
            ("0", Limit::LONGEST, "0"),
            ("-1", Limit::LONGEST, "-1"),
            ("1e19", Limit::LONGEST, "1e+19"),
            ("1e300", Limit::LONGEST, "1e+300"),
        ] {
            let limit: Limit = serde_json::from_str(given).unwrap();
            assert_eq!((limit.duration(), limit.text().as_str()), (duration, text));
        }
    }

    #[test]
    fn every_tool_describes_itself_and_takes_less_than_it_says() {
        for tool in Builtin::tools() {
            let required = tool.descriptor().parameters["required"].clone();
            let error = tool.check_params(json!({})).unwrap_err().to_string();
            for name in required.as_array().unwrap() {
                assert!(error.contains(name.as_str().unwrap()), "{error}");
            }
            assert!(tool.check_params(json!({ "bogus": 1 })).is_err());
        }
        let shell = Arc::new(Tool::builtin(Builtin::Shell));
        for timeout in [json!(0.5), json!(null), json!(-1)] {
            let params = json!({ "command": "true", "timeout": timeout });
            assert_eq!(shell.check_params(params.clone()), Ok(params));
        }
        let argv = json!({ "command": ["echo", "a"], "timeout": 1 });
        assert_eq!(shell.check_params(argv.clone()), Ok(argv));
        for command in [json!(5), json!(null), json!({})] {
            let error = shell.check_params(json!({ "command": command }));
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains("`command`") && error.contains(r#""array""#),
                "{error}"
            );
            assert!(
                error.contains(r#""string""#) && !error.contains("anyOf"),
                "{error}"
            );
        }
        assert!(
            shell
                .check_params(json!({ "command": ["echo", 5] }))
                .is_err()
        );
    }
}
