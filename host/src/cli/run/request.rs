//! From flags to what is asked of the library.

use std::{fs, path::Path};

use boxyard_plugin_api::Command;
use serde_json::{Map, Value};

use super::{RunArgs, Task};
use crate::{cli::Failure, registry::SandboxType};

/// Makes the task of the flags.
pub(super) fn task(args: &RunArgs) -> Result<Task, Failure> {
    if let Some(name) = &args.tool {
        let params = args.params.as_deref().unwrap_or("{}");
        let params = serde_json::from_str(params)
            .map_err(|error| Failure::usage(format_args!("--params is no JSON: {error}")))?;
        return Ok(Task::Tool {
            name: name.clone(),
            params,
            timeout: args.timeout,
        });
    }
    let mut command = match (args.shell, args.command.as_slice()) {
        (false, words) => Command::argv(words),
        (true, [line]) => Command::shell(line),
        (true, words) => {
            return Err(Failure::usage(format_args!(
                "--shell takes one word, not {}: quote the line, as in --shell 'echo $HOME | wc'",
                words.len()
            )));
        }
    };
    for variable in &args.env {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (variable.clone(), own_variable(variable)?),
        };
        command.env.insert(name, value);
    }
    command.working_dir.clone_from(&args.cwd);
    command.user.clone_from(&args.user);
    command.timeout = args.timeout;
    Ok(Task::Command(command))
}

fn own_variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|error| Failure::usage(format_args!("--env {name}: {error}")))
}

/// Makes the sandbox's configuration: the file, and over it what `-c` sets.
pub(super) fn config(
    args: &RunArgs,
    sandbox_type: &SandboxType,
) -> Result<Map<String, Value>, Failure> {
    let mut config = match &args.config {
        Some(path) => read(path)?,
        None => Map::new(),
    };
    for setting in &args.set {
        let (key, text) = setting
            .split_once('=')
            .ok_or_else(|| Failure::usage(format_args!("-c {setting}: expected KEY=VALUE")))?;
        let path: Vec<&str> = key.split('.').collect();
        put(
            &mut config,
            &path,
            value(text, sandbox_type.is_text_field(&path)),
        );
    }
    Ok(config)
}

/// Puts a value at a dotted path, making the objects on the way.
fn put(target: &mut Map<String, Value>, path: &[&str], value: Value) {
    match path {
        [] => {}
        [last] => {
            target.insert((*last).into(), value);
        }
        [first, rest @ ..] => {
            let inner = target
                .entry(*first)
                .or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// Takes a value for JSON if it is some, and for text otherwise or where only text is taken.
fn value(text: &str, is_text: bool) -> Value {
    let as_text = || Value::String(text.into());
    if is_text {
        as_text()
    } else {
        serde_json::from_str(text).unwrap_or_else(|_| as_text())
    }
}

fn read(path: &Path) -> Result<Map<String, Value>, Failure> {
    let wrong = |message: &dyn std::fmt::Display| {
        Failure::usage(format_args!(
            "sandbox configuration {}: {message}",
            path.display()
        ))
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        toml::from_str(&text).map_err(|error| wrong(&error))
    } else {
        serde_json::from_str(&text).map_err(|error| wrong(&error))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_json_unless_only_text_fits() {
        assert_eq!(value("1", false), json!(1));
        assert_eq!(value("1", true), json!("1"));
        assert_eq!(value("[1]", false), json!([1]));
        assert_eq!(value("python:3.11", false), json!("python:3.11"));
    }

    #[test]
    fn values_are_put_at_any_depth() {
        let mut target = Map::new();
        put(&mut target, &["a", "b"], json!(1));
        put(&mut target, &["a", "c"], json!(2));
        assert_eq!(Value::Object(target), json!({ "a": { "b": 1, "c": 2 } }));
    }
}
