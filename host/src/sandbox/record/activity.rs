//! Calls that are running in a sandbox.

use std::sync::Arc;

use boxyard_plugin_api::{Error, Result, register::CallFuture};

use super::{HOSTS, Inner, Record};
use crate::sandbox::Status;

/// How many calls are running.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Those that somebody waits for or waited for: the sandbox is busy.
    activities: usize,
    /// Those that are there for others.
    background: usize,
}

impl Calls {
    pub(super) fn make_it_busy(&self) -> bool {
        self.activities > 0
    }

    fn count(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Activity => &mut self.activities,
            Kind::Background => &mut self.background,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Activity,
    Background,
}

/// A call that is running. It is counted until it is over: also where its caller is gone and its plugin
/// winds it up.
#[derive(Debug)]
pub(crate) struct Activity {
    record: Arc<Record>,
    kind: Kind,
}

impl Activity {
    /// Counts it until the future is through or dropped.
    pub(crate) fn during<T: Send + 'static>(self, call: CallFuture<T>) -> CallFuture<T> {
        Box::pin(async move {
            let _counted = self;
            call.await
        })
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        let mut inner = self.record.inner();
        *inner.calls.count(self.kind) -= 1;
        self.record.settle(&mut inner);
        if inner.is_quiet() {
            self.record.quiet.notify_waiters();
        }
    }
}

impl Inner {
    fn is_quiet(&self) -> bool {
        self.calls.activities + self.calls.background == 0
    }
}

impl Record {
    /// Counts one more call that is running.
    ///
    /// # Errors
    ///
    /// The sandbox takes no calls now.
    pub(in crate::sandbox) fn begin(self: &Arc<Self>) -> Result<Activity> {
        self.begin_as(Kind::Activity)
    }

    /// Does [`Record::begin`] for a call that is there for others: the sandbox is not busy with it.
    ///
    /// # Errors
    ///
    /// As [`Record::begin`].
    pub(in crate::sandbox) fn begin_in_background(self: &Arc<Self>) -> Result<Activity> {
        self.begin_as(Kind::Background)
    }

    fn begin_as(self: &Arc<Self>, kind: Kind) -> Result<Activity> {
        let mut inner = self.inner();
        let status = self.status();
        if !status.takes_calls() {
            return Err(self.takes_none(status, &inner));
        }
        *inner.calls.count(kind) += 1;
        self.settle(&mut inner);
        Ok(Activity {
            record: Arc::clone(self),
            kind,
        })
    }

    fn takes_none(&self, status: Status, inner: &Inner) -> Error {
        let why = HOSTS.map(|key| inner.metadata.get(key)?.as_str());
        let why = why.into_iter().flatten().next();
        let why = why.unwrap_or("expected it to be running");
        Error::failed_precondition(format!("sandbox {} is {status}: {why}", self.id()))
    }

    /// Waits until no call is running.
    pub(in crate::sandbox) async fn quiet(&self) {
        loop {
            let told = self.quiet.notified();
            if self.inner().is_quiet() {
                return;
            }
            told.await;
        }
    }
}
