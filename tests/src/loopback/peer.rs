//! One end: its table of objects, the requests of either end, and the tasks that move frames.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use boxyard_host::{Error, plugin::Offer};
use boxyard_plugin_api::{CallController, Result};
use futures_util::FutureExt;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf},
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    frame::Frame,
    message::{CallDocument, Message, ObjectId, ROOT, RequestId},
    remote::{Answer, Pending, Remote, Request},
    serve::{Exported, Served},
};

/// One end of a connection. It lives as long as somebody holds an object of the other end.
#[derive(Clone)]
pub(super) struct Peer(Arc<Inner>);

struct Inner {
    runtime: Handle,
    /// Unbounded, because notes must not wait; requests wait for their answers and so bound it.
    outgoing: mpsc::UnboundedSender<Frame>,
    numbers: AtomicU64,
    /// What the other end may use.
    exported: Mutex<HashMap<ObjectId, Exported>>,
    /// Who waits for the other end's answers; `None` once the connection is gone.
    waiting: Mutex<Option<HashMap<RequestId, oneshot::Sender<Result<Answer>>>>>,
    /// What runs here for the other end.
    running: Mutex<HashMap<RequestId, Running>>,
}

struct Running {
    controller: CallController,
    task: AbortHandle,
}

impl Peer {
    /// Makes the near end, which begins with the far end's root object.
    ///
    /// It ends when nobody holds a [`Remote`] any more.
    pub(super) fn connect(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        runtime: &Handle,
    ) -> Remote {
        let (peer, reader) = Self::new(stream, runtime);
        let weak = Arc::downgrade(&peer.0);
        runtime.spawn(read_all(reader, move || Weak::upgrade(&weak).map(Peer)));
        Remote::new(peer, ROOT)
    }

    /// Makes the far end, which ends with the stream.
    pub(super) fn serve(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        root: Offer,
        runtime: &Handle,
    ) {
        let (peer, reader) = Self::new(stream, runtime);
        lock(&peer.0.exported).insert(ROOT, Exported::Offer(Arc::new(Mutex::new(Some(root)))));
        runtime.spawn(read_all(reader, move || Some(peer.clone())));
    }

    fn new<S: AsyncRead + AsyncWrite + Send + 'static>(
        stream: S,
        runtime: &Handle,
    ) -> (Self, impl AsyncRead + Unpin + Send + 'static) {
        let (reader, writer) = tokio::io::split(stream);
        let (outgoing, frames) = mpsc::unbounded_channel();
        runtime.spawn(write_all(writer, frames));
        let peer = Self(Arc::new(Inner {
            runtime: runtime.clone(),
            outgoing,
            numbers: AtomicU64::new(ROOT + 1),
            exported: Mutex::default(),
            waiting: Mutex::new(Some(HashMap::new())),
            running: Mutex::default(),
        }));
        (peer, reader)
    }

    pub(super) fn send(&self, frame: impl Into<Frame>) {
        // The writer is gone with the connection; whoever waits for an answer is told so.
        let _ = self.0.outgoing.send(frame.into());
    }

    fn number(&self) -> u64 {
        self.0.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn export(&self, objects: Vec<Exported>) -> Vec<ObjectId> {
        let mut exported = lock(&self.0.exported);
        let numbered = objects.into_iter().map(|object| (self.number(), object));
        numbered
            .map(|(id, object)| {
                exported.insert(id, object);
                id
            })
            .collect()
    }

    /// Sends a request. Nothing is awaited between what is handed over and the frame that says so.
    pub(super) fn start(
        &self,
        object: ObjectId,
        request: Request,
        call: Option<CallDocument>,
    ) -> Pending {
        let id = self.number();
        let (sender, answer) = oneshot::channel();
        // Without an entry the sender is dropped here, and the answer is that the end is gone.
        if let Some(waiting) = lock(&self.0.waiting).as_mut() {
            waiting.insert(id, sender);
            let message = Message::Request {
                id,
                object,
                method: request.method.into(),
                call,
                params: request.params,
                handed: self.export(request.handing),
            };
            self.send(Frame {
                message,
                body: request.body,
            });
        }
        Pending::new(self.clone(), id, answer)
    }

    /// Waits for an answer no more.
    pub(super) fn forget(&self, id: RequestId) {
        if let Some(waiting) = lock(&self.0.waiting).as_mut() {
            waiting.remove(&id);
        }
    }

    /// Does what a frame says. Quick: what takes time becomes a task.
    fn take(&self, frame: Frame) {
        match frame.message {
            Message::Request {
                id,
                object,
                method,
                call,
                params,
                handed,
            } => {
                let asked = Asked {
                    method,
                    params,
                    handed: self.remotes(handed),
                    body: frame.body,
                };
                self.run(id, object, asked, call.as_ref());
            }
            Message::Answer { id, result, handed } => {
                let handed = self.remotes(handed);
                let waiting = lock(&self.0.waiting)
                    .as_mut()
                    .and_then(|waiting| waiting.remove(&id));
                if let Some(waiting) = waiting {
                    // Where nobody waits any more, what was handed over is given back.
                    let _ = waiting.send(result.map(|value| Answer {
                        value,
                        handed,
                        body: frame.body,
                    }));
                }
            }
            Message::Cancel { id } => {
                if let Some(running) = lock(&self.0.running).get(&id) {
                    running.controller.cancel();
                }
            }
            Message::Abandon { id } => {
                let running = lock(&self.0.running).remove(&id);
                if let Some(running) = running {
                    running.task.abort();
                }
            }
            Message::Note {
                object,
                method,
                params,
            } => {
                let exported = lock(&self.0.exported).get(&object).cloned();
                if let Some(exported) = exported {
                    exported.note(&method, params);
                }
            }
            Message::Release { object } => {
                let released = lock(&self.0.exported).remove(&object);
                drop(released);
            }
        }
    }

    fn remotes(&self, objects: Vec<ObjectId>) -> Vec<Remote> {
        let remote = |object| Remote::new(self.clone(), object);
        objects.into_iter().map(remote).collect()
    }

    /// Runs a request of the other end's.
    fn run(&self, id: RequestId, object: ObjectId, asked: Asked, call: Option<&CallDocument>) {
        let controller = call.map_or_else(|| CallController::new(0), CallDocument::controller);
        let exported = lock(&self.0.exported).get(&object).cloned();
        let (peer, call) = (self.clone(), controller.call());
        let work = async move {
            let served = match exported {
                Some(exported) => {
                    // Author code is contained by its own end; this is for the proxies here.
                    let served = AssertUnwindSafe(exported.serve(asked, call)).catch_unwind();
                    let panicked = |_| Err(Error::internal("the proxy panicked"));
                    served.await.unwrap_or_else(panicked)
                }
                None => Err(Error::closed(format_args!("there is no object {object}"))),
            };
            // Whoever takes it out answers; an abandoned request is taken out already.
            if lock(&peer.0.running).remove(&id).is_some() {
                peer.answer(id, served);
            }
        };
        // Locked until it is in: the task takes itself out.
        let mut running = lock(&self.0.running);
        let task = self.0.runtime.spawn(work).abort_handle();
        running.insert(id, Running { controller, task });
    }

    fn answer(&self, id: RequestId, served: Result<Served>) {
        let frame = match served {
            Ok(served) => Frame {
                message: Message::Answer {
                    id,
                    result: Ok(served.value),
                    handed: self.export(served.handing),
                },
                body: served.body,
            },
            Err(error) => Frame::from(Message::Answer {
                id,
                result: Err(error),
                handed: Vec::new(),
            }),
        };
        self.send(frame);
    }

    /// Ends everything: the other end is gone.
    fn hang_up(&self) {
        let running = std::mem::take(&mut *lock(&self.0.running));
        for running in running.into_values() {
            running.task.abort();
        }
        let waiting = lock(&self.0.waiting).take();
        let exported = std::mem::take(&mut *lock(&self.0.exported));
        drop((waiting, exported));
    }
}

/// A request as it arrived.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) params: Value,
    pub(super) handed: Vec<Remote>,
    pub(super) body: Vec<u8>,
}

/// Takes frames until the stream ends, or until nobody needs this end any more.
async fn read_all(mut reader: impl AsyncRead + Unpin, peer: impl Fn() -> Option<Peer>) {
    loop {
        let frame = Frame::read(&mut reader).await;
        let Some(peer) = peer() else { return };
        match frame {
            Ok(Some(frame)) => peer.take(frame),
            Ok(None) => return peer.hang_up(),
            Err(error) => {
                tracing::warn!("the connection to a plugin broke: {error}");
                return peer.hang_up();
            }
        }
    }
}

/// Writes frames until the last sender is gone.
async fn write_all<S: AsyncWrite>(
    mut writer: WriteHalf<S>,
    mut frames: mpsc::UnboundedReceiver<Frame>,
) {
    while let Some(frame) = frames.recv().await {
        if let Err(error) = frame.write(&mut writer).await {
            tracing::debug!("writing to a plugin failed: {error}");
            return;
        }
    }
    // The reader over there sees an end, or is gone.
    let _ = writer.shutdown().await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
