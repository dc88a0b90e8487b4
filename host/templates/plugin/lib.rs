//! A sandbox type for Boxyard: each sandbox is a directory, and its commands are processes of
//! this machine that run in it.
//!
//! What a sandbox is made of, and what its user may set, is yours to change. Running commands,
//! terminals, files and killing is left to the guest agent, a program that the plugin carries.

use std::{
    fs,
    num::NonZeroU32,
    path::PathBuf,
    process,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use boxyard_agent::{Client, Program, protocol::Setup, remove_tree};
use boxyard_plugin_api::prelude::*;
use rustix::fs::CWD;
use tokio::task::spawn_blocking;

/// How long the agent may take to kill what it runs, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sandbox type. The host makes one when it loads the plugin.
struct DirectoryBackend {
    /// The agent's program.
    agent: PathBuf,
    /// Where sandboxes have their directories.
    directories: PathBuf,
}

/// What a user may set for one sandbox. `boxyard types --json` shows these comments.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How many seconds a command may run that does not say so itself; for ever without it.
    timeout: Option<NonZeroU32>,
}

impl Backend for DirectoryBackend {
    const TYPE: &'static str = "{{type}}";
    const DESCRIPTION: &'static str =
        "Runs commands in a directory of their own, with no isolation.";
    // How well commands are kept away from the machine. Hosts rely on it: be honest.
    const ISOLATION: Isolation = Isolation::None;
    // What is declared must work. What is not must be refused, with `Error::unsupported`.
    const CAPABILITIES: &'static [Capability] = &[
        Capability::COMMANDS,
        Capability::TERMINAL,
        Capability::USERS,
        Capability::FILES,
        Capability::ARCHIVES,
        Capability::STATS,
    ];
    type Config = Config;
    type Sandbox = DirectorySandbox;

    fn open(plugin: &PluginContext) -> Result<Self> {
        // The one directory where a plugin may write when it is loaded.
        let data_dir = std::path::absolute(plugin.data_dir())?;
        let directories = data_dir.join("sandboxes");
        fs::create_dir_all(&directories)?;
        let agent = data_dir.join("boxyard-agent");
        Program::for_this_machine(&data_dir)?.write_to(&agent)?;
        Ok(Self { agent, directories })
    }

    async fn create(
        &self,
        config: Config,
        context: SandboxContext,
        _call: &Call,
    ) -> Result<DirectorySandbox> {
        let directory = self.directories.join(context.id());
        fs::create_dir(&directory)?;
        Ok(DirectorySandbox {
            config,
            context,
            directory,
            program: self.agent.clone(),
            agent: OnceLock::new(),
            stopping: Arc::default(),
        })
    }
}

/// One sandbox. Any number of calls may run at once.
struct DirectorySandbox {
    config: Config,
    /// The line to the host: who the sandbox is, tasks of its own, news of its end.
    context: SandboxContext,
    directory: PathBuf,
    program: PathBuf,
    /// There from `start` on.
    agent: OnceLock<Client>,
    stopping: Arc<AtomicBool>,
}

impl DirectorySandbox {
    fn agent(&self) -> Result<&Client> {
        let agent = self.agent.get();
        agent.ok_or_else(|| Error::failed_precondition("the sandbox was not started"))
    }
}

impl Sandbox for DirectorySandbox {
    async fn start(&self, _call: &Call) -> Result<()> {
        // To isolate, start a command here that makes a boundary and becomes the agent in it.
        let mut command = process::Command::new(&self.program);
        command.env_clear().current_dir("/");
        let (mut child, line) = boxyard_agent::spawn(command).await?;
        let directory = self.directory.to_string_lossy().into_owned();
        let setup = Setup {
            env: [
                ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
                ("HOME".into(), directory.clone()),
            ]
            .into(),
            working_dir: directory.clone(),
            // No path of a file that somebody asks for leads out of it.
            root: Some(directory),
            ..Setup::default()
        };
        let (agent, work) = Client::connect(line, setup).await?;
        let (context, stopping) = (self.context.clone(), self.stopping.clone());
        self.context.spawn(async move {
            work.await;
            // It ends now, and has to be waited for; how it ended says nothing more.
            let _ = spawn_blocking(move || child.wait()).await;
            if !stopping.load(Relaxed) {
                context.exited("its agent is gone, and with it everything that ran");
            }
        });
        self.agent
            .set(agent)
            .map_err(|_| Error::failed_precondition("the sandbox was started before"))
    }

    async fn stop(&self, _call: &Call) -> Result<()> {
        self.stopping.store(true, Relaxed);
        match self.agent.get() {
            Some(agent) => agent.shut_down(PATIENCE).await,
            None => Ok(()),
        }
    }

    async fn cleanup(&self, call: &Call) -> Result<()> {
        self.stop(call).await?;
        let directory = self.directory.clone();
        let removed = spawn_blocking(move || remove_tree(CWD, &directory)).await;
        Ok(removed.map_err(Error::internal)??)
    }

    async fn execute_command(
        &self,
        mut command: Command,
        io: CommandIo,
        call: &Call,
    ) -> Result<CommandExit> {
        let seconds = self.config.timeout.map(|seconds| seconds.get().into());
        command.timeout = command.timeout.or(seconds.map(Duration::from_secs));
        self.agent()?.execute_command(&command, io, call).await
    }

    async fn stats(&self, call: &Call) -> Result<Stats> {
        self.agent()?.stats(call).await
    }

    // Files and archives, which the agent does as well.
    boxyard_agent::delegate_files!(self => self.agent());
}

register_plugin! { sandboxes: [DirectoryBackend] }
