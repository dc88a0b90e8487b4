//! What of a configuration a running host does not take up: stated here, and nowhere else.

use super::Config;

/// A key whose change needs a restart.
struct Key {
    /// Its name, table by table.
    path: &'static [&'static str],
    differs: fn(&Config, &Config) -> bool,
    keep: fn(&mut Config, &Config),
}

/// Names keys as they are written.
macro_rules! keys {
    ($($($part:ident).+),+ $(,)?) => {
        &[$(Key {
            path: &[$(stringify!($part)),+],
            differs: |one, other| one.$($part).+ != other.$($part).+,
            keep: |to, from| to.$($part).+.clone_from(&from.$($part).+),
        }),+]
    };
}

/// What the process has from its start: what it holds open, and what its server was made with.
const OF_THE_PROCESS: &[Key] = keys![
    log,
    state_dir,
    cache_dir,
    store,
    http.listen,
    http.max_body_bytes,
    http.max_held_bytes,
    http.max_archive_bytes,
    http.max_connections,
    http.max_requests,
    http.read_timeout,
];

/// What a plugin has from when it was loaded, beside its settings.
const OF_A_PLUGIN: &[Key] = keys![
    plugin_threads,
    timeouts.probe,
    timeouts.create,
    timeouts.start,
    timeouts.stop,
    timeouts.cleanup,
    timeouts.cancel_grace,
];

/// Leaves in a configuration what a process has from its start; returns the keys that were to change.
pub(super) fn keep(config: &mut Config, running: &Config) -> Vec<String> {
    let changed = changed(OF_THE_PROCESS, running, config);
    for key in OF_THE_PROCESS {
        (key.keep)(config, running);
    }
    changed
}

/// Returns the keys in which a configuration is not the one that a plugin was loaded with, as far as
/// that makes a difference to the plugin.
pub(crate) fn of_plugin(name: &str, loaded_with: &Config, now: &Config) -> Vec<String> {
    let mut changed = changed(OF_A_PLUGIN, loaded_with, now);
    if loaded_with.plugin(name).settings != now.plugin(name).settings {
        changed.push(format!("plugins.{name}.settings"));
    }
    changed
}

fn changed(keys: &[Key], before: &Config, after: &Config) -> Vec<String> {
    let changed = keys.iter().filter(|key| (key.differs)(before, after));
    changed.map(|key| key.path.join(".")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::config::PluginConfig;

    #[test]
    fn what_the_process_has_stays_and_is_named_and_the_rest_changes() {
        let running = Config::default();
        let mut config = Config {
            log: "info".into(),
            store: Some("/elsewhere".into()),
            default_type: Some("docker".into()),
            ..Config::default()
        };
        config.http.max_requests = 7;
        config.http.hosts = vec!["box.example".into()];
        let changed = keep(&mut config, &running);
        assert_eq!(changed, ["log", "store", "http.max_requests"]);
        assert_eq!(config.log, running.log);
        assert_eq!(config.http.max_requests, running.http.max_requests);
        assert_eq!(config.http.hosts, ["box.example"]);
        assert_eq!(config.default_type.as_deref(), Some("docker"));
        assert!(keep(&mut config, &running).is_empty());
    }

    #[test]
    fn what_a_plugin_has_is_named_and_what_another_has_is_not() {
        let loaded_with = Config::default();
        let mut now = Config::default();
        now.timeouts.create = Duration::from_secs(1);
        now.timeouts.sweep_grace = Duration::from_secs(1);
        let mut settings = PluginConfig::default();
        let forbidden = json!(false);
        settings
            .settings
            .insert("allow_privileged".into(), forbidden);
        now.plugins.insert("x".into(), settings);
        assert_eq!(
            of_plugin("x", &loaded_with, &now),
            ["timeouts.create", "plugins.x.settings"]
        );
        assert_eq!(of_plugin("y", &loaded_with, &now), ["timeouts.create"]);
    }

    #[test]
    fn operators_and_embedders_are_told_every_key() {
        let operators = include_str!("../../SERVING.md");
        let embedders = include_str!("../host.rs");
        for key in OF_THE_PROCESS.iter().chain(OF_A_PLUGIN) {
            let name = format!("`{}`", key.path.join("."));
            assert!(operators.contains(&name), "SERVING.md: {name}");
            assert!(embedders.contains(&name), "Host::reload: {name}");
        }
    }
}
