//! The host's log, and the plugins' events and spans in it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
};

use boxyard_plugin_api::abi::{HostServices, Telemetry, TelemetryLabels};
use serde_json::Value;
use tracing::{Span, level_filters::LevelFilter};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt};

/// The target of what plugins log; where a plugin logged it is in the field `source`.
pub const PLUGIN_TARGET: &str = "boxyard::plugin";

/// Sends the program's log to standard error.
///
/// # Errors
///
/// A filter that cannot be read, and a second call.
pub fn init(filter: &str) -> Result<(), String> {
    let targets: Targets = filter
        .parse()
        .map_err(|error| format!("log filter `{filter}`: {error}; try `info`"))?;
    // Plugins have filtered theirs already.
    let targets = targets.with_target(PLUGIN_TARGET, LevelFilter::TRACE);
    let format = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .without_time()
        .compact()
        .with_ansi(std::io::stderr().is_terminal());
    let subscriber = tracing_subscriber::registry().with(targets).with(format);
    tracing::subscriber::set_global_default(subscriber).map_err(|error| error.to_string())
}

/// One plugin's part of the log.
#[derive(Debug)]
pub(crate) struct PluginLog {
    plugin: Arc<str>,
    /// The plugin's open spans, by its own numbers.
    spans: Mutex<HashMap<u64, Span>>,
    /// The host's spans around running calls, by call.
    calls: Mutex<HashMap<u64, Span>>,
}

/// A call that is running; its span is known to the log as long as this lives.
#[derive(Debug)]
pub(crate) struct RunningCall {
    log: Arc<PluginLog>,
    call: u64,
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.log
            .calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.call);
    }
}

/// Dispatches on a level's name; tracing wants levels as constants.
macro_rules! at_level {
    ($level:expr, $macro:ident) => {
        match $level {
            "ERROR" => $macro!(ERROR),
            "WARN" => $macro!(WARN),
            "INFO" => $macro!(INFO),
            "DEBUG" => $macro!(DEBUG),
            _ => $macro!(TRACE),
        }
    };
}

impl PluginLog {
    pub(crate) fn new(plugin: Arc<str>) -> Self {
        Self {
            plugin,
            spans: Mutex::default(),
            calls: Mutex::default(),
        }
    }

    /// Makes the span of a running call known; `None` where nobody listens.
    pub(crate) fn enter(self: &Arc<Self>, call: u64, span: &Span) -> Option<RunningCall> {
        if span.is_disabled() {
            return None;
        }
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(call, span.clone());
        Some(RunningCall {
            log: Arc::clone(self),
            call,
        })
    }

    fn record(&self, record: Telemetry) {
        match record {
            Telemetry::Event {
                level,
                target,
                message,
                fields,
                span,
                labels,
            } => {
                self.event(&level, &target, &message, &fields, span, &labels);
            }
            Telemetry::SpanOpened {
                id,
                parent,
                name,
                level,
                target,
                fields,
                labels,
            } => {
                let span = self.open(&level, &target, &name, &fields, parent, &labels);
                self.spans
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(id, span);
            }
            Telemetry::SpanRecorded { id, fields } => {
                let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(span) = spans.get(&id) {
                    span.record("fields", tracing::field::display(Joined(&fields)));
                }
            }
            Telemetry::SpanClosed { id } => {
                self.spans
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&id);
            }
            // Of a newer plugin: nothing that this host could show.
            Telemetry::Unknown => {}
        }
    }

    /// Returns the span that an event or a span of the plugin lies in.
    ///
    /// It is held while it is used: its own end may come from another thread meanwhile.
    fn parent(&self, span: u64, labels: &TelemetryLabels) -> Span {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(parent) = spans.get(&span) {
            return parent.clone();
        }
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.get(&labels.call).cloned().unwrap_or_else(Span::none)
    }

    fn event(
        &self,
        level: &str,
        target: &str,
        message: &str,
        fields: &BTreeMap<String, Value>,
        span: u64,
        labels: &TelemetryLabels,
    ) {
        let parent = self.parent(span, labels);
        let (sandbox_type, sandbox) = (filled(&labels.sandbox_type), filled(&labels.sandbox));
        let shown = (!fields.is_empty()).then(|| tracing::field::display(Joined(fields)));
        macro_rules! emit {
            ($level:ident) => {
                tracing::event!(
                    target: PLUGIN_TARGET,
                    parent: parent.id(),
                    tracing::Level::$level,
                    plugin = &*self.plugin,
                    sandbox_type,
                    sandbox,
                    source = target,
                    fields = shown,
                    "{message}"
                )
            };
        }
        at_level!(level, emit);
    }

    fn open(
        &self,
        level: &str,
        target: &str,
        name: &str,
        fields: &BTreeMap<String, Value>,
        parent: u64,
        labels: &TelemetryLabels,
    ) -> Span {
        let parent = self.parent(parent, labels);
        let (sandbox_type, sandbox) = (filled(&labels.sandbox_type), filled(&labels.sandbox));
        let shown = (!fields.is_empty()).then(|| tracing::field::display(Joined(fields)));
        macro_rules! open {
            ($level:ident) => {
                tracing::span!(
                    target: PLUGIN_TARGET,
                    parent: parent.id(),
                    tracing::Level::$level,
                    "plugin",
                    span = name,
                    plugin = &*self.plugin,
                    sandbox_type,
                    sandbox,
                    source = target,
                    fields = shown,
                )
            };
        }
        at_level!(level, open)
    }
}

/// What a plugin calls to log.
pub(crate) struct PluginServices(Arc<PluginLog>);

impl PluginServices {
    pub(crate) fn new(log: Arc<PluginLog>) -> Self {
        Self(log)
    }
}

impl HostServices for PluginServices {
    fn telemetry(&self, record: Telemetry) {
        self.0.record(record);
    }
}

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Recorded values as `name=value`, text without its quotes.
struct Joined<'a>(&'a BTreeMap<String, Value>);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            match value {
                Value::String(text) => write!(f, "{space}{name}={text}")?,
                value => write!(f, "{space}{name}={value}")?,
            }
        }
        Ok(())
    }
}
