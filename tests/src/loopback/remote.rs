//! Objects of the other end, and requests of this one.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use boxyard_host::Error;
use boxyard_plugin_api::{Call, Result};
use futures_util::FutureExt;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    message::{CallDocument, Message, ObjectId, RequestId},
    peer::Peer,
    serve::Exported,
};

/// A request before it is sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) params: Value,
    /// What the other end gets to use.
    pub(super) handing: Vec<Exported>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Makes a request without anything.
    pub(super) fn plain(method: &'static str) -> Self {
        Self {
            method,
            params: Value::Null,
            handing: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Makes a request with a document.
    ///
    /// # Errors
    ///
    /// A document that has no JSON form.
    pub(super) fn new(method: &'static str, params: &(impl Serialize + ?Sized)) -> Result<Self> {
        Ok(Self {
            params: serde_json::to_value(params)?,
            ..Self::plain(method)
        })
    }

    /// Hands an object to the other end, for as long as that likes.
    pub(super) fn handing(mut self, object: Exported) -> Self {
        self.handing.push(object);
        self
    }
}

/// The other end's answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) value: Value,
    /// What this end gets to use; given back when it is dropped.
    pub(super) handed: Vec<Remote>,
    pub(super) body: Vec<u8>,
}

/// An object of the other end; dropping it gives it back.
pub(super) struct Remote {
    peer: Peer,
    object: ObjectId,
}

impl Remote {
    pub(super) fn new(peer: Peer, object: ObjectId) -> Self {
        Self { peer, object }
    }

    /// Starts a request and returns the answer to come.
    pub(super) fn request(&self, request: Request) -> Pending {
        self.peer.start(self.object, request, None)
    }

    /// Makes a request with a call's context: a call that is asked to stop is asked to there.
    ///
    /// # Errors
    ///
    /// What the other end answers.
    pub(super) async fn call(&self, request: Request, call: &Call) -> Result<Answer> {
        let mut pending = self
            .peer
            .start(self.object, request, Some(CallDocument::of(call)));
        tokio::select! {
            biased;
            answer = &mut pending => return answer,
            () = call.cancelled() => pending.cancel(),
        }
        pending.await
    }

    /// Tells the object something.
    pub(super) fn note(&self, method: &'static str, params: Value) {
        self.peer.send(Message::Note {
            object: self.object,
            method: method.into(),
            params,
        });
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.peer.send(Message::Release {
            object: self.object,
        });
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.object)
    }
}

/// An answer to come; dropping it drops at the other end what works on it.
pub(super) struct Pending {
    peer: Peer,
    id: RequestId,
    answer: oneshot::Receiver<Result<Answer>>,
    landed: bool,
}

impl Pending {
    pub(super) fn new(
        peer: Peer,
        id: RequestId,
        answer: oneshot::Receiver<Result<Answer>>,
    ) -> Self {
        Self {
            peer,
            id,
            answer,
            landed: false,
        }
    }

    fn cancel(&self) {
        self.peer.send(Message::Cancel { id: self.id });
    }
}

impl Future for Pending {
    type Output = Result<Answer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.poll_unpin(context).map(|answer| {
            self.landed = true;
            answer.unwrap_or_else(|_| Err(gone()))
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.landed {
            self.peer.forget(self.id);
            self.peer.send(Message::Abandon { id: self.id });
        }
    }
}

fn gone() -> Error {
    Error::unavailable("the other end of the connection is gone")
}
