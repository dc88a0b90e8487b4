//! What others do to our containers: the engine's events, told to the sandboxes they are about.
//!
//! A container that ends is heard of by its agent's connection, at once; this is for what leaves
//! that open.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bollard::{models::EventMessage, query_parameters::EventsOptionsBuilder};
use boxyard_plugin_api::prelude::*;
use futures_util::StreamExt;

use crate::{engine::Connection, engine::failure, labels};

/// How long an engine that went away is left alone before its events are asked for again. Short, for
/// what happens meanwhile is not heard of.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// What says that a container is paused. It is not the sandbox's `error`: nothing failed, and what
/// fails later has a cause of its own.
const PAUSED: &str = "paused";

/// The sandboxes that hear of events, by container id.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    sandboxes: Mutex<HashMap<String, Weak<Told>>>,
    begun: Mutex<bool>,
}

/// One sandbox that hears of events.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) SandboxContext);

impl Watch {
    fn sandboxes(&self) -> MutexGuard<'_, HashMap<String, Weak<Told>>> {
        self.sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a sandbox told of what happens to its container, for as long as what is returned lives.
    pub(crate) fn tell(
        self: &Arc<Self>,
        container: &str,
        context: SandboxContext,
        connection: &Arc<Connection>,
    ) -> Arc<Told> {
        let host = context.identity().host.clone();
        let told = Arc::new(Told(context));
        let mut sandboxes = self.sandboxes();
        sandboxes.retain(|_, told| told.strong_count() > 0);
        sandboxes.insert(container.into(), Arc::downgrade(&told));
        drop(sandboxes);
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if !*begun {
            *begun = true;
            let (watch, connection) = (Arc::downgrade(self), Arc::clone(connection));
            tokio::spawn(async move { listen(watch, &connection, &host).await });
        }
        told
    }

    fn hear(&self, event: EventMessage) {
        let container = event.actor.and_then(|actor| actor.id).unwrap_or_default();
        let told = self.sandboxes().get(&container).and_then(Weak::upgrade);
        let (Some(told), Some(action)) = (told, event.action) else {
            return;
        };
        match action.as_str() {
            "pause" => told.0.set_metadata(
                PAUSED,
                "the container was paused by somebody else: its commands stand still",
            ),
            "unpause" => told.0.set_metadata(PAUSED, Value::Null),
            _ => {}
        }
        told.0.event(format!("container-{action}"), json!({}));
    }
}

/// Listens until nobody is told any more.
async fn listen(watch: Weak<Watch>, connection: &Connection, host: &str) {
    let label = format!("{}={host}", labels::HOST);
    let filters = HashMap::from([
        ("type", vec!["container"]),
        ("event", vec!["pause", "unpause", "oom"]),
        ("label", vec![label.as_str()]),
    ]);
    while watch.strong_count() > 0 {
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut events = connection.docker.events(Some(options));
        while let Some(event) = events.next().await {
            let Some(watch) = watch.upgrade() else {
                return;
            };
            match event {
                Ok(event) => watch.hear(event),
                Err(error) => {
                    tracing::debug!(error = %failure(error), "the engine's events break off");
                    break;
                }
            }
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}
