//! The seam: a backend and its sandboxes as the host sees them.
//!
//! Every call of a sandbox type, a sandbox or a tool goes through the [`Seam`], which gives it a
//! deadline, asks it to stop when its caller is gone, waits a grace, and only then drops it.
//! [`Instance`] keeps a sandbox that panicked from being used again.

use std::{
    future::{Future, pending},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use boxyard_plugin_api::{
    Call, CallController, Error, ErrorCode, Result, SandboxHandle, register::CallFuture,
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    config::Timeouts,
    telemetry::{PluginLog, RunningCall},
};

/// What all calls into one plugin share.
#[derive(Debug)]
pub(crate) struct Seam {
    plugin: Arc<str>,
    log: Arc<PluginLog>,
    pub(crate) timeouts: Timeouts,
}

/// How long a call may take, and on whose behalf it is made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Terms<'a> {
    /// When the host stops waiting; never where `None`.
    pub(crate) timeout: Option<Duration>,
    /// The call of a tool that this one is made for: it ends with it.
    pub(crate) parent: Option<&'a Call>,
    /// The end of what it is made on: it ends with it.
    pub(crate) until: Option<&'a CancellationToken>,
}

impl Terms<'_> {
    pub(crate) fn within(timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..Self::default()
        }
    }
}

impl Seam {
    pub(crate) fn new(plugin: Arc<str>, log: Arc<PluginLog>, timeouts: Timeouts) -> Self {
        Self {
            plugin,
            log,
            timeouts,
        }
    }

    /// Returns the plugin's name.
    pub(crate) fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Makes a call into the plugin.
    ///
    /// Cancel-safe in this sense: when the returned future is dropped, the plugin is asked to
    /// stop and has its grace, in a task of its own.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        terms: Terms<'_>,
        start: impl FnOnce(Call) -> CallFuture<T>,
    ) -> Result<T> {
        self.watched(terms, |_| {}, start).await
    }

    /// Does [`Seam::call`]; `panicked` is told of a panic also when nobody waits any more.
    async fn watched<T: Send + 'static>(
        &self,
        terms: Terms<'_>,
        panicked: impl FnOnce(&Error) + Send + 'static,
        start: impl FnOnce(Call) -> CallFuture<T>,
    ) -> Result<T> {
        let span = Span::current();
        let mut controller = CallController::new(span.id().map_or(0, |id| id.into_u64()));
        let own = terms
            .timeout
            .and_then(|timeout| Instant::now().checked_add(timeout));
        let parents = terms.parent.and_then(Call::deadline).map(Instant::from_std);
        let deadline = [own, parents].into_iter().flatten().min();
        if let Some(deadline) = deadline {
            controller = controller.deadline(deadline.into_std());
        }
        let running = self.log.enter(controller.id(), &span);
        let (started, plugin) = (start(controller.call()), Arc::clone(&self.plugin));
        let future = async move {
            started.await.map_err(|error| {
                if error.code() != ErrorCode::PANICKED {
                    return error;
                }
                let error = error.context(format_args!("plugin `{plugin}`"));
                panicked(&error);
                error
            })
        };
        let flight = Flight {
            future: Box::pin(future),
            landed: false,
            controller,
            grace: self.timeouts.cancel_grace,
            running,
        };
        let parent_cancelled = async {
            match terms.parent {
                Some(parent) => parent.cancelled().await,
                None => pending().await,
            }
        };
        let ended = async {
            match terms.until {
                Some(until) => until.cancelled().await,
                None => pending().await,
            }
        };
        let answer = flight.land(deadline, async {
            tokio::select! {
                () = parent_cancelled => {}
                () = ended => {}
            }
        });
        answer.await
    }
}

/// A call that is under way.
struct Flight<T: Send + 'static> {
    future: CallFuture<T>,
    landed: bool,
    controller: CallController,
    grace: Duration,
    /// Keeps the call's span known to the log while the plugin winds up.
    running: Option<RunningCall>,
}

impl<T: Send + 'static> Flight<T> {
    /// Waits for the answer, for the deadline, or until `asked` says that nobody wants it.
    async fn land(
        mut self,
        deadline: Option<Instant>,
        asked: impl Future<Output = ()>,
    ) -> Result<T> {
        let overdue = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        let late = tokio::select! {
            biased;
            answer = &mut self.future => {
                self.landed = true;
                return answer;
            }
            () = asked => false,
            () = overdue => true,
        };
        self.controller.cancel();
        let answer = timeout(self.grace, &mut self.future).await;
        self.landed = true;
        match answer {
            Ok(Err(error)) if late && error.code() == ErrorCode::CANCELLED => {
                Err(Error::deadline_exceeded("the call ran into its deadline"))
            }
            Ok(answer) => answer,
            Err(_) => {
                let message = format!(
                    "the plugin did not stop within {} of being asked",
                    humantime::format_duration(self.grace)
                );
                Err(if late {
                    Error::deadline_exceeded(message)
                } else {
                    Error::cancelled(message)
                })
            }
        }
    }
}

impl<T: Send + 'static> Drop for Flight<T> {
    fn drop(&mut self) {
        if self.landed {
            return;
        }
        self.controller.cancel();
        // Without a runtime the process is ending, and dropping the future is all that is left.
        if let Ok(runtime) = Handle::try_current() {
            let future = std::mem::replace(&mut self.future, Box::pin(pending()));
            let (grace, running) = (self.grace, self.running.take());
            runtime.spawn(async move {
                let _running = running;
                timeout(grace, future).await.map(drop)
            });
        }
    }
}

/// One sandbox of a backend, which takes nothing but its end once it panicked.
#[derive(Debug)]
pub(crate) struct Instance {
    handle: SandboxHandle,
    seam: Arc<Seam>,
    health: Arc<Mutex<InstanceHealth>>,
}

/// What may still be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InstanceHealth {
    Sound,
    Poisoned { may_stop: bool, may_clean_up: bool },
}

/// Which method of a sandbox a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Stop,
    CleanUp,
    Other,
}

impl InstanceHealth {
    /// Takes one call; once poisoned, `stop` and `cleanup` once each.
    fn admit(&mut self, method: Method) -> Result<()> {
        let Self::Poisoned {
            may_stop,
            may_clean_up,
        } = self
        else {
            return Ok(());
        };
        let allowed = match method {
            Method::Stop => std::mem::take(may_stop),
            Method::CleanUp => std::mem::take(may_clean_up),
            Method::Other => false,
        };
        if allowed {
            return Ok(());
        }
        Err(Error::new(
            ErrorCode::POISONED,
            "the sandbox panicked earlier and only waits to be deleted",
        ))
    }

    fn poison(&mut self) {
        if *self == Self::Sound {
            *self = Self::Poisoned {
                may_stop: true,
                may_clean_up: true,
            };
        }
    }
}

impl Instance {
    pub(crate) fn new(handle: SandboxHandle, seam: Arc<Seam>) -> Self {
        Self {
            handle,
            seam,
            health: Arc::new(Mutex::new(InstanceHealth::Sound)),
        }
    }

    /// Returns how long what is asked to stop may take.
    pub(crate) fn cancel_grace(&self) -> Duration {
        self.seam.timeouts.cancel_grace
    }

    /// Returns whether a method of it panicked.
    pub(crate) fn is_poisoned(&self) -> bool {
        *lock(&self.health) != InstanceHealth::Sound
    }

    pub(crate) async fn start(&self) -> Result<()> {
        let terms = Terms::within(self.seam.timeouts.start);
        self.method(
            Method::Other,
            terms,
            |_| {},
            |handle, call| handle.start(call),
        )
        .await
    }

    pub(crate) async fn stop(&self) -> Result<()> {
        let terms = Terms::within(self.seam.timeouts.stop);
        self.method(
            Method::Stop,
            terms,
            |_| {},
            |handle, call| handle.stop(call),
        )
        .await
    }

    pub(crate) async fn clean_up(&self) -> Result<()> {
        let terms = Terms::within(self.seam.timeouts.cleanup);
        self.method(
            Method::CleanUp,
            terms,
            |_| {},
            |handle, call| handle.cleanup(call),
        )
        .await
    }

    /// Calls any other method; `panicked` is told of a panic also when the caller is gone.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        terms: Terms<'_>,
        panicked: impl FnOnce(&Error) + Send + 'static,
        start: impl FnOnce(&SandboxHandle, Call) -> CallFuture<T>,
    ) -> Result<T> {
        self.method(Method::Other, terms, panicked, start).await
    }

    async fn method<T: Send + 'static>(
        &self,
        method: Method,
        terms: Terms<'_>,
        panicked: impl FnOnce(&Error) + Send + 'static,
        start: impl FnOnce(&SandboxHandle, Call) -> CallFuture<T>,
    ) -> Result<T> {
        lock(&self.health).admit(method)?;
        let health = Arc::clone(&self.health);
        let panicked = move |error: &Error| {
            lock(&health).poison();
            panicked(error);
        };
        self.seam
            .watched(terms, panicked, |call| start(&self.handle, call))
            .await
    }
}

fn lock(health: &Mutex<InstanceHealth>) -> MutexGuard<'_, InstanceHealth> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poisoned_instance_takes_stop_and_cleanup_once_each() {
        let mut health = InstanceHealth::Sound;
        health.admit(Method::Other).unwrap();
        health.poison();
        for (method, allowed) in [
            (Method::Other, false),
            (Method::Stop, true),
            (Method::Stop, false),
            (Method::CleanUp, true),
            (Method::CleanUp, false),
        ] {
            assert_eq!(health.admit(method).is_ok(), allowed, "{method:?}");
            health.poison();
        }
    }

    fn seam() -> Seam {
        let plugin: Arc<str> = "test".into();
        let timeouts = Timeouts {
            cancel_grace: Duration::from_secs(5),
            ..Timeouts::default()
        };
        Seam::new(
            Arc::clone(&plugin),
            Arc::new(PluginLog::new(plugin)),
            timeouts,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_obeys_is_late_and_one_that_does_not_is_dropped_after_its_grace() {
        let seam = seam();
        let terms = Terms::within(Duration::from_secs(60));
        let obeys = |call: Call| -> CallFuture<()> {
            Box::pin(async move {
                call.cancelled().await;
                Err(Error::cancelled("as asked"))
            })
        };
        let began = Instant::now();
        let error = seam.call(terms, obeys).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::DEADLINE_EXCEEDED);
        assert_eq!(began.elapsed().as_secs(), 60);

        let ignores = |_call: Call| -> CallFuture<()> { Box::pin(pending()) };
        let error = seam.call(terms, ignores).await.unwrap_err();
        assert!(
            error.message().contains("did not stop within 5s"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_vanishes_lets_the_plugin_clean_up() {
        let (cleaned, done) = tokio::sync::oneshot::channel();
        let seam = seam();
        let call = seam.call(Terms::default(), |call| -> CallFuture<()> {
            Box::pin(async move {
                call.cancelled().await;
                tokio::time::sleep(Duration::from_secs(2)).await;
                let _ = cleaned.send(());
                Ok(())
            })
        });
        assert!(timeout(Duration::from_secs(1), call).await.is_err());
        done.await.unwrap();
    }
}
