//! What happened to a sandbox.

use std::{collections::VecDeque, time::SystemTime};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedSender;

use super::journal::Journal;

/// Older events than so many are forgotten.
pub(crate) const KEPT: usize = 1000;

/// Something that happened to a sandbox.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// When.
    #[serde(serialize_with = "timestamp")]
    pub time: SystemTime,
    /// What: a short kebab-case word.
    pub kind: String,
    /// The facts.
    pub data: Value,
}

/// Writes a time as RFC 3339, in UTC and to the millisecond.
pub(super) fn timestamp<S: Serializer>(
    time: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // Whatever a clock says that is wrong by millennia, there is something to show.
    let time = Timestamp::try_from(*time).unwrap_or(Timestamp::MAX);
    serializer.collect_str(&format_args!("{time:.3}"))
}

/// The last events of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Events {
    last: VecDeque<Event>,
    /// Who hears of each as it happens.
    listener: Option<UnboundedSender<Event>>,
    journal: Journal,
}

impl Events {
    /// Goes on after those that are known already.
    pub(super) fn new(
        known: Vec<Event>,
        listener: Option<UnboundedSender<Event>>,
        journal: Journal,
    ) -> Self {
        Self {
            last: known.into(),
            listener,
            journal,
        }
    }

    pub(super) fn push(&mut self, kind: String, data: Value) {
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        let event = Event {
            time: SystemTime::now(),
            kind,
            data,
        };
        if let Some(listener) = &self.listener {
            // One that went away hears no more.
            let _ = listener.send(event.clone());
        }
        self.journal.event(&event);
        self.last.push_back(event);
    }

    pub(super) fn to_vec(&self) -> Vec<Event> {
        self.last.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_events_are_forgotten_first() {
        let mut events = Events::default();
        for number in 0..=KEPT {
            events.push("counted".into(), number.into());
        }
        let kept = events.to_vec();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].data, 1);
    }
}
