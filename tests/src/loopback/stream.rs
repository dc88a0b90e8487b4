//! Byte streams of the other end.

use boxyard_host::Error;
use boxyard_plugin_api::{Chunk, Result, Sink, Source};
use serde_json::json;
use tokio::sync::Mutex;

use super::{
    frame::MAX_BODY,
    remote::{Pending, Remote, Request},
};

/// A source of the other end.
pub(super) struct RemoteSource {
    // Before `remote`: what is under way is dropped before what it reads from is given back.
    state: Mutex<Reading>,
    remote: Remote,
}

/// Keeps reading cancel-safe: a read whose caller went away is not lost but goes to the next.
#[derive(Default)]
struct Reading {
    under_way: Option<Pending>,
    /// What a reader with a smaller `max` left.
    rest: Chunk,
}

impl From<Remote> for RemoteSource {
    fn from(remote: Remote) -> Self {
        Self {
            state: Mutex::default(),
            remote,
        }
    }
}

impl Source for RemoteSource {
    async fn read(&self, max: usize) -> Result<Chunk> {
        let mut state = self.state.lock().await;
        if state.rest.is_empty() {
            let under_way = state.under_way.get_or_insert_with(|| {
                self.remote.request(Request {
                    params: json!(max.min(MAX_BODY)),
                    ..Request::plain("read")
                })
            });
            let answer = under_way.await;
            state.under_way = None;
            state.rest = answer?.body.into();
        }
        Ok(state.rest.split_to(max))
    }
}

/// A sink of the other end.
pub(super) struct RemoteSink(Remote);

impl From<Remote> for RemoteSink {
    fn from(remote: Remote) -> Self {
        Self(remote)
    }
}

impl Sink for RemoteSink {
    async fn write(&self, mut chunk: Chunk) -> Result<()> {
        while !chunk.is_empty() {
            let piece = chunk.split_to(MAX_BODY);
            let request = Request {
                body: piece.into(),
                ..Request::plain("write")
            };
            self.0.request(request).await?;
        }
        Ok::<(), Error>(())
    }

    async fn finish(&self) -> Result<()> {
        self.0.request(Request::plain("finish")).await.map(drop)
    }
}
