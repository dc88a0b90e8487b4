//! One request: its streams pumped, its answer read, and its end made sure of.

use std::{sync::Arc, time::Duration};

use boxyard_plugin_api::{ByteSink, ByteSource, Call, Error, ErrorCode, Result};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

use super::routes::{Documents, Pieces, Routes, gone};
use crate::protocol::{FromHost, MAX_DATA, Reply, Stream, WINDOW};

/// How much of an output is taken before the agent is told to send more.
const GRANT: u32 = WINDOW / 4;
/// How long the agent may take to kill what was cancelled, and say so.
const KILL_GRACE: Duration = Duration::from_secs(15);

/// A request that is open.
#[derive(Debug)]
pub(super) struct Request {
    line: Line,
    reply: oneshot::Receiver<Vec<u8>>,
    stdout: Pieces,
    stderr: Pieces,
    input: Arc<Semaphore>,
}

/// What is said to the agent about a request. Dropped while anything is still to come, the
/// request is killed.
#[derive(Debug)]
pub(super) struct Line {
    routes: Arc<Routes>,
    channel: u32,
}

impl Line {
    /// Kills it, or drops what it still has to say.
    pub(super) fn cancel(&self) {
        self.routes.tell(&FromHost::Cancel {
            channel: self.channel,
        });
    }

    pub(super) fn signal(&self, number: i32) {
        self.routes.tell(&FromHost::Signal {
            channel: self.channel,
            number,
        });
    }

    pub(super) fn resize(&self, columns: u16, rows: u16) {
        self.routes.tell(&FromHost::Resize {
            channel: self.channel,
            columns,
            rows,
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.routes.is_open(self.channel) {
            self.cancel();
        }
    }
}

/// What a failure is to the agent.
#[derive(Debug, Deserialize)]
struct Failure {
    errno: Option<i32>,
    code: Option<u32>,
    message: String,
    #[serde(default)]
    retryable: bool,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure {
            errno,
            code,
            message,
            retryable,
        } = failure;
        let error = match (code, errno) {
            (Some(code), _) => Self::new(ErrorCode(code), message),
            (None, Some(errno)) => {
                let error = Self::from(std::io::Error::from_raw_os_error(errno));
                if message.is_empty() {
                    error
                } else {
                    error.context(message)
                }
            }
            (None, None) => Self::new(ErrorCode::UNKNOWN, message),
        };
        if retryable { error.retryable() } else { error }
    }
}

impl Request {
    pub(super) fn open(routes: &Arc<Routes>, document: &Documents<'_>) -> Result<Self> {
        let route = routes.open(document)?;
        Ok(Self {
            line: Line {
                routes: routes.clone(),
                channel: route.channel,
            },
            reply: route.reply,
            stdout: route.stdout,
            stderr: route.stderr,
            input: route.input,
        })
    }

    /// Takes it apart, so that its streams can be worked at side by side.
    pub(super) fn split(self) -> (Line, Answer, [Output; 2], Input) {
        let (routes, channel) = (self.line.routes.clone(), self.line.channel);
        let output = |pieces, stream| Output {
            routes: routes.clone(),
            channel,
            stream,
            pieces,
        };
        let outputs = [
            output(self.stdout, Stream::Stdout),
            output(self.stderr, Stream::Stderr),
        ];
        let answer = Answer {
            routes: routes.clone(),
            reply: Some(self.reply),
        };
        let input = Input {
            routes,
            channel,
            room: self.input,
        };
        (self.line, answer, outputs, input)
    }

    /// Waits for the answer of a request without streams.
    pub(super) async fn answer<T: DeserializeOwned>(self, call: &Call) -> Result<T> {
        self.transfer(None, None, call).await
    }

    /// Waits for the answer of a request with an input and an output; does not finish `to`.
    pub(super) async fn transfer<T: DeserializeOwned>(
        self,
        from: Option<ByteSource>,
        to: Option<&ByteSink>,
        call: &Call,
    ) -> Result<T> {
        let (line, mut answer, [output, _], input) = self.split();
        let feeding = async {
            if let Some(from) = from {
                // A source that breaks off must not look like one that ended.
                if let Err(error) = input.feed(&from).await {
                    return error;
                }
            }
            std::future::pending().await
        };
        let passing = async {
            match to {
                Some(to) => output.pass(to).await,
                None => Ok(()),
            }
        };
        let work = async {
            // Both, for the answer may say why there was no output.
            let (passed, answered) = tokio::join!(passing, answer.wait());
            let answered = answered?;
            passed?;
            Ok(answered)
        };
        let result = tokio::select! {
            biased;
            () = call.cancelled() => Err(Error::cancelled("the caller asked to stop")),
            error = feeding => Err(error),
            result = work => return result,
        };
        line.cancel();
        // What it began is undone before the caller hears of it.
        answer.killed().await;
        result
    }
}

/// The answer of a request.
#[derive(Debug)]
pub(super) struct Answer {
    routes: Arc<Routes>,
    /// `None` once it came.
    reply: Option<oneshot::Receiver<Vec<u8>>>,
}

impl Answer {
    /// Waits for it. Cancel-safe; answers once.
    pub(super) async fn wait<T: DeserializeOwned>(&mut self) -> Result<T> {
        let Some(reply) = &mut self.reply else {
            return Err(Error::internal("the agent's answer was taken already"));
        };
        let document = reply.await;
        self.reply = None;
        let Ok(document) = document else {
            return Err(self.routes.reason().unwrap_or_else(gone));
        };
        match serde_json::from_slice::<Reply<T, Failure>>(&document) {
            Ok(Reply::Ok(value)) => Ok(value),
            Ok(Reply::Error(failure)) => Err(failure.into()),
            Err(error) => Err(Error::internal(format_args!(
                "the agent's answer is malformed: {error}"
            ))),
        }
    }

    /// Waits where it did not come yet, no longer than for the agent to kill it.
    pub(super) async fn killed(&mut self) {
        // The caller gave up: how it ended interests nobody.
        let _ = timeout(KILL_GRACE, self.wait::<serde::de::IgnoredAny>()).await;
    }
}

/// An output of a request.
#[derive(Debug)]
pub(super) struct Output {
    routes: Arc<Routes>,
    channel: u32,
    stream: Stream,
    pieces: Pieces,
}

impl Output {
    /// Passes it on up to its end; does not finish `to`.
    ///
    /// # Errors
    ///
    /// Nobody reads any more, or the agent is gone.
    pub(super) async fn pass(mut self, to: &ByteSink) -> Result<()> {
        let mut taken = 0;
        while let Some(piece) = self.pieces.recv().await {
            let Some(piece) = piece else {
                return Ok(());
            };
            taken += u32::try_from(piece.len()).unwrap_or(u32::MAX);
            if let Err(error) = to.write(piece).await {
                // Whoever writes it learns that nobody reads.
                self.routes.tell(&FromHost::Close {
                    channel: self.channel,
                    stream: self.stream,
                });
                return Err(error);
            }
            if taken >= GRANT {
                self.routes.grant(self.channel, self.stream, taken);
                taken = 0;
            }
        }
        Err(self.routes.reason().unwrap_or_else(gone))
    }
}

/// The input of a request.
#[derive(Debug)]
pub(super) struct Input {
    routes: Arc<Routes>,
    channel: u32,
    room: Arc<Semaphore>,
}

impl Input {
    /// Sends what `from` has, and its end. That the request reads no more is no error.
    ///
    /// # Errors
    ///
    /// `from` broke off.
    pub(super) async fn feed(&self, from: &ByteSource) -> Result<()> {
        while let Some(bytes) = from.read(MAX_DATA).await? {
            for piece in bytes.chunks(MAX_DATA) {
                let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                match self.room.acquire_many(length).await {
                    Ok(room) => room.forget(),
                    Err(_) => return Ok(()),
                }
                self.routes.tell(&FromHost::Data {
                    channel: self.channel,
                    bytes: piece,
                });
            }
        }
        self.end();
        Ok(())
    }

    pub(super) fn end(&self) {
        self.routes.tell(&FromHost::End {
            channel: self.channel,
        });
    }
}

#[cfg(test)]
mod tests {
    use boxyard_plugin_api::{CallController, Sink};
    use serde::de::IgnoredAny;

    use super::*;
    use crate::{client::routes::Documents, protocol::FromAgent};

    /// Says when it is asked to take something, and never does.
    struct Stuck(Arc<tokio::sync::Notify>);

    impl Sink for Stuck {
        async fn write(&self, _chunk: boxyard_plugin_api::Chunk) -> Result<()> {
            self.0.notify_one();
            std::future::pending().await
        }

        async fn finish(&self) -> Result<()> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_request_that_was_answered_can_still_be_given_up() {
        let (routes, _outgoing) = Routes::new();
        let routes = Arc::new(routes);
        let document = Documents::List { path: "/" };
        let request = Request::open(&routes, &document).unwrap();
        let channel = request.line.channel;
        for message in [
            FromAgent::Data {
                channel,
                stream: Stream::Stdout,
                bytes: b"x",
            },
            FromAgent::Reply {
                channel,
                document: b"{\"ok\":null}",
            },
        ] {
            routes.take(message).unwrap();
        }
        let asked = Arc::<tokio::sync::Notify>::default();
        let sink = ByteSink::new(Stuck(asked.clone()));
        let controller = CallController::new(0);
        let call = controller.call();
        let giving_up = async {
            asked.notified().await;
            controller.cancel();
        };
        let transfer = request.transfer::<IgnoredAny>(None, Some(&sink), &call);
        let (result, ()) = tokio::join!(transfer, giving_up);
        assert_eq!(result.unwrap_err().code(), ErrorCode::CANCELLED);
    }
}
