//! A line to a registry that can be held up.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// How much of an answer passes while the line is held up: headers and manifests, no layer.
const PASSES: usize = 16 * 1024;

/// A line to a registry: what is large waits until it is let through.
pub(super) struct Proxy {
    pub(super) address: String,
    gate: watch::Sender<bool>,
    waiting: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn to(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (gate, open) = watch::channel(false);
        let (held, waiting) = watch::channel(0);
        let registry = registry.to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((engine, _)) = listener.accept().await {
                let registry = TcpStream::connect(&registry).await.unwrap();
                lines.spawn(pass(engine, registry, open.clone(), held.clone()));
            }
        });
        Self {
            address,
            gate,
            waiting,
            _tasks: tasks,
        }
    }

    /// Lets everything through.
    pub(super) fn open(&self) {
        self.gate.send_replace(true);
    }

    /// Waits until this many answers are held up.
    pub(super) async fn holds(&self, count: usize) {
        let mut waiting = self.waiting.clone();
        waiting.wait_for(|held| *held == count).await.unwrap();
    }
}

async fn pass(
    engine: TcpStream,
    registry: TcpStream,
    mut open: watch::Receiver<bool>,
    held: watch::Sender<usize>,
) {
    let (mut from_engine, mut to_engine) = engine.into_split();
    let (mut from_registry, mut to_registry) = registry.into_split();
    let (ended, mut end) = watch::channel(());
    let requests = async {
        let _ = tokio::io::copy(&mut from_engine, &mut to_registry).await;
        drop(ended);
    };
    let answers = async {
        let mut buffer = vec![0; 4096];
        let mut passed = 0;
        loop {
            let read = from_registry.read(&mut buffer).await.unwrap_or(0);
            passed += read;
            if passed > PASSES && !*open.borrow() {
                held.send_modify(|held| *held += 1);
                tokio::select! {
                    _ = open.wait_for(|open| *open) => {}
                    // The engine hung up.
                    _ = end.changed() => {}
                }
                held.send_modify(|held| *held -= 1);
            }
            if read == 0 || to_engine.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(requests, answers);
}
