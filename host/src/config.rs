//! How a host is configured: a file, under the environment, under flags.

pub(crate) mod duration;
mod live;
mod places;
pub(crate) mod restart;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use boxyard_plugin_api::Isolation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    hex,
    http::HttpConfig,
    pool::PoolSpec,
    schema::{Schema, SchemaError},
    tool::Language,
};

pub use duration::parse_duration;
pub(crate) use live::LiveConfig;
pub(crate) use places::build_dir;
pub use places::user_plugin_dir;

/// How a host is configured; the keys of `boxyard.toml`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directories that are searched for plugins, in order.
    pub plugin_dirs: Option<Vec<PathBuf>>,
    /// Whether to load plugins from files and directories that others can write to. For development.
    pub trust_plugin_dirs: bool,
    /// The sandbox type of `run` without `-t`.
    pub default_type: Option<String>,
    /// What is logged: `warn`, `boxyard=debug,info`, …
    pub log: String,
    /// Where leases and plugins' data live.
    pub state_dir: Option<PathBuf>,
    /// Where `serve` keeps what outlives it; `store` in the state directory where it is left out.
    pub store: Option<PathBuf>,
    /// Where private copies of plugins live.
    pub cache_dir: Option<PathBuf>,
    /// How much of each output stream a buffered result holds, in bytes.
    pub max_output_bytes: usize,
    /// Threads of each plugin's runtime.
    pub plugin_threads: usize,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How long sandboxes live.
    pub lifetimes: Lifetimes,
    /// How many there may be.
    pub limits: Limits,
    /// The least isolation that a sandbox type must have; `serve` asks for `container` where it is
    /// left out, `run` for none.
    #[schemars(with = "Option<String>")]
    pub min_isolation: Option<Isolation>,
    /// How `serve` is reached.
    pub http: HttpConfig,
    /// Whether sandboxes that can be recovered are left to the next host when this one ends in order,
    /// as they are when it is killed; a request for a sandbox may say otherwise.
    pub keep_sandboxes: bool,
    /// Pools that `serve` keeps filled, by name.
    pub pools: BTreeMap<String, PoolSpec>,
    /// Languages of `multi_code_executor` beside those that every host has, by name.
    pub languages: BTreeMap<String, Language>,
    /// What holds for single plugins, by plugin name.
    pub plugins: BTreeMap<String, PluginConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            plugin_dirs: None,
            trust_plugin_dirs: false,
            default_type: None,
            log: "warn".into(),
            state_dir: None,
            store: None,
            cache_dir: None,
            max_output_bytes: 1024 * 1024,
            plugin_threads: 2,
            timeouts: Timeouts::default(),
            lifetimes: Lifetimes::default(),
            limits: Limits::default(),
            min_isolation: None,
            keep_sandboxes: false,
            http: HttpConfig::default(),
            pools: BTreeMap::new(),
            languages: BTreeMap::new(),
            plugins: BTreeMap::new(),
        }
    }
}

/// What holds for one plugin.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PluginConfig {
    /// Whether it may be loaded at all.
    pub enabled: bool,
    /// Which versions may be loaded, as cargo writes requirements.
    pub version: Option<String>,
    /// The only contents that may be loaded, as SHA-256 in hexadecimal.
    pub sha256: Vec<String>,
    /// The plugin's own settings.
    pub settings: serde_json::Map<String, Value>,
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            version: None,
            sha256: Vec::new(),
            settings: serde_json::Map::new(),
        }
    }
}

/// Makes records of durations, in seconds.
macro_rules! durations {
    ($(#[$of:meta])* pub struct $type:ident { $($(#[$doc:meta])* $name:ident = $seconds:expr;)* }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $type {
            $($(#[$doc])* #[serde(with = "duration")] #[schemars(with = "String")] pub $name: Duration,)*
        }

        impl Default for $type {
            fn default() -> Self {
                Self { $($name: Duration::from_secs($seconds),)* }
            }
        }
    };
}

durations! {
    /// How long things may take, as `90s` or `5m`.
    pub struct Timeouts {
        /// Loading and initialising a plugin.
        load = 10;
        /// A probe.
        probe = 10;
        /// Making a sandbox, images included.
        create = 600;
        /// Starting a sandbox.
        start = 120;
        /// Stopping a sandbox.
        stop = 30;
        /// Cleaning up a sandbox.
        cleanup = 60;
        /// What a cancelled call has to clean up in.
        cancel_grace = 5;
        /// How old what a dead host left behind must be before it is removed.
        sweep_grace = 60;
        /// How long sandboxes wait for the next host when theirs is gone.
        linger = 600;
        /// Ending everything at shutdown.
        shutdown = 20;
    }
}

durations! {
    /// How long sandboxes live that say nothing else, as `90s` or `48h`; then they are deleted.
    pub struct Lifetimes {
        /// One that can be used, since it was asked for.
        running = 48 * 3600;
        /// One that was stopped or that failed, since then.
        ended = 3600;
    }
}

/// How many sandboxes there may be; as many as there is room for where a limit is left out.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// In all, those that are being made included.
    pub sandboxes: Option<usize>,
    /// Of a sandbox type, by its name.
    pub per_type: BTreeMap<String, usize>,
    /// That are being made at once.
    pub creating: Option<usize>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{} is no TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// The file has wrong keys or values.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SchemaError,
    },
    /// A value has the right type and makes no sense.
    #[error("{}: {message}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming the key and the nearest one that exists.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.into(),
            message: error.to_string(),
        })?;
        let value = |message: String| ConfigError::Value {
            path: path.into(),
            message,
        };
        let document = serde_json::to_value(table).map_err(|error| value(error.to_string()))?;
        let settings = schemars::generate::SchemaSettings::draft07()
            .with(|settings| settings.inline_subschemas = true);
        let schema = Schema::new(
            settings
                .into_generator()
                .into_root_schema_for::<Self>()
                .to_value(),
        );
        let document =
            schema
                .check("configuration", document)
                .map_err(|source| ConfigError::Content {
                    path: path.into(),
                    source,
                })?;
        let config: Self =
            serde_json::from_value(document).map_err(|error| value(error.to_string()))?;
        config.validate().map_err(value)?;
        Ok(config)
    }

    /// Checks what a schema cannot: requirements, hashes.
    fn validate(&self) -> Result<(), String> {
        self.http.validate()?;
        for (name, plugin) in &self.plugins {
            if let Some(requirement) = &plugin.version {
                semver::VersionReq::parse(requirement).map_err(|error| {
                    format!("`plugins.{name}.version`: `{requirement}` is no version requirement: {error}")
                })?;
            }
            for hash in &plugin.sha256 {
                if !hex::is_sha256(hash) {
                    return Err(format!(
                        "`plugins.{name}.sha256`: `{hash}` is no SHA-256: expected 64 hexadecimal digits"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Returns the least isolation that a sandbox type must have.
    pub fn min_isolation(&self) -> Isolation {
        self.min_isolation.unwrap_or(Isolation::None)
    }

    /// Returns what holds for a plugin.
    pub fn plugin(&self, name: &str) -> PluginConfig {
        self.plugins.get(name).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("boxyard.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        let config = parse("").unwrap();
        assert_eq!(config.max_output_bytes, 1024 * 1024);
        assert_eq!(config.timeouts.cancel_grace, Duration::from_secs(5));
    }

    #[test]
    fn everything_can_be_set() {
        let config = parse(
            r#"
            plugin_dirs = ["/a"]
            default_type = "docker"
            [timeouts]
            create = "90s"
            [plugins.x]
            version = "^1.2"
            settings = { engine = "podman" }
            "#,
        )
        .unwrap();
        assert_eq!(config.plugin_dirs(), (vec![PathBuf::from("/a")], true));
        assert_eq!(config.timeouts.create, Duration::from_secs(90));
        assert_eq!(config.plugin("x").settings["engine"], "podman");
        assert!(config.plugin("y").enabled);
    }

    #[test]
    fn mistakes_name_the_key_and_the_nearest_one() {
        for (text, expected) in [
            ("plugin_dir = ['/a']", "did you mean `plugin_dirs`?"),
            ("plugin_dirs = '/a'", "`plugin_dirs`"),
            (
                "[timeouts]\ncreat = '1s'",
                "`timeouts.creat`: unknown key; did you mean `create`?",
            ),
            ("[timeouts]\ncreate = 'soon'", "`soon` is no duration"),
            ("[plugins.x]\nversion = 'new'", "`plugins.x.version`"),
            ("[plugins.x]\nsha256 = ['12']", "64 hexadecimal digits"),
            ("a = ", "is no TOML"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
