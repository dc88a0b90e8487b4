//! A directory of a sandbox for the files of one call.

use std::sync::Arc;

use boxyard_plugin_api::{ByteSource, Error, Isolation, RemovePath, WriteFile};
use tokio::runtime::Handle;

use crate::{lease, sandbox::Sandbox};

/// A directory of a sandbox, removed when it is dropped.
pub(super) struct Scratch {
    sandbox: Arc<Sandbox>,
    path: String,
}

impl Scratch {
    /// Names a directory that is there once something was written to it.
    pub(super) fn new(sandbox: &Arc<Sandbox>) -> Self {
        // A type that does not isolate has its files below its working directory, commands included.
        let directory = match sandbox.sandbox_type().isolation() {
            Isolation::None | Isolation::Process => ".",
            _ => "/tmp/",
        };
        Self {
            sandbox: Arc::clone(sandbox),
            path: format!("{directory}boxyard-{}", lease::new_id()),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Writes a file and returns its path.
    pub(super) async fn write(&self, name: &str, content: String) -> Result<String, Error> {
        let path = format!("{}/{name}", self.path);
        let request = WriteFile::new(&path).make_parents(true);
        let content = ByteSource::from_bytes(content);
        self.sandbox.write_file(&request, content).await?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Without a runtime the process ends, and the sandbox with it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let sandbox = Arc::clone(&self.sandbox);
        let request = RemovePath::new(&self.path).recursive(true);
        runtime.spawn(async move {
            // Where the sandbox is over, its files are too.
            if sandbox.status().takes_calls()
                && let Err(error) = sandbox.remove(&request).await
            {
                tracing::debug!(sandbox = sandbox.id(), "scratch files stay: {error}");
            }
        });
    }
}
