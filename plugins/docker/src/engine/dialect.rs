//! What engines answer that bollard does not know, told in words that it does.

use bollard::errors::Error as EngineError;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A container of Podman's that ended and that it has not cleaned up after.
const STOPPED: &str = "stopped";
/// What it is to docker.
const EXITED: &str = "exited";

/// Reads an answer about containers again, where it was not understood.
pub(crate) trait Dialect {
    /// Takes a state that only Podman has for the one of docker's that comes next to it.
    #[must_use]
    fn understood(self) -> Self;
}

impl<T: DeserializeOwned> Dialect for Result<T, EngineError> {
    fn understood(self) -> Self {
        match self {
            Err(EngineError::JsonDataError {
                message,
                contents,
                column,
            }) => translated(&contents).ok_or(EngineError::JsonDataError {
                message,
                contents,
                column,
            }),
            understood => understood,
        }
    }
}

fn translated<T: DeserializeOwned>(contents: &str) -> Option<T> {
    let mut answer: Value = serde_json::from_str(contents).ok()?;
    match &mut answer {
        Value::Array(listed) => {
            for container in listed {
                translate(container.get_mut("State"));
            }
        }
        inspected => translate(inspected.pointer_mut("/State/Status")),
    }
    serde_json::from_value(answer).ok()
}

fn translate(state: Option<&mut Value>) {
    if let Some(state) = state.filter(|state| *state == STOPPED) {
        *state = EXITED.into();
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerInspectResponse, ContainerSummary};
    use serde_json::json;

    use super::*;

    fn read<T: DeserializeOwned>(answer: &Value) -> Result<T, EngineError> {
        let contents = answer.to_string();
        serde_json::from_str(&contents).map_err(|error| EngineError::JsonDataError {
            message: error.to_string(),
            contents,
            column: error.column(),
        })
    }

    #[test]
    fn a_container_that_is_stopped_has_exited() {
        let listed = json!([{"Id": "a", "State": "running"}, {"Id": "b", "State": "stopped"}]);
        let listed: Result<Vec<ContainerSummary>, _> = read(&listed);
        listed.as_ref().unwrap_err();
        let listed = listed.understood().unwrap();
        let states = listed.iter().filter_map(|found| found.state);
        let states: Vec<String> = states.map(|state| state.to_string()).collect();
        assert_eq!(states, ["running", "exited"]);
        let inspected = json!({"Id": "b", "State": {"Status": "stopped", "ExitCode": 3}});
        let inspected: Result<ContainerInspectResponse, _> = read(&inspected);
        let state = inspected.understood().unwrap().state.unwrap();
        assert_eq!(state.exit_code, Some(3));
    }

    #[test]
    fn what_nobody_understands_is_an_error_as_it_was() {
        let answer: Result<Vec<ContainerSummary>, _> = read(&json!([{"State": "dreaming"}]));
        let said = answer.as_ref().unwrap_err().to_string();
        assert_eq!(answer.understood().unwrap_err().to_string(), said);
    }
}
