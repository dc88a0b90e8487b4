//! What is asked of the manager: a sandbox to make, and those to find.

use std::{collections::BTreeMap, time::Duration};

use boxyard_plugin_api::canonical_type_name;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    sandbox::{Event, Sandbox, Status},
    schema::{Problem, SchemaError},
};

/// A sandbox to make.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// Its sandbox type.
    pub sandbox_type: String,
    /// Its configuration; what is left out has its default.
    ///
    /// `tools_config` is the host's: the tools that it has, as a list of names or as an object whose
    /// keys are names. Without it, it has every tool that can run in it.
    pub config: Map<String, Value>,
    /// A name for people.
    pub name: String,
    /// Labels to find it by.
    pub labels: BTreeMap<String, String>,
    /// How long it lives; as long as the configuration says where `None`.
    pub ttl: Option<Duration>,
    /// How long it lives while nothing runs in it; that is no matter where `None`.
    pub idle_timeout: Option<Duration>,
    /// Whether it is left to the next host when this one ends in order; as the configuration says, and
    /// where it can be, where `None`.
    pub keep: Option<bool>,
    /// The pool that it is made for.
    pub(crate) pool: Option<String>,
    /// Who hears of each of its events as it happens, from before it is there.
    pub listener: Option<UnboundedSender<Event>>,
}

impl CreateRequest {
    /// Makes a request for a sandbox of a type, with its default configuration.
    pub fn new(sandbox_type: impl Into<String>) -> Self {
        Self {
            sandbox_type: sandbox_type.into(),
            ..Self::default()
        }
    }

    /// Sets the configuration.
    #[must_use]
    pub fn config(mut self, config: Map<String, Value>) -> Self {
        self.config = config;
        self
    }

    /// Sets a name for people.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds a label to find it by.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Sets how long it lives; then it is deleted, whatever runs in it.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets how long it lives while nothing runs in it.
    #[must_use]
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.idle_timeout = Some(idle_timeout);
        self
    }

    /// Sets whether it is left to the next host when this one ends in order, as it is when this one is
    /// killed. That takes a store and a sandbox type with recovery.
    #[must_use]
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = Some(keep);
        self
    }

    /// Sends each of its events as it happens, from before it is there.
    #[must_use]
    pub fn listener(mut self, listener: UnboundedSender<Event>) -> Self {
        self.listener = Some(listener);
        self
    }
}

/// The tools that a sandbox has, by name, each with settings of its own; one that is not `enabled` is
/// none of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct ToolsConfig(Map<String, Value>);

impl ToolsConfig {
    pub(crate) fn read(document: Value) -> Result<Self, SchemaError> {
        let wrong = |found: &Value| SchemaError::Document {
            what: "configuration".into(),
            problems: vec![Problem {
                field: "tools_config".into(),
                message: format!(
                    "{found} is no list of tools' names and no object with them as keys"
                ),
            }],
        };
        match document {
            Value::Object(mut tools) => {
                if let Some(other) = tools.values().find(|it| !it.is_object() && !it.is_null()) {
                    return Err(wrong(other));
                }
                tools.retain(|_, settings| settings.get("enabled") != Some(&Value::Bool(false)));
                Ok(Self(tools))
            }
            Value::Null => Ok(Self::default()),
            Value::Array(names) => {
                let named = names.iter().map(|name| match name {
                    Value::String(name) => Ok((name.clone(), Value::Object(Map::new()))),
                    other => Err(wrong(other)),
                });
                named.collect::<Result<_, _>>().map(Self)
            }
            other => Err(wrong(&other)),
        }
    }

    pub(crate) fn from_map(tools: Map<String, Value>) -> Self {
        Self(tools)
    }

    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.0
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// Which sandboxes are wanted; all where it says nothing.
///
/// ```
/// use boxyard_host::{Filter, Status};
///
/// let filter = Filter::default().status(Status::Running).label("team", "red");
/// # let _ = filter;
/// ```
#[derive(Clone, Debug, Default)]
pub struct Filter {
    status: Option<Status>,
    sandbox_type: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Filter {
    /// Wants those with a status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Wants those of a sandbox type.
    #[must_use]
    pub fn sandbox_type(mut self, name: impl AsRef<str>) -> Self {
        self.sandbox_type = Some(canonical_type_name(name.as_ref()));
        self
    }

    /// Wants those with a label; with each of them where there are more.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    pub(super) fn wants(&self, sandbox: &Sandbox) -> bool {
        let Self {
            status,
            sandbox_type,
            labels,
        } = self;
        let mut labels = labels.iter();
        status.is_none_or(|status| status == sandbox.status())
            && (sandbox_type.as_ref()).is_none_or(|name| name == sandbox.sandbox_type().name())
            && labels.all(|(key, value)| sandbox.labels().get(key) == Some(value))
    }
}
