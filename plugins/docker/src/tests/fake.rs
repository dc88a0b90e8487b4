//! An engine that answers what a test tells it to, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use boxyard_plugin_api::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

use crate::engine::{Engine, Environment};

pub(super) type Answer = (u16, String);

/// An engine that ends with the test.
pub(super) struct Fake {
    pub(super) engine: Arc<Engine>,
    asked: Arc<Mutex<Vec<String>>>,
    _directory: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Fake {
    /// Starts one. It does not answer where there is no answer.
    pub(super) fn start(answer: fn(&str) -> Option<Answer>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = asked.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                lines.spawn(serve(stream, answer, log.clone()));
            }
        });
        let host = format!("unix://{}", socket.display());
        Self {
            engine: Arc::new(Engine::connect(Some(&host), Environment::default())),
            asked,
            _directory: directory,
            _tasks: tasks,
        }
    }

    /// Returns the paths that were asked for.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: UnixStream,
    answer: fn(&str) -> Option<Answer>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut request = vec![0; 16 * 1024];
    let read = stream.read(&mut request).await.unwrap();
    let text = String::from_utf8_lossy(&request[..read]);
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap().push(path.clone());
    match answer(&path) {
        Some((status, body)) => {
            let length = body.len();
            let text = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            stream.write_all(text.as_bytes()).await.unwrap();
        }
        None => {
            // Until whoever asked goes away.
            let _ = stream.read_to_end(&mut request).await;
            asked.lock().unwrap().push(format!("{path} given up"));
        }
    }
}

/// Answers as an engine of an API version.
pub(super) fn engine_of(path: &str, newest: &str) -> Option<Answer> {
    let body = if path.ends_with("/version") {
        json!({
            "Version": "99.0", "ApiVersion": newest, "MinAPIVersion": "1.24",
            "Os": "linux", "Arch": "amd64",
        })
    } else {
        json!({"NCPU": 2, "MemTotal": 1024, "DefaultRuntime": "runc"})
    };
    Some((200, body.to_string()))
}
