//! How host and agent speak: over a socket that the container sees, or over the engine.

use std::{fmt, io, path::Path, pin::Pin, time::Duration};

use bollard::{
    Docker,
    container::{AttachContainerResults, LogOutput},
    errors::Error as EngineError,
    query_parameters::{
        AttachContainerOptionsBuilder, StartContainerOptions, UploadToContainerOptionsBuilder,
        WaitContainerOptions,
    },
};
use boxyard_agent::Program;
use boxyard_plugin_api::prelude::*;
use futures_util::{StreamExt, TryStreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    time::timeout,
};
use tokio_util::io::StreamReader;

use crate::{
    engine::{Doing, failure},
    meeting::Meeting,
};

/// How long the engine may take to see that a container ended.
pub(crate) const ENDED: Duration = Duration::from_secs(15);

/// How long an agent may take to connect once its container was started, and how long a container
/// may take to start before that: a busy engine starts hundreds one after the other.
const CONNECT: Duration = Duration::from_secs(10);

/// How a sandbox is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// A socket in a directory that is mounted into the container.
    Socket,
    /// The engine's attach, for engines that do not share our files.
    Attach,
}

/// A connection to an agent, whatever it goes over.
pub(crate) type Line = Pin<Box<dyn Duplex>>;

pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With its first process, the agent, which had this exit code.
    With(i64),
    /// It is not there any more.
    Gone,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::With(code) => write!(f, "the container ended with exit code {code}"),
            Self::Gone => f.write_str("the container is gone"),
        }
    }
}

/// Why an agent did not come in over its socket.
#[derive(Debug)]
pub(crate) enum Unconnected {
    /// Its container runs, and nobody connects.
    Silent,
    /// Its container ended, or was ended.
    Ended(Ended),
    /// The container could not be started, or nobody knows what became of it.
    Failed(Error),
}

impl Unconnected {
    /// The exit code of an agent that cannot open its connection. One that is killed has another,
    /// and a container that cannot run it is not started in the first place.
    const REFUSED: Ended = Ended::With(1);

    /// Whether it is the socket that does not work, and not the container.
    pub(crate) fn is_of_the_socket(&self) -> bool {
        matches!(self, Self::Silent | Self::Ended(Self::REFUSED))
    }
}

impl From<Error> for Unconnected {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Unconnected> for Error {
    fn from(why: Unconnected) -> Self {
        match why {
            Unconnected::Silent => Self::unavailable(format_args!(
                "the guest agent did not connect within {} s",
                CONNECT.as_secs()
            )),
            Unconnected::Ended(ended) => {
                Self::unavailable(format_args!("the guest agent did not connect: {ended}"))
            }
            Unconnected::Failed(error) => error,
        }
    }
}

/// Starts a container and takes the connection of its agent.
pub(crate) async fn over_socket(
    docker: &Docker,
    container: &str,
    listener: &UnixListener,
) -> Result<Line, Unconnected> {
    let start = async {
        let started = docker.start_container(container, None::<StartContainerOptions>);
        started.await.doing("starting the container")
    };
    // The agent is there before the engine says so.
    let connected = async {
        let (stream, _) = listener.accept().await.map_err(Error::from)?;
        Ok::<_, Error>(stream)
    };
    tokio::pin!(connected);
    let early = tokio::select! {
        started = start => { started?; None }
        stream = &mut connected => Some(stream?),
    };
    if let Some(stream) = early {
        return Ok(Box::pin(stream));
    }
    tokio::select! {
        stream = timeout(CONNECT, connected) => match stream {
            Ok(stream) => Ok(Box::pin(stream?)),
            Err(_) => Err(Unconnected::Silent),
        },
        ended = ended(docker, container) => Err(Unconnected::Ended(ended?)),
    }
}

/// Starts a container and speaks to its agent through the engine.
pub(crate) async fn over_attach(docker: &Docker, container: &str) -> Result<Line> {
    let options = AttachContainerOptionsBuilder::new()
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .stream(true)
        .build();
    let attached = docker.attach_container(container, Some(options));
    let AttachContainerResults { output, input } = attached.await.doing("attaching")?;
    let started = docker.start_container(container, None::<StartContainerOptions>);
    started.await.doing("starting the container")?;
    let output = output
        .map_err(|error| io::Error::other(failure(error)))
        .try_filter_map(|log| async move {
            Ok(match log {
                LogOutput::StdOut { message } | LogOutput::Console { message } => Some(message),
                LogOutput::StdErr { message } => {
                    let said = String::from_utf8_lossy(&message).into_owned();
                    tracing::debug!(said, "the guest agent complains");
                    None
                }
                LogOutput::StdIn { .. } => None,
            })
        });
    Ok(Box::pin(tokio::io::join(
        StreamReader::new(Box::pin(output)),
        input,
    )))
}

/// Waits until a container does not run; says how it ended.
///
/// # Errors
///
/// The engine does not say so: whether the container runs is not known.
pub(crate) async fn ended(docker: &Docker, container: &str) -> Result<Ended> {
    let mut waiting = docker.wait_container(container, None::<WaitContainerOptions>);
    let code = match waiting.next().await {
        Some(Ok(ended)) => ended.status_code,
        Some(Err(EngineError::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) => match failure(error) {
            error if error.code() == ErrorCode::NOT_FOUND => {
                return Ok(Ended::Gone);
            }
            error => return Err(error),
        },
        None => {
            let broken = Error::unavailable("the engine broke off before the container ended");
            return Err(broken.retryable());
        }
    };
    Ok(Ended::With(code))
}

/// Puts the agent into a container that was not started, for engines that cannot mount it: into
/// a volume if there is one at its place, which is the only way into a container whose own files
/// cannot be written.
pub(crate) async fn put_agent(
    docker: &Docker,
    container: &str,
    program: &Program,
    has_volume: bool,
) -> Result<()> {
    let name = Path::new(Meeting::TARGET).join(Meeting::PROGRAM);
    let into = if has_volume { Meeting::TARGET } else { "/" };
    let archive = archive(name.strip_prefix(into).unwrap_or(&name), program.bytes())?;
    let options = UploadToContainerOptionsBuilder::new().path(into).build();
    let put =
        docker.upload_to_container(container, Some(options), bollard::body_full(archive.into()));
    put.await
        .doing("putting the guest agent into the container")
}

/// Makes an archive of one executable.
fn archive(path: &Path, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o755);
    header.set_cksum();
    archive.append_data(&mut header, path, bytes)?;
    Ok(archive.into_inner()?)
}
