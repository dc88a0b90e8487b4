//! The sandbox type: makes containers, finds those of earlier hosts again, and removes orphans.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use boxyard_agent::protocol::Setup;
use boxyard_plugin_api::prelude::*;
use tokio::time::timeout;

use crate::{
    config::Config,
    engine::{Connection, Dialect, Doing, Engine, Environment, failure},
    hex,
    image::{ImageFacts, Images, Progress},
    labels::{self, Labels},
    link::{self, Line},
    meeting::Meetings,
    parts::Parts,
    policy,
    recipe::{Maker, Recipe},
    removal,
    sandbox::{Beginning, DockerSandbox},
    settings::Settings,
    watch::Watch,
};

/// How long the agent of a container that runs may take to find a new host.
const RECONNECT: Duration = Duration::from_secs(10);

/// Sandboxes that are containers.
#[derive(Debug)]
pub(crate) struct Docker {
    engine: Arc<Engine>,
    images: Images,
    settings: Arc<Settings>,
    meetings: Meetings,
    maker: Arc<Maker>,
    watch: Arc<Watch>,
}

/// What a later host needs to find a sandbox again.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    container: String,
    meeting: String,
    /// What its agent shows when it connects again.
    secret: String,
    timeout_ms: Option<u64>,
    stop_timeout_ms: u64,
    remove: bool,
    lingers: bool,
}

impl Saved {
    const VERSION: u32 = 1;
}

impl Backend for Docker {
    const TYPE: &'static str = "docker";
    const ISOLATION: Isolation = Isolation::Container;
    const DESCRIPTION: &'static str = "Runs commands in a container of a Docker engine.";
    const CAPABILITIES: &'static [Capability] = &[
        Capability::COMMANDS,
        Capability::TERMINAL,
        Capability::USERS,
        Capability::FILES,
        Capability::ARCHIVES,
        Capability::STATS,
        Capability::LOGS,
        Capability::RECOVERY,
        Capability::SWEEP,
    ];
    type Config = Config;
    type Sandbox = DockerSandbox;

    fn open(plugin: &PluginContext) -> Result<Self> {
        let settings = Settings::of(plugin)?;
        let environment = Environment::of_process();
        let config_dir = environment.config_dir.clone();
        let engine = Arc::new(Engine::connect(settings.host.as_deref(), environment));
        Self::new(engine, config_dir, settings, plugin.data_dir())
    }

    async fn probe(&self, call: &Call) -> Result<Health> {
        let probe = async { Ok(self.engine.probe().await) };
        call.unless_cancelled(probe).await
    }

    async fn create(
        &self,
        config: Config,
        context: SandboxContext,
        call: &Call,
    ) -> Result<DockerSandbox> {
        config.validate()?;
        let connection = call.unless_cancelled(self.engine.connection()).await?;
        let Connection {
            endpoint, facts, ..
        } = &*connection;
        // Before anything is pulled for it. It is checked again when its container is made.
        policy::check(&self.settings, &config, endpoint, facts)?;
        let image = self.image(&config, &context);
        let image = call.unless_cancelled(image).await?;
        let identity = context.identity();
        let parts = Parts {
            container: format!("boxyard-{}", identity.id),
            meeting: self.meetings.of(&identity.lease, &identity.id)?,
            timeout: config.timeout()?,
            stop_timeout: config.stop_timeout()?,
            remove: config.remove_on_exit,
            lingers: identity.linger_ms > 0,
            connection: Arc::clone(&connection),
            watch: Arc::clone(&self.watch),
            context,
        };
        let setup = setup(&config, &image, &parts)?;
        save(&parts, &setup).await?;
        if call.is_cancelled() {
            return Err(cancelled());
        }
        let own_command = config.own_command(&image.entrypoint, &image.cmd);
        let recipe = Recipe {
            maker: Arc::clone(&self.maker),
            settings: Arc::clone(&self.settings),
            config,
            image,
        };
        let begun = Begun(Some(parts));
        // To its end: an engine that loses a caller may go on making what he asked for.
        let made = recipe.make(begun.parts()?).await;
        let made = match made {
            Ok(_) if call.is_cancelled() => Err(cancelled()),
            made => made,
        };
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                begun.taken()?.undo().await;
                return Err(error);
            }
        };
        let beginning = Beginning {
            setup,
            made,
            recipe,
            own_command,
        };
        Ok(DockerSandbox::new(begun.taken()?, beginning))
    }

    async fn recover(
        &self,
        state: State,
        context: SandboxContext,
        call: &Call,
    ) -> Result<Recovered<DockerSandbox>> {
        if state.version != Saved::VERSION {
            return Err(Error::failed_precondition(format_args!(
                "state document version {}: expected {}",
                state.version,
                Saved::VERSION
            )));
        }
        let saved: Saved = state.data()?;
        let connection = call.unless_cancelled(self.engine.connection()).await?;
        let parts = Parts {
            meeting: self.meetings.known(&saved.meeting)?,
            container: saved.container,
            timeout: saved.timeout_ms.map(Duration::from_millis),
            stop_timeout: Duration::from_millis(saved.stop_timeout_ms),
            remove: saved.remove,
            lingers: saved.lingers,
            connection,
            watch: Arc::clone(&self.watch),
            context,
        };
        let setup = Setup {
            secret: Some(saved.secret),
            linger_ms: linger_ms(&parts),
            ..Setup::default()
        };
        match reconnected(&parts).await? {
            Some((id, line)) => {
                let sandbox = DockerSandbox::recovered(parts, id, line, setup).await?;
                Ok(Recovered::Running(sandbox))
            }
            None => {
                parts.remove().await?;
                Ok(Recovered::Gone)
            }
        }
    }

    async fn sweep(&self, request: SweepRequest, call: &Call) -> Result<Swept> {
        let connection = call.unless_cancelled(self.engine.connection()).await?;
        let mut swept = Swept::default();
        let filters = HashMap::from([("label", vec![labels::HOST])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let found = connection.docker.list_containers(Some(options)).await;
        for found in found.understood().doing("listing containers")? {
            let labels = found.labels.as_ref().and_then(Labels::read);
            let (Some(labels), Some(id)) = (labels, found.id) else {
                continue;
            };
            if labels.kept || !request.is_orphan(&labels.lease, &labels.sandbox) {
                continue;
            }
            if labels.age() < request.grace() || call.is_cancelled() {
                swept.kept.push(labels.sandbox);
                continue;
            }
            match removal::remove(&connection, &id).await {
                Ok(()) => swept.removed.push(labels.sandbox),
                Err(error) => {
                    tracing::warn!(sandbox = labels.sandbox, %error, "an orphan stays");
                    swept.kept.push(labels.sandbox);
                }
            }
        }
        // Of those whose containers are gone, or never were.
        for found in self.meetings.list()? {
            let is_orphan = request.is_orphan(&found.lease, &found.sandbox);
            if !is_orphan || swept.kept.contains(&found.sandbox) {
                continue;
            }
            let was_removed = swept.removed.contains(&found.sandbox);
            if !was_removed && found.age < request.grace() {
                swept.kept.push(found.sandbox);
                continue;
            }
            found.meeting.remove().await?;
            if !was_removed {
                swept.removed.push(found.sandbox);
            }
        }
        Ok(swept)
    }
}

impl Docker {
    pub(crate) fn new(
        engine: Arc<Engine>,
        config_dir: Option<PathBuf>,
        settings: Settings,
        data_dir: &Path,
    ) -> Result<Self> {
        Ok(Self {
            images: Images::new(Arc::clone(&engine), config_dir),
            engine,
            meetings: Meetings::new(data_dir)?,
            maker: Arc::new(Maker::new(data_dir)),
            watch: Arc::default(),
            settings: Arc::new(settings),
        })
    }

    /// Makes sure that the engine has the image, and tells the host how far that is.
    async fn image(&self, config: &Config, context: &SandboxContext) -> Result<ImageFacts> {
        let progress = |progress: &Progress| {
            let mut data = json!(progress);
            if let Value::Object(data) = &mut data {
                data.insert("image".into(), config.image.clone().into());
            }
            context.event("image-pull", data);
        };
        let (image, platform) = (&config.image, config.platform.as_ref());
        let there = self
            .images
            .ensure(image, platform, config.pull_policy, progress);
        there.await
    }
}

/// What commands start from.
fn setup(config: &Config, image: &ImageFacts, parts: &Parts) -> Result<Setup> {
    let mut env = image.env.clone();
    env.entry("PATH".into())
        .or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    env.extend(config.env_vars.clone());
    let kept = config.capabilities.of_commands().into_iter();
    let user = config.user.as_ref().unwrap_or(&image.user);
    Ok(Setup {
        env,
        working_dir: config.working_dir.clone(),
        user: (!user.is_empty()).then(|| user.clone()),
        oom_score_adj: Some(500),
        capabilities: (!config.privileged).then(|| {
            kept.map(|capability| capability.name().to_owned())
                .collect()
        }),
        no_new_privileges: !config.privileged,
        secret: Some(hex::random::<32>()?),
        linger_ms: linger_ms(parts),
        ..Setup::default()
    })
}

/// Returns how long the agent waits for the next host when it loses this one.
fn linger_ms(parts: &Parts) -> u64 {
    let asked = parts.context.identity().linger_ms;
    if parts.lingers { asked } else { 0 }
}

/// Saves what finds the sandbox again, before there is anything to find.
async fn save(parts: &Parts, setup: &Setup) -> Result<()> {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let saved = Saved {
        container: parts.container.clone(),
        meeting: parts.meeting.name(),
        secret: setup.secret.clone().unwrap_or_default(),
        timeout_ms: parts.timeout.map(milliseconds),
        stop_timeout_ms: milliseconds(parts.stop_timeout),
        remove: parts.remove,
        lingers: parts.lingers,
    };
    let state = State::new(Saved::VERSION, &saved)?;
    parts.context.save_state(state).await
}

/// Takes the connection of an agent that lost its host, and its container's id; `None` where there
/// is none any more.
async fn reconnected(parts: &Parts) -> Result<Option<(String, Line)>> {
    let docker = &parts.connection.docker;
    let found = docker
        .inspect_container(&parts.container, None::<InspectContainerOptions>)
        .await;
    let found = match found.understood().map_err(failure) {
        Err(error) if error.code() == ErrorCode::NOT_FOUND => return Ok(None),
        found => found?,
    };
    let runs = found.state.and_then(|state| state.running).unwrap_or(false);
    if !runs || !parts.lingers || !parts.meeting.is_there() {
        return Ok(None);
    }
    let listener = parts.meeting.listen()?;
    tokio::select! {
        accepted = timeout(RECONNECT, listener.accept()) => match accepted {
            Ok(accepted) => {
                let line: Line = Box::pin(accepted?.0);
                Ok(Some((found.id.unwrap_or_default(), line)))
            }
            Err(_) => Ok(None),
        },
        ended = link::ended(docker, &parts.container) => ended.map(|_| None),
    }
}

/// What was begun, and is undone unless it is taken.
struct Begun(Option<Parts>);

impl Begun {
    fn parts(&self) -> Result<&Parts> {
        self.0
            .as_ref()
            .ok_or_else(|| Error::internal("taken already"))
    }

    fn taken(mut self) -> Result<Parts> {
        self.0
            .take()
            .ok_or_else(|| Error::internal("taken already"))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(parts) = self.0.take() {
            let context = parts.context.clone();
            context.spawn(async move { parts.undo().await });
        }
    }
}

fn cancelled() -> Error {
    Error::cancelled("the caller asked to stop")
}
