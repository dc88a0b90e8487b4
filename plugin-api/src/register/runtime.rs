//! Where author code runs: the plugin's own runtime, and under which labels.

use std::{future::Future, sync::Arc};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{JoinHandle, futures::TaskLocalFuture},
};

use crate::{
    Error, Result,
    abi::TelemetryLabels,
    register::panic::{Contained, catch},
};

tokio::task_local! {
    /// Which sandbox and call the running code works for.
    static LABELS: Arc<TelemetryLabels>;
}

/// Returns which sandbox and call the running code works for.
pub(crate) fn current_labels() -> Option<Arc<TelemetryLabels>> {
    LABELS.try_with(Arc::clone).ok()
}

/// Makes a plugin's runtime.
pub(crate) fn build(name: &str, threads: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|error| Error::from(error).context("starting the plugin's runtime"))
}

/// A runtime, and the labels of what runs there.
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    handle: Handle,
    labels: Arc<TelemetryLabels>,
}

impl Executor {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            handle,
            labels: Arc::default(),
        }
    }

    /// Returns the runtime that the caller runs in; panics outside one.
    pub(crate) fn current() -> Self {
        Self::new(Handle::current())
    }

    /// Returns the same runtime with the labels of a sandbox; of a type where `sandbox` is empty.
    pub(crate) fn for_sandbox(&self, sandbox_type: &str, sandbox: &str) -> Self {
        let labels = TelemetryLabels {
            sandbox_type: sandbox_type.into(),
            sandbox: sandbox.into(),
            ..TelemetryLabels::default()
        };
        Self {
            handle: self.handle.clone(),
            labels: Arc::new(labels),
        }
    }

    /// Runs the work of one call; it is aborted when the answer is dropped.
    pub(crate) fn spawn_call<T: Send + 'static>(
        &self,
        call: u64,
        host_span: u64,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> AbortOnDrop<Result<T>> {
        let labels = TelemetryLabels {
            call,
            host_span,
            ..TelemetryLabels::clone(&self.labels)
        };
        AbortOnDrop::new(
            self.handle
                .spawn(labelled(Arc::new(labels), Contained::new(work))),
        )
    }

    /// Runs a task that nobody waits for; a panic in it has been logged by the hook.
    pub(crate) fn spawn_task(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let contained = Contained::new(async move {
            task.await;
            Ok(())
        });
        let labelled = labelled(Arc::clone(&self.labels), contained);
        self.handle.spawn(async move {
            let _: Result<()> = labelled.await;
        })
    }

    /// Drops a value of the author's inside the runtime, where a drop that blocks harms nobody.
    pub(crate) fn drop_there<T: Send + 'static>(&self, value: T) {
        let labels = Arc::clone(&self.labels);
        self.handle.spawn_blocking(move || {
            // The hook has logged a panic in here; there is nobody to return it to.
            let _ = catch(|| LABELS.sync_scope(labels, || drop(value)));
        });
    }
}

/// Runs the part of a call that is for one sandbox, where the call itself is for its type.
pub(crate) async fn for_sandbox<F: Future>(sandbox: &str, work: F) -> F::Output {
    let call = current_labels().map(|labels| TelemetryLabels::clone(&labels));
    let labels = TelemetryLabels {
        sandbox: sandbox.into(),
        ..call.unwrap_or_default()
    };
    labelled(Arc::new(labels), work).await
}

fn labelled<F: Future>(
    labels: Arc<TelemetryLabels>,
    work: F,
) -> TaskLocalFuture<Arc<TelemetryLabels>, F> {
    LABELS.scope(labels, work)
}

/// A task that ends with the handle to it.
#[derive(Debug)]
pub(crate) struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    pub(crate) fn new(task: JoinHandle<T>) -> Self {
        Self(task)
    }
}

impl<T> AbortOnDrop<Result<T>> {
    /// Waits for the answer; a runtime that was shut down is an error.
    pub(crate) async fn answer(mut self) -> Result<T> {
        match (&mut self.0).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::closed("the plugin's runtime is shut down")),
        }
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
