//! One sandbox: a container, and the agent in it.

mod agent;
mod description;
mod own_command;
mod stage;

use std::sync::{Arc, OnceLock};

use bollard::query_parameters::InspectContainerOptions;
use boxyard_agent::{Client, protocol::Setup};
use boxyard_plugin_api::{LogRequest, Stats, prelude::*};
use serde_json::Map;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

pub(crate) use self::stage::Beginning;
use self::{agent::Agent, description::described, own_command::OwnCommand, stage::Stage};
use crate::{
    engine::{Dialect, Doing},
    link::{Line, Transport},
    log::Log,
    parts::Parts,
    recipe::{Started, Wanted},
    stats,
};

/// One sandbox. Its container is removed with it, unless that is to stay, or waits for a later host.
#[derive(Debug)]
pub(crate) struct DockerSandbox {
    parts: Arc<Parts>,
    /// Held by whoever starts or ends it, for as long as that takes.
    stage: Mutex<Stage>,
    /// Breaks off a start, so that nobody who ends it waits for that for long.
    ending: CancellationToken,
    /// What its commands go through, from its start on: read without a look at the stage.
    running: OnceLock<Running>,
    log: Arc<Log>,
}

/// What is there of a sandbox that was started.
#[derive(Debug)]
struct Running {
    agent: Agent,
    /// What runs beside the commands.
    own: Option<OwnCommand>,
}

impl Drop for DockerSandbox {
    fn drop(&mut self) {
        let removed = matches!(self.stage.get_mut(), Stage::Removed);
        if removed || self.parts.lingers {
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

impl DockerSandbox {
    /// Takes a container that was made and not started.
    pub(crate) fn new(parts: Parts, beginning: Beginning) -> Self {
        Self {
            parts: Arc::new(parts),
            stage: Mutex::new(Stage::Made(Box::new(beginning))),
            ending: CancellationToken::new(),
            running: OnceLock::new(),
            log: Arc::default(),
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
        let parts = Arc::new(parts);
        let (client, work) = Client::reconnect(line, setup).await?;
        let agent = Agent::new(&parts, client, work, id, Transport::Socket);
        Ok(Self {
            parts,
            stage: Mutex::new(Stage::Started),
            ending: CancellationToken::new(),
            running: OnceLock::from(Running { agent, own: None }),
            log: Arc::default(),
        })
    }

    fn agent(&self) -> Result<&Agent> {
        let running = self.running.get();
        let running =
            running.ok_or_else(|| Error::failed_precondition("the sandbox was not started"))?;
        Ok(&running.agent)
    }

    fn client(&self) -> Result<&Client> {
        Ok(&self.agent()?.client)
    }

    /// Starts the container and what runs in it.
    async fn begin(&self, beginning: Beginning, wanted: &Wanted<'_>) -> Result<Running> {
        let Beginning {
            setup,
            made,
            recipe,
            own_command,
        } = beginning;
        let Started {
            id,
            line,
            transport,
            allowed,
        } = recipe.start(&self.parts, made, wanted).await?;
        let greeting = wanted.unless_over(Client::connect(line, setup));
        let (client, work) = greeting.await?;
        recipe.answered(transport);
        // Nothing but the agent has run in it yet.
        recipe.check_mounted(&self.parts, &allowed).await?;
        // Without a look at the container: the engine answers once it is through with the start,
        // and the agent is there before that.
        let agent = Agent::new(&self.parts, client, work, id, transport);
        let own = own_command.map(|argv| {
            let (context, client) = (self.parts.context.clone(), Arc::clone(&agent.client));
            OwnCommand::run(context, client, Arc::clone(&self.log), argv)
        });
        Ok(Running { agent, own })
    }

    /// Ends everything that runs in a sandbox that was started, as far as that can be done.
    async fn halt(&self, call: &Call) {
        match self.running.get() {
            Some(Running { agent, own }) => agent.end(&self.parts, own.as_ref(), call).await,
            // Its start failed or was broken off, and what the engine does of it runs.
            None => {
                self.parts.kill().await;
            }
        }
    }
}

impl Sandbox for DockerSandbox {
    async fn start(&self, call: &Call) -> Result<()> {
        let mut stage = self.stage.lock().await;
        let beginning = stage.start()?;
        let wanted = Wanted {
            call,
            ending: &self.ending,
        };
        let running = self.begin(*beginning, &wanted).await?;
        let set = self.running.set(running);
        set.map_err(|_| Error::internal("the sandbox was started twice"))
    }

    async fn stop(&self, call: &Call) -> Result<()> {
        self.ending.cancel();
        let mut stage = self.stage.lock().await;
        if matches!(*stage, Stage::Started) {
            self.halt(call).await;
            self.parts.ended().await?;
        }
        stage.stop();
        Ok(())
    }

    async fn cleanup(&self, call: &Call) -> Result<()> {
        self.ending.cancel();
        let mut stage = self.stage.lock().await;
        if matches!(*stage, Stage::Started) {
            self.halt(call).await;
        }
        self.parts.remove().await?;
        stage.remove();
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
        let id = self.running.get().map(|running| running.agent.id.clone());
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
        if let Some(Running { agent, .. }) = self.running.get() {
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
        self.log.copy(&request, &to, call).await
    }
}
