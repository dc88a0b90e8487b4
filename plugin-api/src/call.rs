//! The context of one call: who, until when, and whether it is still wanted.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    Error, Result,
    abi::{self, CallVTableRef, Object},
};

/// The context of one call, given to every async method.
///
/// When the caller gives up, the method is asked first, through [`Call::cancelled`], and has
/// a grace to clean up; only then is its future dropped.
#[derive(Debug)]
pub struct Call {
    id: u64,
    deadline: Option<Instant>,
    span: u64,
    cancellation: Object<CallVTableRef>,
}

impl Call {
    /// Returns the call's number, as logs show it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns when the caller stops waiting; `None` for never.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns how long the caller still waits; `None` for as long as it takes.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Returns the caller's span, for logs; 0 for none.
    pub fn span(&self) -> u64 {
        self.span
    }

    /// Returns whether the caller asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    /// Waits until the caller asks to stop. Cancel-safe; pending for ever if it never does.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        self.cancellation.cancelled()
    }

    /// Runs `work` until it ends or the caller asks to stop, whichever is first.
    ///
    /// `work` is dropped in the second case: use it for what a drop undoes, and
    /// [`Call::cancelled`] in a `select!` where there is something to clean up.
    ///
    /// # Errors
    ///
    /// What `work` answers, or [`ErrorCode::CANCELLED`](crate::ErrorCode::CANCELLED).
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancelled() => Err(Error::cancelled("the caller asked to stop")),
            result = work => result,
        }
    }

    /// Makes the context of a call made on behalf of this one: the same deadline and span.
    ///
    /// Cancelling this call does not cancel the child by itself; whoever waits for the
    /// child passes it on.
    pub fn child(&self) -> CallController {
        let child = CallController::new(self.span);
        match self.deadline {
            Some(deadline) => child.deadline(deadline),
            None => child,
        }
    }
}

impl From<abi::Call> for Call {
    fn from(call: abi::Call) -> Self {
        let deadline = (call.remaining_ms != u64::MAX)
            .then(|| Instant::now().checked_add(Duration::from_millis(call.remaining_ms)))
            .flatten();
        Self {
            id: call.id,
            deadline,
            span: call.span,
            cancellation: call.cancellation,
        }
    }
}

impl From<Call> for abi::Call {
    fn from(call: Call) -> Self {
        let remaining_ms = call.remaining().map_or(u64::MAX, |remaining| {
            u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX - 1)
        });
        Self {
            id: call.id,
            remaining_ms,
            span: call.span,
            cancellation: call.cancellation,
        }
    }
}

/// The caller's end of a [`Call`].
#[derive(Clone, Debug)]
pub struct CallController {
    id: u64,
    deadline: Option<Instant>,
    span: u64,
    token: CancellationToken,
}

impl CallController {
    /// Makes a call with a number of its own, no deadline, and a span of the caller's.
    pub fn new(span: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            deadline: None,
            span,
            token: CancellationToken::new(),
        }
    }

    /// Sets when the caller stops waiting.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets the call's number, for proxies: what is passed on keeps the number that logs know it by.
    #[must_use]
    pub fn with_id(mut self, id: u64) -> Self {
        self.id = id;
        self
    }

    /// Returns the call's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Asks whoever runs the call to stop.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Returns whether [`CallController::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the call is cancelled.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Makes the context to hand over.
    pub fn call(&self) -> Call {
        Call {
            id: self.id,
            deadline: self.deadline,
            span: self.span,
            cancellation: Object::from_token(self.token.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[tokio::test]
    async fn cancelling_reaches_the_call_and_its_deadline_crosses() {
        let controller = CallController::new(7).deadline(Instant::now() + Duration::from_secs(60));
        let call = Call::from(abi::Call::from(controller.call()));
        assert_eq!((call.id(), call.span()), (controller.id(), 7));
        assert!(call.remaining().unwrap() > Duration::from_secs(50));
        assert!(!call.is_cancelled());
        assert_eq!(call.unless_cancelled(async { Ok(1) }).await.unwrap(), 1);
        controller.cancel();
        call.cancelled().await;
        let error = call
            .unless_cancelled(std::future::pending::<Result<()>>())
            .await
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::CANCELLED);
        assert!(CallController::new(0).call().remaining().is_none());
        assert_eq!(CallController::new(0).with_id(41).call().id(), 41);
    }
}
