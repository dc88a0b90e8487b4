//! Which request a frame is for, and what may still come for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use boxyard_plugin_api::{
    Command, Error, ErrorCode, GetArchive, MakeDirectory, PutArchive, ReadFile, RemovePath, Result,
    WriteFile,
};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::protocol::{FromAgent, FromHost, MAX_OPEN, MessageError, Stream, WINDOW};

/// The documents that open a channel, as the agent reads them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Documents<'a> {
    ExecuteCommand(&'a Command),
    Processes {},
    ReadFile(&'a ReadFile),
    WriteFile(&'a WriteFile),
    Stat { path: &'a str },
    List { path: &'a str },
    Remove(&'a RemovePath),
    MakeDirectory(&'a MakeDirectory),
    PutArchive(&'a PutArchive),
    GetArchive(&'a GetArchive),
}

/// An output of a request, as its pieces arrive; `None` is its end. Without that, it was the
/// connection that ended.
pub(super) type Pieces = mpsc::UnboundedReceiver<Option<Vec<u8>>>;

/// What a request gets from the agent.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) channel: u32,
    pub(super) reply: oneshot::Receiver<Vec<u8>>,
    pub(super) stdout: Pieces,
    pub(super) stderr: Pieces,
    /// How many bytes of input the agent takes; closed when it takes no more.
    pub(super) input: Arc<Semaphore>,
}

/// One output on its way to the request.
#[derive(Debug)]
struct Output {
    /// `None` once it ended.
    pieces: Option<mpsc::UnboundedSender<Option<Vec<u8>>>>,
    /// How many bytes the agent may still send.
    window: u32,
}

#[derive(Debug)]
struct Entry {
    /// `None` once it came.
    reply: Option<oneshot::Sender<Vec<u8>>>,
    outputs: [Output; 2],
    input: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u32, Entry>,
    last: u32,
}

/// Every open request of a connection.
#[derive(Debug)]
pub(super) struct Routes {
    table: Mutex<Table>,
    /// Bounded by the windows of the requests that are open, and by their number.
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    /// Why the connection is over.
    closed: watch::Sender<Option<Error>>,
}

impl Routes {
    /// Makes the table, and the end where what is to be sent comes out.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Vec<u8>>) {
        let (outgoing, to_send) = mpsc::unbounded_channel();
        let routes = Self {
            table: Mutex::default(),
            outgoing,
            closed: watch::Sender::new(None),
        };
        (routes, to_send)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a channel.
    ///
    /// # Errors
    ///
    /// The agent is gone, too many requests are open, or the document is too long.
    pub(super) fn open(&self, document: &Documents<'_>) -> Result<Route> {
        let request = serde_json::to_vec(document)?;
        let (reply_sender, reply) = oneshot::channel();
        let (stdout_sender, stdout) = mpsc::unbounded_channel();
        let (stderr_sender, stderr) = mpsc::unbounded_channel();
        let input = Arc::new(Semaphore::new(WINDOW as usize));
        let mut table = self.table();
        if let Some(reason) = self.closed.borrow().clone() {
            return Err(reason);
        }
        if table.entries.len() >= MAX_OPEN {
            return Err(Error::resource_exhausted(format_args!(
                "{MAX_OPEN} requests are open in this sandbox already"
            ))
            .retryable());
        }
        loop {
            table.last = table.last.wrapping_add(1);
            if table.last != 0 && !table.entries.contains_key(&table.last) {
                break;
            }
        }
        let channel = table.last;
        let mut bytes = Vec::new();
        let message = FromHost::Open {
            channel,
            request: &request,
        };
        message.encode(&mut bytes).map_err(too_long)?;
        let output = |pieces| Output {
            pieces: Some(pieces),
            window: WINDOW,
        };
        let entry = Entry {
            reply: Some(reply_sender),
            outputs: [output(stdout_sender), output(stderr_sender)],
            input: input.clone(),
        };
        table.entries.insert(channel, entry);
        drop(table);
        // A connection that ends now ends the request with it.
        let _ = self.outgoing.send(bytes);
        Ok(Route {
            channel,
            reply,
            stdout,
            stderr,
            input,
        })
    }

    /// Sends a message; one for an agent that is gone is of no use to anybody.
    ///
    /// For messages that are never longer than a frame: all but [`Routes::open`]'s.
    pub(super) fn tell(&self, message: &FromHost<'_>) {
        let mut bytes = Vec::new();
        if message.encode(&mut bytes).is_ok() {
            let _ = self.outgoing.send(bytes);
        }
    }

    /// Returns whether anything of a request is still to come.
    pub(super) fn is_open(&self, channel: u32) -> bool {
        self.table().entries.contains_key(&channel)
    }

    /// Lets the agent send so many bytes more of an output.
    pub(super) fn grant(&self, channel: u32, stream: Stream, bytes: u32) {
        if let Some(entry) = self.table().entries.get_mut(&channel) {
            let output = entry.output(stream);
            output.window = output.window.saturating_add(bytes);
        }
        self.tell(&FromHost::Credit {
            channel,
            stream,
            bytes,
        });
    }

    /// Takes a message from the agent, which is not to be trusted.
    ///
    /// # Errors
    ///
    /// What no agent sends; the connection is over.
    pub(super) fn take(&self, message: FromAgent<'_>) -> Result<()> {
        let mut table = self.table();
        let (channel, is_over) = match message {
            FromAgent::Hello(_) => return Err(hostile("it said twice who it is")),
            FromAgent::Goodbye(goodbye) => {
                return Err(match goodbye.error {
                    None => Error::failed_precondition("the sandbox is stopped"),
                    Some(error) => Error::internal(format_args!("the agent refused: {error}")),
                });
            }
            FromAgent::Data {
                channel,
                stream,
                bytes,
            } => {
                let entry = table.entry(channel)?;
                let output = entry.output(stream);
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                output.window = output
                    .window
                    .checked_sub(length)
                    .ok_or_else(|| hostile("it sent more output than it may"))?;
                match &output.pieces {
                    // Who does not want it dropped the other end.
                    Some(pieces) => drop(pieces.send(Some(bytes.to_vec()))),
                    None => return Err(hostile("it sent output after its end")),
                }
                (channel, false)
            }
            FromAgent::End { channel, stream } => {
                let entry = table.entry(channel)?;
                match entry.output(stream).pieces.take() {
                    Some(pieces) => drop(pieces.send(None)),
                    None => return Err(hostile("it ended an output twice")),
                }
                (channel, entry.is_over())
            }
            FromAgent::Credit { channel, bytes } => {
                let entry = table.entry(channel)?;
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                if entry.input.available_permits().saturating_add(bytes) > WINDOW as usize {
                    return Err(hostile("it asked for more input than its window"));
                }
                entry.input.add_permits(bytes);
                (channel, false)
            }
            FromAgent::Close { channel } => {
                table.entry(channel)?.input.close();
                (channel, false)
            }
            FromAgent::Reply { channel, document } => {
                let entry = table.entry(channel)?;
                match entry.reply.take() {
                    // Who does not want it dropped the other end.
                    Some(reply) => drop(reply.send(document.to_vec())),
                    None => return Err(hostile("it replied twice")),
                }
                entry.input.close();
                (channel, entry.is_over())
            }
        };
        if is_over {
            table.entries.remove(&channel);
        }
        Ok(())
    }

    /// Ends every request: the connection is over.
    pub(super) fn close(&self, reason: Error) {
        let mut table = self.table();
        self.closed.send_if_modified(|closed| {
            let is_first = closed.is_none();
            closed.get_or_insert(reason);
            is_first
        });
        for (_, entry) in table.entries.drain() {
            entry.input.close();
        }
    }

    /// Returns why the connection is over, if it is.
    pub(super) fn reason(&self) -> Option<Error> {
        self.closed.borrow().clone()
    }

    pub(super) async fn closed(&self) -> Error {
        let mut closed = self.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(gone),
            Err(_) => gone(),
        }
    }
}

impl Table {
    fn entry(&mut self, channel: u32) -> Result<&mut Entry> {
        self.entries
            .get_mut(&channel)
            .ok_or_else(|| hostile("it spoke about a request that is not open"))
    }
}

impl Entry {
    fn output(&mut self, stream: Stream) -> &mut Output {
        let [stdout, stderr] = &mut self.outputs;
        match stream {
            Stream::Stderr => stderr,
            // The protocol has no message from the agent about an input's bytes.
            Stream::Stdin | Stream::Stdout => stdout,
        }
    }

    fn is_over(&self) -> bool {
        self.reply.is_none() && self.outputs.iter().all(|output| output.pieces.is_none())
    }
}

/// What is answered where no better reason is known.
pub(super) fn gone() -> Error {
    Error::unavailable("the agent is gone")
}

fn hostile(what: &str) -> Error {
    Error::new(
        ErrorCode::ABORTED,
        format_args!("the agent broke the protocol: {what}"),
    )
}

fn too_long(error: MessageError) -> Error {
    Error::invalid_argument(format_args!(
        "the request is longer than an agent takes: {error}"
    ))
}
