//! A line to the machine's engine on which one request can be held up.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

use super::engine;

/// Where the machine's engine is.
const ENGINE: &str = "{{.Endpoints.docker.Host}}";

/// What passes requests on to the engine, and ends with the test.
pub(super) struct Relay {
    directory: TempDir,
    gate: watch::Sender<Gate>,
    /// How many requests are held up.
    held: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

/// Which requests wait, by what is in their first line; none where that is nothing.
type Gate = Option<&'static str>;

impl Relay {
    /// Starts one; `None` where the engine has no socket.
    pub(super) fn start() -> Option<Self> {
        let host = engine(&["context", "inspect", "--format", ENGINE]).unwrap();
        let socket = host.strip_prefix("unix://")?.to_owned();
        // Short: a socket's address is.
        let directory = tempfile::Builder::new()
            .prefix("boxyard-")
            .tempdir()
            .unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let (gate, open) = watch::channel(None);
        let (hold, held) = watch::channel(0);
        let hold = Arc::new(hold);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let engine = UnixStream::connect(&socket).await.unwrap();
                let (gate, hold) = (open.clone(), Arc::clone(&hold));
                lines.spawn(async move {
                    let (from_client, mut to_client) = client.into_split();
                    let (mut from_engine, to_engine) = engine.into_split();
                    tokio::join!(pass(from_client, to_engine, gate, &hold), async {
                        // Either may hang up.
                        let _ = copy(&mut from_engine, &mut to_client).await;
                        let _ = to_client.shutdown().await;
                    });
                });
            }
        });
        Some(Self {
            directory,
            gate,
            held,
            _tasks: tasks,
        })
    }

    pub(super) fn address(&self) -> String {
        format!("unix://{}", self.directory.path().join("s").display())
    }

    /// Holds up the requests whose first line has this in it, from now on.
    ///
    /// One whose client hangs up meanwhile is forgotten.
    pub(super) fn hold(&self, part: &'static str) {
        self.gate.send_replace(Some(part));
    }

    /// Waits until one is held up.
    pub(super) async fn holds(&self) {
        let mut held = self.held.clone();
        held.wait_for(|held| *held > 0).await.unwrap();
    }

    /// Lets everything through.
    pub(super) fn release(&self) {
        self.gate.send_replace(None);
    }
}

/// One that is held up is none any more, however that ends.
struct Leaving<'a>(&'a watch::Sender<usize>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

/// Passes on what a client asks for.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut gate: watch::Receiver<Gate>,
    held: &watch::Sender<usize>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        // A client writes the head of a request by itself, and waits for its answer.
        let line = buffer[..read].split(|byte| *byte == b'\r').next();
        let line = String::from_utf8_lossy(line.unwrap_or_default()).into_owned();
        let waits = |gate: &Gate| gate.is_some_and(|part| line.contains(part));
        if waits(&gate.borrow()) {
            held.send_modify(|held| *held += 1);
            let _leaving = Leaving(held);
            let mut hung_up = [0];
            tokio::select! {
                // The test is over where nobody opens it any more.
                _ = gate.wait_for(|gate| !waits(gate)) => {}
                // Whoever asks says nothing more until he has his answer.
                _ = from.read(&mut hung_up) => return,
            }
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
