//! The environment of a sandbox's commands, and the marks by which its processes are found.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process,
};

use boxyard_plugin_api::Command;

use crate::{config::Config, processes::Mark};

/// Where programs are looked for unless the configuration or the command says otherwise.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment that every command of a sandbox starts from.
#[derive(Debug)]
pub(crate) struct Environment {
    variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Makes a clean environment, with what the configuration inherits and sets.
    pub(crate) fn new(config: &Config, directory: &Path) -> Self {
        let mut variables: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), DEFAULT_PATH.into()),
            ("LANG".into(), "C.UTF-8".into()),
        ];
        for name in ["HOME", "PWD", "TMPDIR"] {
            variables.push((name.into(), directory.into()));
        }
        let inherited = config
            .inherit_env
            .iter()
            .filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
        let own = config
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        for (name, value) in inherited.chain(own) {
            variables.retain(|(earlier, _): &(OsString, OsString)| *earlier != name);
            variables.push((name, value));
        }
        Self { variables }
    }

    /// Returns where `command` looks for its program; `None` where it has no PATH.
    pub(crate) fn path<'a>(&'a self, command: &'a Command) -> Option<&'a OsStr> {
        if let Some(own) = command.env.get("PATH") {
            return Some(own.as_ref());
        }
        if command.clear_env {
            return None;
        }
        let found = self.variables.iter().find(|(name, _)| name == "PATH");
        found.map(|(_, value)| value.as_ref())
    }

    /// Gives a process the environment of `command`, which runs in `directory`.
    pub(crate) fn apply(
        &self,
        command: &Command,
        directory: &Path,
        mark: &Mark,
        to: &mut process::Command,
    ) {
        to.env_clear();
        if !command.clear_env {
            to.envs(self.variables.iter().map(|(name, value)| (name, value)));
            if command.working_dir.is_some() {
                to.env("PWD", directory);
            }
        }
        to.envs(&command.env);
        // Last, so that nothing set above hides the process from `stop`.
        to.envs(mark.variables());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(environment: &Environment, command: &Command) -> Vec<(String, String)> {
        let mut process = process::Command::new("true");
        let mark = Mark::command("s1", 7);
        environment.apply(command, Path::new("/elsewhere"), &mark, &mut process);
        let text = |part: &OsStr| part.to_str().unwrap().to_owned();
        let set = process.get_envs();
        set.map(|(name, value)| (text(name), text(value.unwrap())))
            .collect()
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect()
    }

    #[test]
    fn it_is_clean_and_each_layer_replaces_the_one_before() {
        let mut config = Config {
            inherit_env: vec!["PATH".into(), "NO_SUCH_VARIABLE".into()],
            ..Config::default()
        };
        config.env.insert("LANG".into(), "C".into());
        config.env.insert("BOXYARD_SANDBOX".into(), "hidden".into());
        let environment = Environment::new(&config, Path::new("/w"));
        let command = Command::argv(["x"]).env("HOME", "/h");
        let path = std::env::var("PATH").unwrap();
        assert_eq!(
            applied(&environment, &command),
            expected(&[
                ("BOXYARD_COMMAND", "7"),
                ("BOXYARD_SANDBOX", "s1"),
                ("HOME", "/h"),
                ("LANG", "C"),
                ("PATH", &path),
                ("PWD", "/w"),
                ("TMPDIR", "/w"),
            ])
        );
        assert_eq!(environment.path(&command).unwrap(), path.as_str());
    }

    #[test]
    fn a_cleared_environment_keeps_the_marks_alone() {
        let environment = Environment::new(&Config::default(), Path::new("/w"));
        let mut command = Command::argv(["x"]).env("A", "1").working_dir("sub");
        command.clear_env = true;
        assert_eq!(
            applied(&environment, &command),
            expected(&[
                ("A", "1"),
                ("BOXYARD_COMMAND", "7"),
                ("BOXYARD_SANDBOX", "s1")
            ])
        );
        assert_eq!(environment.path(&command), None);
        command.clear_env = false;
        let set = applied(&environment, &command);
        assert!(set.contains(&("PWD".into(), "/elsewhere".into())));
    }
}
