//! A directory of a sandbox for the files of one call.

use std::sync::Arc;

use boxyard_plugin_api::{ByteSource, Error, ErrorCode, Isolation, RemovePath, WriteFile};
use tokio::runtime::Handle;

use crate::{lease, sandbox::Sandbox};

const NOWHERE: &str = "the program can be put neither in /tmp nor in /dev/shm (a docker sandbox has a \
                       place for it with `tmpfs: {\"/tmp\": \"\"}`)";
const NOT_EXECUTED: &str = "the program is in /dev/shm, where nothing may be executed, because /tmp \
                            cannot be written: a docker sandbox has a place for it with \
                            `tmpfs: {\"/tmp\": \"exec\"}`";

/// A directory of a sandbox, removed when it is dropped.
pub(super) struct Scratch {
    sandbox: Arc<Sandbox>,
    path: String,
    place: Place,
}

/// Where such a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A type that does not isolate has its files below its working directory, commands included.
    WorkingDir,
    Tmp,
    /// Where `/tmp` cannot be written. Engines let nothing be executed there.
    SharedMemory,
}

impl Place {
    fn new_path(self) -> String {
        let directory = match self {
            Self::WorkingDir => ".",
            Self::Tmp => "/tmp/",
            Self::SharedMemory => "/dev/shm/",
        };
        format!("{directory}boxyard-{}", lease::new_id())
    }
}

impl Scratch {
    /// Makes a directory with a file in it.
    ///
    /// # Errors
    ///
    /// It cannot be made, and the error says what makes it possible.
    pub(super) async fn with(
        sandbox: &Arc<Sandbox>,
        name: &str,
        content: String,
    ) -> Result<Self, Error> {
        let place = match sandbox.sandbox_type().isolation() {
            Isolation::None | Isolation::Process => Place::WorkingDir,
            _ => Place::Tmp,
        };
        let mut scratch = Self {
            sandbox: Arc::clone(sandbox),
            path: place.new_path(),
            place,
        };
        let refused = |error: &Error| error.code() == ErrorCode::PERMISSION_DENIED;
        match scratch.write(name, content.clone()).await {
            Err(error) if place == Place::Tmp && refused(&error) => {
                scratch.place = Place::SharedMemory;
                scratch.path = scratch.place.new_path();
                let written = scratch.write(name, content).await;
                written.map_err(|_| error.context(NOWHERE))?;
            }
            written => drop(written?),
        }
        Ok(scratch)
    }

    /// Says why what was made here is not executed, where that may be so.
    pub(super) fn why_nothing_runs(&self) -> Option<&'static str> {
        (self.place == Place::SharedMemory).then_some(NOT_EXECUTED)
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Writes one more file.
    pub(super) async fn write(&self, name: &str, content: String) -> Result<(), Error> {
        let path = format!("{}/{name}", self.path);
        let request = WriteFile::new(path).make_parents(true);
        let content = ByteSource::from_bytes(content);
        self.sandbox.write_file(&request, content).await
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
