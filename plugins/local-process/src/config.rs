//! What a user may set for one sandbox.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use boxyard_agent::Limit;
use boxyard_plugin_api::prelude::*;

/// The configuration of one sandbox.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// An absolute path to run commands in, which must be there and is never removed. Without
    /// it the sandbox gets a fresh directory, which goes with it.
    pub(crate) working_dir: Option<PathBuf>,
    /// The sandbox's environment variables, on top of PATH, HOME, PWD, TMPDIR and LANG.
    #[schemars(extend("writeOnly" = true))]
    pub(crate) env: BTreeMap<String, String>,
    /// The names of variables to take over from the host's environment.
    pub(crate) inherit_env: Vec<String>,
    /// How many seconds a command may run when it does not say so itself; for ever without it.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(crate) timeout: Option<f64>,
    /// Limits of each process by `setrlimit` name, in the units of `setrlimit`.
    pub(crate) limits: BTreeMap<Limit, u64>,
}

impl Config {
    /// Checks what the schema cannot say.
    pub(crate) fn validate(&self) -> Result<()> {
        if let Some(directory) = &self.working_dir {
            check_working_dir(directory)?;
        }
        for name in self.env.keys().chain(&self.inherit_env) {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(Error::invalid_argument(format_args!(
                    "environment variable name {name:?} is empty or has a `=` or a NUL byte"
                )));
            }
        }
        for (name, value) in &self.env {
            if value.contains('\0') {
                return Err(Error::invalid_argument(format_args!(
                    "environment variable `{name}` has a NUL byte, which no program can be given"
                )));
            }
        }
        self.timeout().map(drop)
    }

    /// Returns how long a command may run that does not say so itself.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>> {
        let Some(seconds) = self.timeout else {
            return Ok(None);
        };
        match Duration::try_from_secs_f64(seconds) {
            Ok(timeout) if !timeout.is_zero() => Ok(Some(timeout)),
            _ => Err(Error::invalid_argument(format_args!(
                "timeout is {seconds}: expected a number of seconds above 0"
            ))),
        }
    }
}

fn check_working_dir(directory: &Path) -> Result<()> {
    let shown = directory.display();
    if !directory.is_absolute() {
        return Err(Error::invalid_argument(format_args!(
            "working_dir `{shown}` is not an absolute path"
        )));
    }
    let metadata = directory
        .metadata()
        .map_err(|error| Error::from(error).context(format_args!("working_dir `{shown}`")))?;
    if !metadata.is_dir() {
        return Err(Error::invalid_argument(format_args!(
            "working_dir `{shown}` is not a directory"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(config: Value) -> Result<Config> {
        let config: Config = serde_json::from_value(config)?;
        config.validate()?;
        Ok(config)
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (config, named) in [
            (json!({"limits": {"nofiles": 3}}), "nofiles"),
            (json!({"limits": {"nofile": -3}}), "-3"),
            (json!({"working_directory": "/"}), "working_directory"),
            (json!({"working_dir": "relative"}), "relative"),
            (json!({"working_dir": "/no/such/place"}), "/no/such/place"),
            (
                json!({"working_dir": "/proc/self/status"}),
                "not a directory",
            ),
            (json!({"timeout": 0}), "0"),
            (json!({"timeout": -1.5}), "-1.5"),
            (json!({"env": {"A=B": ""}}), "A=B"),
            (json!({"env": {"NUL": "\0"}}), "NUL"),
            (json!({"inherit_env": [""]}), "empty"),
        ] {
            let error = parse(config.clone()).unwrap_err();
            assert!(error.message().contains(named), "{config}: {error}");
        }
    }

    #[test]
    fn everything_has_a_default() {
        let config = parse(json!({})).unwrap();
        assert_eq!(config.timeout().unwrap(), None);
        let config = parse(json!({"timeout": 0.25, "limits": {"as": 1, "nofile": 2}})).unwrap();
        assert_eq!(config.timeout().unwrap(), Some(Duration::from_millis(250)));
        assert_eq!(config.limits.len(), 2);
    }

    #[test]
    fn the_schema_closes_the_set_of_limits() {
        let schema = schemars::schema_for!(Config).to_value();
        let limits = &schema["properties"]["limits"];
        assert_eq!(limits["additionalProperties"], false, "{schema:#}");
        assert!(limits["properties"]["memlock"].is_object(), "{schema:#}");
        assert_eq!(schema["properties"]["timeout"]["exclusiveMinimum"], 0);
    }
}
