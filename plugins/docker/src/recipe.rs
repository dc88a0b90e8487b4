//! Making a container, in whatever way it can be spoken to.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bollard::query_parameters::CreateContainerOptionsBuilder;
use boxyard_agent::Program;
use boxyard_plugin_api::prelude::*;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Mode},
    container::{self, Additions, Specification},
    engine::{Connection, Doing, is_unseen_mount},
    image::ImageFacts,
    labels::Labels,
    link::{self, Line, Transport},
    meeting::Meeting,
    parts::Parts,
    policy::{self, Allowed},
    removal,
    settings::Settings,
};

/// What all containers of a plugin are made with.
#[derive(Debug)]
pub(crate) struct Maker {
    data_dir: PathBuf,
    /// The file that is the agent's program, once it was written.
    program: Mutex<Option<PathBuf>>,
    /// Whether no container is tried over a socket any more, for one could not be reached over its
    /// own and was attached to.
    attaches: AtomicBool,
}

/// What one container is made from.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) maker: Arc<Maker>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) config: Config,
    pub(crate) image: ImageFacts,
}

/// A container that was made and not started.
#[derive(Debug)]
pub(crate) struct Made {
    /// What the engine calls it.
    id: String,
    door: Door,
    /// What the engine was told to mount.
    allowed: Allowed,
}

/// A container that runs, with its agent.
pub(crate) struct Started {
    pub(crate) id: String,
    pub(crate) line: Line,
    pub(crate) transport: Transport,
    /// What the engine was told to mount.
    pub(crate) allowed: Allowed,
}

/// Whether a sandbox that starts is still wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) call: &'a Call,
    /// Cancelled when the sandbox is to end.
    pub(crate) ending: &'a CancellationToken,
}

impl Wanted<'_> {
    /// Does some of the work, and drops it when the sandbox is not wanted any more.
    ///
    /// # Errors
    ///
    /// What the work answers, or [`ErrorCode::CANCELLED`].
    pub(crate) async fn unless_over<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let work = self.call.unless_cancelled(work);
        let done = self.ending.run_until_cancelled(work).await;
        done.unwrap_or_else(|| Err(Error::cancelled("the sandbox was ended while it started")))
    }
}

/// How the agent of a container will come in.
#[derive(Debug)]
enum Door {
    /// It connects to this.
    Socket(UnixListener),
    /// It is attached to.
    Attach,
}

impl Door {
    fn transport(&self) -> Transport {
        match self {
            Self::Socket(_) => Transport::Socket,
            Self::Attach => Transport::Attach,
        }
    }
}

impl Maker {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.into(),
            program: Mutex::default(),
            attaches: AtomicBool::new(false),
        }
    }

    /// Returns the agent's program as a file, for containers of an architecture.
    fn file(&self, arch: &str, program: &Program) -> Result<PathBuf> {
        let path = self.data_dir.join(format!("agent-{arch}"));
        let mut written = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        if written.as_ref() != Some(&path) {
            program.write_to(&path)?;
            *written = Some(path.clone());
        }
        Ok(path)
    }
}

impl Recipe {
    /// Makes the container; over the engine where it cannot be made with a socket.
    pub(crate) async fn make(&self, parts: &Parts) -> Result<Made> {
        let wanted = self.config.transport;
        let attaches = self.maker.attaches.load(Ordering::Relaxed);
        let first = match wanted {
            Some(transport) => transport,
            // Its files are not ours.
            None if attaches || !parts.connection.endpoint.is_local() => Transport::Attach,
            None => Transport::Socket,
        };
        let made = self.make_with(first, parts).await;
        match made {
            Err(error)
                if first == Transport::Socket && wanted.is_none() && is_unseen_mount(&error) =>
            {
                self.make_again(parts, &error).await
            }
            made => made,
        }
    }

    /// Starts the container and takes the connection of its agent. Where that does not come over
    /// a socket, the container is made again, and attached to.
    ///
    /// # Errors
    ///
    /// Also that it is not wanted any more, whereupon the engine may still be at it. What was begun
    /// to be made by then was made to its end.
    pub(crate) async fn start(
        &self,
        parts: &Parts,
        made: Made,
        wanted: &Wanted<'_>,
    ) -> Result<Started> {
        let docker = &parts.connection.docker;
        let Made { id, door, allowed } = made;
        let transport = door.transport();
        let line = wanted.unless_over(async {
            Ok(match door {
                Door::Socket(listener) => {
                    link::over_socket(docker, &parts.container, &listener).await
                }
                Door::Attach => Ok(link::over_attach(docker, &parts.container).await?),
            })
        });
        match line.await? {
            Err(why) if self.config.transport.is_none() && why.is_of_the_socket() => {
                let again = self.make_again(parts, &why.into()).await?;
                let line = wanted.unless_over(link::over_attach(docker, &parts.container));
                Ok(Started {
                    id: again.id,
                    line: line.await?,
                    transport: Transport::Attach,
                    allowed: again.allowed,
                })
            }
            line => Ok(Started {
                id,
                line: line?,
                transport,
                allowed,
            }),
        }
    }

    /// Checks what was mounted when that is over: another sandbox may have changed where a path
    /// leads after it was checked and before the engine went there. The container is removed then.
    ///
    /// # Errors
    ///
    /// The paths lead elsewhere now, or are not allowed any more.
    pub(crate) async fn check_mounted(&self, parts: &Parts, mounted: &Allowed) -> Result<()> {
        let checked = self.check(parts).and_then(|found| found.is_still(mounted));
        if checked.is_err()
            && let Err(error) = removal::remove(&parts.connection, &parts.container).await
        {
            tracing::warn!(%error, "a container that must not run is left to the cleanup");
        }
        checked
    }

    fn check(&self, parts: &Parts) -> Result<Allowed> {
        let Connection {
            endpoint, facts, ..
        } = &*parts.connection;
        policy::check(&self.settings, &self.config, endpoint, facts)
    }

    /// Notes that an agent answered: where that was by attaching because nothing else worked, no
    /// other container is tried over a socket.
    pub(crate) fn answered(&self, transport: Transport) {
        if transport == Transport::Attach && self.config.transport.is_none() {
            self.maker.attaches.store(true, Ordering::Relaxed);
        }
    }

    async fn make_again(&self, parts: &Parts, why: &Error) -> Result<Made> {
        tracing::info!(reason = %why, "no socket leads into the container: it is attached to");
        parts
            .context
            .event("transport-changed", json!({ "reason": why.message() }));
        removal::remove(&parts.connection, &parts.container).await?;
        parts.meeting.remove().await?;
        self.make_with(Transport::Attach, parts).await
    }

    async fn make_with(&self, transport: Transport, parts: &Parts) -> Result<Made> {
        let Self {
            config,
            image,
            maker,
            ..
        } = self;
        let allowed = self.check(parts)?;
        let labels = Labels::now(parts.context.identity(), !parts.remove);
        let mut additions = Additions {
            image: image.id.clone(),
            labels: labels.to_map(),
            mounts: allowed.mounts.clone(),
            healthcheck: image.healthcheck,
            attach: transport == Transport::Attach,
            entrypoint: vec![Meeting::program()],
        };
        let arch = rust_arch(&image.arch);
        let program = Program::for_arch(arch, &maker.data_dir)?;
        let door = match transport {
            Transport::Socket => {
                let listener = parts.meeting.open(&maker.file(arch, &program)?)?;
                let path = parts.meeting.path().to_string_lossy().into_owned();
                let mount = container::bind(path, Meeting::TARGET, Mode::ReadOnly);
                additions.mounts.push(mount);
                additions
                    .entrypoint
                    .extend(["--connect".into(), Meeting::socket()]);
                Door::Socket(listener)
            }
            Transport::Attach => {
                additions.entrypoint.push("--stdio".into());
                if config.read_only {
                    // The container's own files cannot be written by the engine either.
                    let mount = container::volume("", Meeting::TARGET, Mode::ReadWrite);
                    additions.mounts.push(mount);
                }
                Door::Attach
            }
        };
        let facts = &parts.connection.facts;
        let Specification { body, notes } = Specification::new(config, facts, additions);
        for note in notes {
            parts.context.event(note.kind(), note.data());
        }
        let docker = &parts.connection.docker;
        let mut options = CreateContainerOptionsBuilder::new().name(&parts.container);
        if let Some(platform) = &config.platform {
            options = options.platform(&platform.to_string());
        }
        let made = docker.create_container(Some(options.build()), body).await;
        let made = made.doing(format_args!("making a container of `{}`", config.image))?;
        for warning in made.warnings {
            tracing::debug!(warning, "the engine warns");
        }
        if transport == Transport::Attach {
            link::put_agent(docker, &parts.container, &program, config.read_only).await?;
        }
        Ok(Made {
            id: made.id,
            door,
            allowed,
        })
    }
}

/// An architecture as Rust calls it, of which engines have their own names.
fn rust_arch(name: &str) -> &str {
    match name {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "x86",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_agent_that_answers_shows_that_no_socket_works() {
        for (wanted, answered, attaches) in [
            (None, None, false),
            (None, Some(Transport::Socket), false),
            (Some(Transport::Attach), Some(Transport::Attach), false),
            (None, Some(Transport::Attach), true),
        ] {
            let recipe = Recipe {
                maker: Arc::new(Maker::new(Path::new("/nonexistent"))),
                settings: Arc::default(),
                config: Config {
                    transport: wanted,
                    ..Config::default()
                },
                image: ImageFacts::default(),
            };
            if let Some(transport) = answered {
                recipe.answered(transport);
            }
            let found = recipe.maker.attaches.load(Ordering::Relaxed);
            assert_eq!(found, attaches, "{wanted:?} {answered:?}");
        }
    }
}
