//! What a plugin logs comes out of the host's log.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, Once},
};

use boxyard_host::telemetry::PLUGIN_TARGET;
use serde_json::json;
use tracing::{
    Event, Instrument, Subscriber,
    field::{Field, Visit},
    info_span,
    span::{Attributes, Id},
};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt, registry::LookupSpan};

use crate::world::{At, PLUGIN, World, at_both, eventually, run};

at_both! {
    events_and_spans_come_out_named_and_within_the_hosts_span,
    a_level_that_is_switched_off_does_not_cross,
    making_a_sandbox_is_logged_within_the_hosts_span,
    a_task_of_a_sandbox_logs_under_its_name,
    a_tools_command_in_another_plugin_logs_within_the_hosts_span,
    what_winds_up_after_its_caller_left_logs_within_the_hosts_span,
}

/// What the process logged under [`PLUGIN_TARGET`].
static LOGGED: Mutex<Vec<Logged>> = Mutex::new(Vec::new());

/// An event with the spans that it lies in, innermost first.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) level: String,
    pub(crate) message: String,
    fields: Fields,
    spans: Vec<(&'static str, Fields)>,
}

type Fields = BTreeMap<&'static str, String>;

impl Logged {
    pub(crate) fn is(&self, field: &str, value: &str) -> bool {
        self.fields.get(field).is_some_and(|found| found == value)
    }

    fn span_names(&self) -> Vec<&'static str> {
        self.spans.iter().map(|(name, _)| *name).collect()
    }
}

/// Collects what the process logs from now on; again is no error.
pub(crate) fn collect() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Collector);
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

/// Waits until such an event was logged.
pub(crate) async fn eventually_logged(is_it: impl Fn(&Logged) -> bool) {
    eventually("an event in the log", || {
        LOGGED.lock().unwrap().iter().any(&is_it)
    })
    .await;
}

fn logged(message: &str) -> Vec<Logged> {
    let logged = LOGGED.lock().unwrap();
    let found = logged.iter().filter(|event| event.message == message);
    found.cloned().collect()
}

fn levels(events: &[Logged]) -> Vec<&str> {
    events.iter().map(|event| event.level.as_str()).collect()
}

struct Collector;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Visitor::default();
        attributes.record(&mut fields);
        let span = context.span(id).unwrap();
        span.extensions_mut().insert(fields.0);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != PLUGIN_TARGET {
            return;
        }
        let mut fields = Visitor::default();
        event.record(&mut fields);
        let scope = context.event_scope(event).into_iter().flatten();
        let spans = scope.map(|span| {
            let fields = span.extensions().get::<Fields>().cloned();
            (span.name(), fields.unwrap_or_default())
        });
        let logged = Logged {
            level: event.metadata().level().to_string(),
            message: fields.0.remove("message").unwrap_or_default(),
            fields: fields.0,
            spans: spans.collect(),
        };
        LOGGED.lock().unwrap().push(logged);
    }
}

#[derive(Default)]
struct Visitor(Fields);

impl Visit for Visitor {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

async fn logging(at: At, filter: &str) -> World {
    World::with(at, |config| config.log = filter.into()).await
}

async fn events_and_spans_come_out_named_and_within_the_hosts_span(at: At) {
    let world = logging(at, "trace").await;
    let sandbox = world.sandbox(json!({})).await;
    let message = format!("all of {}", sandbox.id());
    run(&sandbox, &["log", &message])
        .instrument(info_span!("request"))
        .await
        .unwrap();
    let events = logged(&message);
    assert_eq!(levels(&events), ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"]);
    for event in &events {
        assert!(event.is("plugin", PLUGIN), "{event:?}");
        assert!(event.is("sandbox_type", "wild"), "{event:?}");
        assert!(event.is("sandbox", sandbox.id()), "{event:?}");
        assert!(event.is("source", "wild"), "{event:?}");
        assert_eq!(event.span_names(), ["plugin", "request"]);
        let (_, fields) = &event.spans[0];
        assert_eq!(fields["span"], "wild_work");
        assert_eq!(fields["fields"], "of=logging");
        assert_eq!(fields["sandbox"], sandbox.id());
    }
    assert!(events[2].is("fields", "answer=42"));
}

async fn a_level_that_is_switched_off_does_not_cross(at: At) {
    for (filter, expected) in [
        ("warn", &["ERROR", "WARN"][..]),
        ("wild=debug,error", &["ERROR", "WARN", "INFO", "DEBUG"]),
        ("off", &[]),
    ] {
        let world = logging(at, filter).await;
        let sandbox = world.sandbox(json!({})).await;
        let message = format!("{filter} of {}", sandbox.id());
        run(&sandbox, &["log", &message]).await.unwrap();
        // The test's own subscriber takes everything: what it has not got did not cross.
        assert_eq!(levels(&logged(&message)), expected, "{filter}");
    }
}

async fn making_a_sandbox_is_logged_within_the_hosts_span(at: At) {
    let world = logging(at, "debug").await;
    let made = world.create(json!({})).instrument(info_span!("making"));
    let sandbox = made.await.unwrap();
    let deleted = world.host.manager().delete(sandbox.id());
    deleted.instrument(info_span!("deleting")).await.unwrap();
    for (step, span) in [
        ("create", "making"),
        ("start", "making"),
        ("stop", "deleting"),
        ("cleanup", "deleting"),
    ] {
        let events = logged(&format!("step {step}"));
        let own = events
            .iter()
            .find(|event| event.is("sandbox", sandbox.id()));
        let own = own.unwrap_or_else(|| panic!("{step} is not logged under its sandbox"));
        assert_eq!(own.span_names(), [span], "{step}");
    }
}

async fn a_task_of_a_sandbox_logs_under_its_name(at: At) {
    let world = logging(at, "info").await;
    let sandbox = world.sandbox(json!({})).await;
    let message = format!("a task of {}", sandbox.id());
    run(&sandbox, &["log-in-task", &message]).await.unwrap();
    let events = logged(&message);
    assert_eq!(levels(&events), ["ERROR", "WARN", "INFO"]);
    assert!(events.iter().all(|event| event.is("sandbox", sandbox.id())));
}

async fn a_tools_command_in_another_plugin_logs_within_the_hosts_span(at: At) {
    let world = logging(at, "info").await;
    world.invite_visitor().await;
    let sandbox = world.sandbox(json!({})).await;
    let message = format!("a visit to {}", sandbox.id());
    let params = json!({ "command": ["log", message] });
    let visit = sandbox.execute_tool("visitor", params, None);
    visit.instrument(info_span!("visit")).await.unwrap();
    let events = logged(&message);
    assert_eq!(levels(&events), ["ERROR", "WARN", "INFO"]);
    assert_eq!(events[0].span_names(), ["plugin", "visit"]);
    let visits = logged("visiting");
    assert!(visits.iter().any(|event| event.is("plugin", "visitor")));
}

async fn what_winds_up_after_its_caller_left_logs_within_the_hosts_span(at: At) {
    let world = logging(at, "info").await;
    let sandbox = world.sandbox(json!({})).await;
    let message = format!("hang wound up in {}", sandbox.id());
    let caller = tokio::spawn({
        let sandbox = sandbox.clone();
        let run = async move { run(&sandbox, &["hang"]).await };
        run.instrument(info_span!("caller"))
    });
    world.noted("hang hangs").await;
    caller.abort();
    eventually_logged(|event| event.message == message).await;
    assert_eq!(logged(&message)[0].span_names(), ["caller"]);
}
