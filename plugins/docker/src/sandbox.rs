//! One sandbox: a container, and the agent in it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bollard::{
    models::ContainerInspectResponse,
    query_parameters::{
        InspectContainerOptions, KillContainerOptions, RemoveContainerOptionsBuilder,
    },
};
use boxyard_agent::{Client, protocol::Setup};
use boxyard_plugin_api::{CallController, Control, Controls, LogRequest, Stats, pipe, prelude::*};
use futures_util::FutureExt;
use serde_json::Map;
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};

use crate::{
    engine::{Connection, Dialect, Doing, failure, is_overtaken},
    journal::Journal,
    link::{self, Line, Transport},
    meeting::Meeting,
    recipe::{Made, Recipe, Started},
    stats,
    watch::{Told, Watch},
};

/// How long the agent may take to kill everything and end.
const SHUT_DOWN: Duration = Duration::from_secs(2);
/// How long the engine may take to see that a container ended.
const ENDED: Duration = Duration::from_secs(15);

/// How long the engine may take to say what became of a container, for a sandbox is known to be
/// an error only then.
const LOOK: Duration = Duration::from_secs(3);

/// How long an engine that went away is left alone before it is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a sandbox is made of, whoever made it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) context: SandboxContext,
    pub(crate) connection: Arc<Connection>,
    pub(crate) watch: Arc<Watch>,
    /// The container's name, which is known before there is one.
    pub(crate) container: String,
    pub(crate) meeting: Meeting,
    /// How long a command may run that does not say so.
    pub(crate) timeout: Option<Duration>,
    /// How long the own command has to end by itself when the sandbox stops.
    pub(crate) stop_timeout: Duration,
    /// Whether the container goes with the sandbox.
    pub(crate) remove: bool,
    /// Whether the agent waits for a later host when this one is gone.
    pub(crate) lingers: bool,
}

/// One sandbox. Its container is removed with it, however it goes.
#[derive(Debug)]
pub(crate) struct DockerSandbox {
    parts: Arc<Parts>,
    /// What is needed to start it; nothing for one that was recovered.
    beginning: Mutex<Option<Beginning>>,
    agent: OnceLock<Agent>,
    /// What runs beside the commands.
    own: OnceLock<OwnCommand>,
    journal: Arc<Journal>,
    removed: AtomicBool,
}

/// A command of the sandbox's own.
#[derive(Debug)]
struct OwnCommand {
    controls: ByteSink,
    ended: watch::Receiver<bool>,
}

impl Drop for DockerSandbox {
    fn drop(&mut self) {
        if self.removed.load(Ordering::Relaxed) || self.parts.lingers {
            return;
        }
        let parts = Arc::clone(&self.parts);
        self.parts.context.spawn(async move {
            if let Err(error) = parts.remove().await {
                tracing::warn!(%error, "a sandbox that was dropped is left to the sweep");
            }
        });
    }
}

/// What a sandbox that was not started knows.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) setup: Setup,
    pub(crate) made: Made,
    /// For another try.
    pub(crate) recipe: Recipe,
    /// What runs beside the commands.
    pub(crate) own_command: Option<Vec<String>>,
}

/// An agent that is connected, or was.
#[derive(Debug)]
struct Agent {
    client: Arc<Client>,
    ending: Arc<AtomicBool>,
    /// Whether it did as it was told and ended, or was killed.
    ended: AtomicBool,
    /// Why it is gone, once that is known.
    cause: watch::Receiver<Option<String>>,
    transport: Transport,
    /// What the engine calls its container.
    id: String,
    /// What keeps us told of what others do to the container.
    _told: Arc<Told>,
}

impl Agent {
    /// Puts why the agent is gone in front of what a request says that failed with it.
    async fn explain(&self, error: Error) -> Error {
        // It may have failed by itself, and an agent that ends says so before it is gone.
        if timeout(SHUT_DOWN, self.client.closed()).await.is_err() {
            return error;
        }
        let mut cause = self.cause.clone();
        // Nobody looks for one where the end was asked for.
        let known = cause.wait_for(Option::is_some).await;
        match known.ok().and_then(|cause| cause.clone()) {
            Some(cause) => error.context(cause),
            None => error,
        }
    }
}

impl DockerSandbox {
    /// Takes a container that was made and not started.
    pub(crate) fn new(parts: Parts, beginning: Beginning) -> Self {
        Self {
            parts: Arc::new(parts),
            beginning: Mutex::new(Some(beginning)),
            agent: OnceLock::new(),
            own: OnceLock::new(),
            journal: Arc::default(),
            removed: AtomicBool::new(false),
        }
    }

    /// Takes a container that runs, and the connection of its agent.
    ///
    /// # Errors
    ///
    /// What connected is not its agent.
    pub(crate) async fn recovered(
        parts: Parts,
        id: String,
        line: Line,
        setup: Setup,
    ) -> Result<Self> {
        let sandbox = Self {
            parts: Arc::new(parts),
            beginning: Mutex::default(),
            agent: OnceLock::new(),
            own: OnceLock::new(),
            journal: Arc::default(),
            removed: AtomicBool::new(false),
        };
        let (client, work) = Client::reconnect(line, setup).await?;
        sandbox.take(client, work, id, Transport::Socket)?;
        Ok(sandbox)
    }

    fn agent(&self) -> Result<&Agent> {
        let agent = self.agent.get();
        agent.ok_or_else(|| Error::failed_precondition("the sandbox was not started"))
    }

    fn client(&self) -> Result<&Client> {
        Ok(&self.agent()?.client)
    }

    fn take(
        &self,
        client: Client,
        work: impl Future<Output = ()> + Send + 'static,
        id: String,
        transport: Transport,
    ) -> Result<()> {
        let ending = Arc::new(AtomicBool::new(false));
        let (parts, asked) = (Arc::clone(&self.parts), Arc::clone(&ending));
        let (known, cause) = watch::channel(None);
        self.parts.context.spawn(async move {
            work.await;
            if !asked.load(Ordering::Relaxed) {
                let cause = parts.cause().await;
                parts.context.exited(cause.clone());
                known.send_replace(Some(cause));
            }
        });
        let Parts {
            context,
            connection,
            watch,
            ..
        } = &*self.parts;
        context.set_metadata("container_id", id.clone());
        let agent = Agent {
            client: Arc::new(client),
            ending,
            ended: AtomicBool::new(false),
            cause,
            transport,
            _told: watch.tell(&id, context.clone(), connection),
            id,
        };
        if self.parts.lingers && transport == Transport::Attach {
            // Its connection cannot be opened again.
            context.set_metadata("lingers", false);
        }
        let taken = self.agent.set(agent);
        taken.map_err(|_| Error::failed_precondition("the sandbox was started before"))
    }

    /// Has the agent kill everything and end, and the engine where it does not.
    async fn end_agent(&self) {
        let Some(agent) = self.agent.get() else {
            return;
        };
        agent.ending.store(true, Ordering::Relaxed);
        if agent.ended.load(Ordering::Relaxed) {
            return;
        }
        // An agent that was spoken to through an engine that went away may be there and hear
        // nothing.
        let lost = agent.client.closed().now_or_never();
        let error = match lost {
            Some(lost) => lost,
            None => {
                self.end_own().await;
                match agent.client.shut_down(SHUT_DOWN).await {
                    Ok(()) => return agent.ended.store(true, Ordering::Relaxed),
                    Err(error) => error,
                }
            }
        };
        tracing::debug!(%error, "the guest agent does not end, and is killed");
        let docker = &self.parts.connection.docker;
        let killed = docker
            .kill_container(&self.parts.container, None::<KillContainerOptions>)
            .await;
        match killed.map_err(failure) {
            Ok(()) => agent.ended.store(true, Ordering::Relaxed),
            // One that does not run needs no signal.
            Err(error) => tracing::debug!(%error, "killing the container"),
        }
    }

    /// Runs what the configuration wants beside the commands.
    fn run_own(&self, argv: Vec<String>) -> Result<()> {
        let client = Arc::clone(&self.agent()?.client);
        let (context, journal) = (self.parts.context.clone(), Arc::clone(&self.journal));
        let (controls, received) = pipe();
        let (ending, ended) = watch::channel(false);
        self.parts.context.spawn(async move {
            let command = Command::argv(argv);
            let io = CommandIo {
                stdin: ByteSource::empty(),
                stdout: ByteSink::new(journal.writer()),
                stderr: ByteSink::new(journal.writer()),
                controls: Controls::from_source(received),
            };
            let call = CallController::new(0).call();
            let ended = client.execute_command(&command, io, &call).await;
            journal.end();
            let data = match ended {
                Ok(exit) => json!({ "exit_code": exit.exit_code, "signal": exit.signal }),
                Err(error) => json!({ "error": error.message() }),
            };
            context.event("own-command-ended", data);
            ending.send_replace(true);
        });
        // It is set once, by the one start that there is.
        let _ = self.own.set(OwnCommand { controls, ended });
        Ok(())
    }

    /// Asks the sandbox's own command to end, and gives it time.
    async fn end_own(&self) {
        const TERM: i32 = 15;
        let patience = self.parts.stop_timeout;
        let Some(own) = self.own.get().filter(|_| !patience.is_zero()) else {
            return;
        };
        // One that ended hears nothing.
        let _ = own.controls.write(Control::Signal(TERM).to_line()).await;
        let mut ended = own.ended.clone();
        // What does not end in time is killed with the rest.
        let _ = timeout(patience, ended.wait_for(|ended| *ended)).await;
    }
}

impl Parts {
    /// Says why the agent is gone.
    async fn cause(&self) -> String {
        let docker = &self.connection.docker;
        // The engine may take a moment to see it.
        let _ = timeout(
            Duration::from_millis(800),
            link::ended(docker, &self.container),
        )
        .await;
        let found = docker.inspect_container(&self.container, None::<InspectContainerOptions>);
        let state = match timeout(LOOK, found).await.map(Dialect::understood) {
            Err(_) => {
                return format!(
                    "the container is lost: the engine did not answer within {} s",
                    LOOK.as_secs()
                );
            }
            Ok(Ok(found)) => found.state.unwrap_or_default(),
            Ok(Err(error)) => {
                let error = failure(error);
                return match error.code() {
                    ErrorCode::NOT_FOUND => "the container was removed".into(),
                    _ => format!("the container is lost: {error}"),
                };
            }
        };
        let code = state.exit_code.unwrap_or_default();
        if state.running == Some(true) {
            return "the guest agent broke its connection, and the container still runs".into();
        }
        self.context.set_metadata("exit_code", code);
        match (
            state.oom_killed,
            state.error.filter(|error| !error.is_empty()),
        ) {
            (Some(true), _) => {
                format!("the container was ended for want of memory, with exit code {code}")
            }
            (_, Some(error)) => format!("the container ended with exit code {code}: {error}"),
            _ => format!("the container ended with exit code {code}"),
        }
    }

    /// Removes the container with its anonymous volumes; that it is gone is no error.
    pub(crate) async fn remove(&self) -> Result<()> {
        if self.remove {
            remove(&self.connection, &self.container).await?;
        }
        self.meeting.remove().await
    }

    /// Removes what was begun of a sandbox that there will not be; once it is back, where the
    /// engine is away.
    pub(crate) async fn undo(self) {
        let Err(error) = self.try_undo().await else {
            return;
        };
        tracing::warn!(%error, "what was begun of a sandbox is still there");
        let context = self.context.clone();
        context.spawn(async move {
            let mut left = Err(error);
            while let Err(error) = left {
                if !error.is_retryable() {
                    tracing::warn!(%error, "what was begun of a sandbox is left to the sweep");
                    return;
                }
                sleep(AGAIN).await;
                left = self.try_undo().await;
            }
        });
    }

    async fn try_undo(&self) -> Result<()> {
        let removed = remove(&self.connection, &self.container).await;
        removed.and(self.meeting.remove().await)
    }
}

/// Removes a container, whatever it does; that it is gone is no error.
pub(crate) async fn remove(connection: &Connection, container: &str) -> Result<()> {
    match kill_and_remove(connection, container).await {
        // It ended by itself when it was about to be killed, so that nothing is left to kill.
        Err(error) if is_overtaken(&error) => {
            // However that goes, the second try says it.
            let _ = timeout(ENDED, link::ended(&connection.docker, container)).await;
            kill_and_remove(connection, container).await
        }
        removed => removed,
    }
}

async fn kill_and_remove(connection: &Connection, container: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    let removed = connection
        .docker
        .remove_container(container, Some(options))
        .await;
    match removed.map_err(failure) {
        Err(error) if error.code() == ErrorCode::NOT_FOUND => Ok(()),
        // Somebody else removes it.
        Err(error) if error.message().contains("already in progress") => {
            gone(connection, container).await
        }
        Err(error) => Err(error.context(format_args!("removing the container {container}"))),
        Ok(()) => Ok(()),
    }
}

async fn gone(connection: &Connection, container: &str) -> Result<()> {
    let options = bollard::query_parameters::WaitContainerOptionsBuilder::new()
        .condition("removed")
        .build();
    let mut waiting = connection.docker.wait_container(container, Some(options));
    // However it answers, it is gone then.
    let waited = timeout(ENDED, futures_util::StreamExt::next(&mut waiting)).await;
    waited.map(drop).map_err(|_| {
        Error::unavailable(format_args!(
            "the container {container} is still being removed"
        ))
        .retryable()
    })
}

impl Sandbox for DockerSandbox {
    async fn start(&self, _call: &Call) -> Result<()> {
        let beginning = self.beginning.lock().await.take();
        let Some(beginning) = beginning else {
            return Err(Error::failed_precondition("the sandbox was started before"));
        };
        let started = beginning.recipe.start(&self.parts, beginning.made);
        let Started {
            id,
            line,
            transport,
        } = started.await?;
        let (client, work) = Client::connect(line, beginning.setup).await?;
        // Without a look at the container: the engine answers once it is through with the start,
        // and the agent is there before that.
        self.take(client, work, id, transport)?;
        if let Some(argv) = beginning.own_command {
            self.run_own(argv)?;
        }
        Ok(())
    }

    async fn stop(&self, _call: &Call) -> Result<()> {
        // Nobody starts it any more.
        self.beginning.lock().await.take();
        if self.agent.get().is_none() {
            return Ok(());
        }
        let docker = &self.parts.connection.docker;
        self.end_agent().await;
        match timeout(ENDED, link::ended(docker, &self.parts.container)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.context(format_args!(
                "waiting for the end of the container {}",
                self.parts.container
            ))),
            Err(_) => Err(Error::unavailable(format_args!(
                "the container {} still runs {} s after its agent ended",
                self.parts.container,
                ENDED.as_secs()
            ))
            .retryable()),
        }
    }

    async fn cleanup(&self, _call: &Call) -> Result<()> {
        self.beginning.lock().await.take();
        self.end_agent().await;
        self.parts.remove().await?;
        self.removed.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn execute_command(
        &self,
        mut command: Command,
        io: CommandIo,
        call: &Call,
    ) -> Result<CommandExit> {
        command.timeout = command.timeout.or(self.parts.timeout);
        let agent = self.agent()?;
        let ended = agent.client.execute_command(&command, io, call).await;
        match ended {
            Err(error) if error.code() == ErrorCode::UNAVAILABLE => Err(agent.explain(error).await),
            ended => ended,
        }
    }

    boxyard_agent::delegate_files!(self => self.client());

    async fn execution_context(&self, _call: &Call) -> Result<Option<ExecutionContext>> {
        let id = self.agent.get().map(|agent| agent.id.clone());
        Ok(id.map(|id| ExecutionContext::Container {
            engine: "docker".into(),
            id,
        }))
    }

    async fn info(&self, _call: &Call) -> Result<Map<String, Value>> {
        let mut info = Map::from_iter([
            ("container".to_owned(), self.parts.container.clone().into()),
            ("engine".into(), json!(self.parts.connection.facts)),
        ]);
        if let Some(agent) = self.agent.get() {
            info.insert("transport".into(), json!(agent.transport));
            let docker = &self.parts.connection.docker;
            let inspected = docker.inspect_container(&agent.id, None::<InspectContainerOptions>);
            match inspected
                .await
                .understood()
                .doing("looking at the container")
            {
                // It is gone, and so is what it was.
                Err(error) if error.code() == ErrorCode::NOT_FOUND => {}
                inspected => info.extend(described(&inspected?)),
            }
        }
        Ok(info)
    }

    async fn stats(&self, _call: &Call) -> Result<Stats> {
        self.agent()?;
        stats::measure(&self.parts.connection.docker, &self.parts.container).await
    }

    async fn logs(&self, request: LogRequest, to: ByteSink, call: &Call) -> Result<()> {
        self.journal.copy(&request, &to, call).await
    }
}

/// What is worth knowing of a container that runs.
fn described(container: &ContainerInspectResponse) -> Map<String, Value> {
    let state = container.state.as_ref();
    let networks = container
        .network_settings
        .as_ref()
        .and_then(|it| it.networks.as_ref());
    let addresses: BTreeMap<_, _> = networks
        .into_iter()
        .flatten()
        .filter_map(|(name, network)| Some((name.clone(), network.ip_address.clone()?)))
        .filter(|(_, address)| !address.is_empty())
        .collect();
    let host = container.host_config.as_ref();
    let config = container.config.as_ref();
    Map::from_iter([
        ("container_id".into(), json!(container.id)),
        (
            "image".into(),
            json!(config.and_then(|config| config.image.clone())),
        ),
        ("image_id".into(), json!(container.image)),
        ("pid".into(), json!(state.and_then(|state| state.pid))),
        ("addresses".into(), json!(addresses)),
        (
            "ports".into(),
            json!(
                container
                    .network_settings
                    .as_ref()
                    .and_then(|it| it.ports.clone())
            ),
        ),
        (
            "limits".into(),
            json!({
                "memory_bytes": host.and_then(|host| host.memory),
                "cpu_quota_us": host.and_then(|host| host.cpu_quota),
                "cpu_period_us": host.and_then(|host| host.cpu_period),
                "pids": host.and_then(|host| host.pids_limit),
            }),
        ),
    ])
}
