//! The log bridge: events and spans of the plugin, filtered here, shown by the host.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    reload,
};

use crate::{
    Error, Result,
    abi::{HostServicesObject, Telemetry, TelemetryLabels},
    register::{panic::PANIC_TARGET, runtime::current_labels},
};

/// The handle by which the host changes what it wants to hear.
pub(crate) struct LogFilter(reload::Handle<Targets, Registry>);

impl LogFilter {
    pub(crate) fn set(&self, filter: &str) -> Result<()> {
        self.0
            .reload(parse(filter)?)
            .map_err(|error| Error::internal(format_args!("changing the log filter: {error}")))
    }
}

/// Sends this library's events and spans to the host; what the filter leaves out costs a
/// comparison and never crosses.
pub(crate) fn install(host: HostServicesObject, filter: &str) -> Result<LogFilter> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let subscriber = Registry::default().with(filter.and_then(Bridge {
        host: Arc::new(host),
    }));
    tracing::subscriber::set_global_default(subscriber).map_err(|error| {
        Error::failed_precondition(format_args!("installing the log bridge: {error}"))
    })?;
    Ok(LogFilter(handle))
}

fn parse(filter: &str) -> Result<Targets> {
    let targets: Targets = filter
        .parse()
        .map_err(|error| Error::invalid_argument(format_args!("log filter `{filter}`: {error}")))?;
    // A panic in a drop has no caller to tell: the log is all there is of it.
    Ok(targets.with_target(PANIC_TARGET, LevelFilter::ERROR))
}

struct Bridge {
    host: Arc<HostServicesObject>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Bridge {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        self.host.telemetry(&Telemetry::Event {
            level: metadata.level().to_string(),
            target: metadata.target().into(),
            message: fields.take_message(),
            fields: fields.0,
            span: context
                .event_span(event)
                .map_or(0, |span| span.id().into_u64()),
            labels: labels(),
        });
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let metadata = attributes.metadata();
        let parent = context
            .span(id)
            .and_then(|span| span.parent().map(|parent| parent.id().into_u64()));
        self.host.telemetry(&Telemetry::SpanOpened {
            id: id.into_u64(),
            parent: parent.unwrap_or(0),
            name: metadata.name().into(),
            level: metadata.level().to_string(),
            target: metadata.target().into(),
            fields: fields.0,
            labels: labels(),
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        self.host.telemetry(&Telemetry::SpanRecorded {
            id: id.into_u64(),
            fields: fields.0,
        });
    }

    fn on_close(&self, id: Id, _context: Context<'_, S>) {
        self.host
            .telemetry(&Telemetry::SpanClosed { id: id.into_u64() });
    }
}

fn labels() -> TelemetryLabels {
    current_labels()
        .map(|labels| TelemetryLabels::clone(&labels))
        .unwrap_or_default()
}

/// What an event or a span recorded.
#[derive(Default)]
struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn take_message(&mut self) -> String {
        match self.0.remove("message") {
            Some(Value::String(message)) => message,
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}
