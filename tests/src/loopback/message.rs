//! What the headers of frames say.

use std::time::{Duration, Instant};

use boxyard_plugin_api::{Call, CallController, Error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An object in the table of one end.
pub(super) type ObjectId = u64;
/// A request of one end.
pub(super) type RequestId = u64;

/// The object that is in the far end's table from the start.
pub(super) const ROOT: ObjectId = 0;

/// The header of a frame.
///
/// `object` is a number in the receiver's table, `handed` lists numbers in the sender's: objects
/// that the receiver holds from then on, until it releases each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Message {
    /// Does something with an object; answered unless it is abandoned first.
    Request {
        /// Chosen by the sender.
        id: RequestId,
        object: ObjectId,
        method: String,
        /// Where the method takes a call's context.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<CallDocument>,
        #[serde(default)]
        params: Value,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        handed: Vec<ObjectId>,
    },
    /// Answers a request of the receiver's.
    Answer {
        id: RequestId,
        result: Result<Value, Error>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        handed: Vec<ObjectId>,
    },
    /// Asks the receiver to stop what a request of the sender's started.
    Cancel { id: RequestId },
    /// Drops what a request of the sender's started; there will be no answer.
    Abandon { id: RequestId },
    /// Tells an object something; needs no answer, and notes arrive in order.
    Note {
        object: ObjectId,
        method: String,
        params: Value,
    },
    /// Gives an object back: the sender uses it no more.
    Release { object: ObjectId },
}

/// A call's context. Whether it is cancelled is a message of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CallDocument {
    /// The number that logs know it by, the same at both ends.
    id: u64,
    span: u64,
    /// How long the caller still waits; for as long as it takes where `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remaining_ms: Option<u64>,
}

impl CallDocument {
    pub(super) fn of(call: &Call) -> Self {
        Self {
            id: call.id(),
            span: call.span(),
            remaining_ms: call
                .remaining()
                .map(|remaining| u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Makes the call that stands for it at this end.
    pub(super) fn controller(&self) -> CallController {
        let controller = CallController::new(self.span).with_id(self.id);
        let deadline = self
            .remaining_ms
            .and_then(|remaining| Instant::now().checked_add(Duration::from_millis(remaining)));
        match deadline {
            Some(deadline) => controller.deadline(deadline),
            None => controller,
        }
    }
}
