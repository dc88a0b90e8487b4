//! The host's end of the connection: the methods of a sandbox, done by its agent.

mod command;
mod connection;
mod files;
mod request;
mod routes;

use std::{future::Future, sync::Arc, time::Duration};

use boxyard_plugin_api::{Call, Error, ErrorCode, Result, Stats};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use self::{
    request::Request,
    routes::{Documents, Routes},
};
use crate::protocol::{self, Decoder, FromAgent, FromHost, Hello, Setup};

/// How long an agent may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A sandbox's agent. Any number of calls may run at once.
///
/// Dropping it ends the connection, and with that everything that the agent runs, unless the
/// agent was told to linger.
///
/// Its methods do what the methods of
/// [`Sandbox`](boxyard_plugin_api::Sandbox) of the same name are to do.
#[derive(Debug)]
pub struct Client {
    routes: Arc<Routes>,
    pid: u32,
}

/// A process of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id, where the agent is.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// The name of its program.
    pub name: String,
    /// Processor time that it used, in microseconds.
    pub cpu_us: u64,
    /// Memory that it has in use, in bytes.
    pub memory_bytes: u64,
    /// Whether the command that started it has ended.
    pub left_behind: bool,
}

impl Client {
    /// Greets an agent that connects for the first time.
    ///
    /// Returns the client, and the work of the connection, which ends with it: spawn that, on
    /// [`SandboxContext::spawn`](boxyard_plugin_api::SandboxContext::spawn) for example.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::UNAVAILABLE`] where the other end is no agent of this version.
    pub async fn connect<S>(
        stream: S,
        setup: Setup,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<S>)>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::greet(stream, setup, None).await
    }

    /// Greets an agent that lingered and connects again: it must show the secret of the
    /// setup that it was given.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`], and [`ErrorCode::UNAUTHENTICATED`] for another secret.
    pub async fn reconnect<S>(
        stream: S,
        setup: Setup,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<S>)>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let expected = setup.secret.clone().unwrap_or_default();
        Self::greet(stream, setup, Some(expected)).await
    }

    async fn greet<S>(
        mut stream: S,
        mut setup: Setup,
        secret: Option<String>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<S>)>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        setup.protocol = protocol::VERSION;
        let mut decoder = Decoder::new();
        let greeting = async {
            let hello = read_hello(&mut stream, &mut decoder).await?;
            if hello.protocol != protocol::VERSION {
                return Err(Error::unavailable(format_args!(
                    "the agent speaks protocol {}, expected {}",
                    hello.protocol,
                    protocol::VERSION
                )));
            }
            if hello.secret != secret {
                return Err(Error::new(
                    ErrorCode::UNAUTHENTICATED,
                    "what connected is not the agent that was expected",
                ));
            }
            let mut bytes = Vec::new();
            FromHost::Setup(setup)
                .encode(&mut bytes)
                .map_err(Error::invalid_argument)?;
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            Ok(hello)
        };
        let hello = timeout(HANDSHAKE, greeting).await.map_err(|_| {
            Error::unavailable(format_args!(
                "the agent said nothing for {} seconds",
                HANDSHAKE.as_secs()
            ))
        })??;
        let (routes, outgoing) = Routes::new();
        let routes = Arc::new(routes);
        let work = connection::run(stream, decoder, routes.clone(), outgoing);
        let pid = hello.pid;
        Ok((Self { routes, pid }, work))
    }

    /// Returns the agent's process id, where it runs.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills everything in the sandbox and ends the agent; returns when it is gone.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::DEADLINE_EXCEEDED`] where that takes longer than `patience`.
    pub async fn shut_down(&self, patience: Duration) -> Result<()> {
        self.routes.tell(&FromHost::Shutdown);
        timeout(patience, self.closed()).await.map_err(|_| {
            Error::deadline_exceeded(format_args!(
                "the agent did not end within {} seconds",
                patience.as_secs()
            ))
        })?;
        Ok(())
    }

    /// Waits until the connection is over; returns why.
    pub async fn closed(&self) -> Error {
        self.routes.closed().await
    }

    /// Lists the sandbox's processes.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::UNAVAILABLE`] where the agent is gone.
    pub async fn processes(&self, call: &Call) -> Result<Vec<Process>> {
        let request = Request::open(&self.routes, &Documents::Processes {})?;
        request.answer(call).await
    }

    /// Does [`Sandbox::stats`](boxyard_plugin_api::Sandbox::stats), by the processes that live.
    ///
    /// # Errors
    ///
    /// As [`Client::processes`].
    pub async fn stats(&self, call: &Call) -> Result<Stats> {
        let processes = self.processes(call).await?;
        let left_behind = processes.iter().filter(|process| process.left_behind);
        // A count of processes is far below what a float holds exactly.
        let left_behind = u32::try_from(left_behind.count()).unwrap_or(u32::MAX);
        // The numbers are the agent's, which may say anything.
        let sum = |number: fn(&Process) -> u64| {
            let numbers = processes.iter().map(number);
            Some(numbers.fold(0, u64::saturating_add))
        };
        let mut stats = Stats::default();
        stats.cpu_us = sum(|process| process.cpu_us);
        stats.memory_bytes = sum(|process| process.memory_bytes);
        stats.processes = Some(processes.len() as u64);
        stats.other = [("processes_left_behind".into(), left_behind.into())].into();
        Ok(stats)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.routes.close(routes::gone());
    }
}

async fn read_hello(stream: &mut (impl AsyncRead + Unpin), decoder: &mut Decoder) -> Result<Hello> {
    loop {
        if let Some(frame) = decoder.next_frame().map_err(Error::unavailable)? {
            return match FromAgent::parse(frame).map_err(Error::unavailable)? {
                FromAgent::Hello(hello) => Ok(hello),
                _ => Err(Error::unavailable("the agent did not say who it is first")),
            };
        }
        let buffer = decoder.buffer();
        buffer.reserve(connection::FIRST_READ);
        if stream.read_buf(buffer).await? == 0 {
            return Err(Error::unavailable(
                "the agent ended before it said who it is",
            ));
        }
    }
}
