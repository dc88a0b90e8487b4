//! One sandbox: a container, and the agent in it.

mod agent;
mod description;
mod own_command;
mod parts;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use bollard::query_parameters::InspectContainerOptions;
use boxyard_agent::{Client, protocol::Setup};
use boxyard_plugin_api::{LogRequest, Stats, prelude::*};
use serde_json::Map;
use tokio::{sync::Mutex, time::timeout};

pub(crate) use self::parts::Parts;
use self::{agent::Agent, description::described, own_command::OwnCommand};
use crate::{
    engine::{Dialect, Doing},
    journal::Journal,
    link::{self, ENDED, Line, Transport},
    recipe::{Made, Recipe, Started},
    stats,
};

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
    ) -> Result<&Agent> {
        let agent = Agent::new(&self.parts, client, work, id, transport);
        let taken = self.agent.set(agent);
        taken.map_err(|_| Error::failed_precondition("the sandbox was started before"))?;
        self.agent()
    }

    async fn end_agent(&self, call: &Call) {
        if let Some(agent) = self.agent.get() {
            agent.end(&self.parts, self.own.get(), call).await;
        }
    }
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
            allowed,
        } = started.await?;
        let (client, work) = Client::connect(line, beginning.setup).await?;
        beginning.recipe.answered(transport);
        // Nothing but the agent has run in it yet.
        let mounted = beginning.recipe.check_mounted(&self.parts, &allowed);
        mounted.await?;
        // Without a look at the container: the engine answers once it is through with the start,
        // and the agent is there before that.
        let agent = self.take(client, work, id, transport)?;
        if let Some(argv) = beginning.own_command {
            let (context, client) = (self.parts.context.clone(), Arc::clone(&agent.client));
            let own = OwnCommand::run(context, client, Arc::clone(&self.journal), argv);
            // It is set once, by the one start that there is.
            let _ = self.own.set(own);
        }
        Ok(())
    }

    async fn stop(&self, call: &Call) -> Result<()> {
        // Nobody starts it any more.
        self.beginning.lock().await.take();
        if self.agent.get().is_none() {
            return Ok(());
        }
        let docker = &self.parts.connection.docker;
        self.end_agent(call).await;
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

    async fn cleanup(&self, call: &Call) -> Result<()> {
        self.beginning.lock().await.take();
        self.end_agent(call).await;
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
