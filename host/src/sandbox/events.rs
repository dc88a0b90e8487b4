//! What happened to a sandbox.

use std::{collections::VecDeque, time::SystemTime};

use serde::{Serialize, Serializer};
use serde_json::Value;

/// Older events than so many are forgotten.
const KEPT: usize = 1000;

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
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

/// The last events of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<Event>);

impl Events {
    pub(super) fn push(&mut self, kind: String, data: Value) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Event {
            time: SystemTime::now(),
            kind,
            data,
        });
    }

    pub(super) fn to_vec(&self) -> Vec<Event> {
        self.0.iter().cloned().collect()
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
