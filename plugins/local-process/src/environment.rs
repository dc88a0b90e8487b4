//! The environment that every command of a sandbox starts from.

use std::{collections::BTreeMap, path::Path};

use boxyard_plugin_api::prelude::tracing;

use crate::config::Config;

/// Where programs are looked for unless the configuration or the command says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Returns a clean environment, with what the configuration inherits and sets.
pub(crate) fn environment(
    config: &Config,
    sandbox: &str,
    directory: &Path,
) -> BTreeMap<String, String> {
    let directory = directory.to_string_lossy().into_owned();
    let mut variables = BTreeMap::from([
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("HOME".to_owned(), directory.clone()),
        ("PWD".to_owned(), directory.clone()),
        ("TMPDIR".to_owned(), directory),
    ]);
    for name in &config.inherit_env {
        match std::env::var(name) {
            Ok(value) => drop(variables.insert(name.clone(), value)),
            Err(std::env::VarError::NotPresent) => {}
            Err(error) => tracing::warn!(name, %error, "not inherited"),
        }
    }
    variables.extend(config.env.clone());
    variables.insert("BOXYARD_SANDBOX".into(), sandbox.into());
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_clean_and_each_layer_replaces_the_one_before() {
        let mut config = Config {
            inherit_env: vec!["PATH".into(), "NO_SUCH_VARIABLE".into()],
            ..Config::default()
        };
        config.env.insert("LANG".into(), "C".into());
        config.env.insert("BOXYARD_SANDBOX".into(), "hidden".into());
        let path = std::env::var("PATH").unwrap();
        let expected = [
            ("BOXYARD_SANDBOX", "s1"),
            ("HOME", "/w"),
            ("LANG", "C"),
            ("PATH", &path),
            ("PWD", "/w"),
            ("TMPDIR", "/w"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let made = environment(&config, "s1", Path::new("/w"));
        assert_eq!(made, BTreeMap::from(expected));
    }
}
