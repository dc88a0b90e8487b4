//! `boxyard serve`: the HTTP server.

use std::{collections::BTreeMap, net::SocketAddr, pin::pin, time::Duration};

use boxyard_plugin_api::Isolation;
use clap::ValueEnum;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Failure, Global, output, signals::Signals};
use crate::{
    config::Config,
    exit,
    host::Host,
    http::{Doors, Listener, Server},
    manager::CreatePoolError,
    plugin::PluginStatus,
    pool::PoolSpec,
};

/// How often what dead hosts left is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How long those whose calls were cancelled have to take that answer.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Listen here; 127.0.0.1:8000 where nothing is said.
    #[arg(long, env = "BOXYARD_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Offer sandbox types that isolate no better than this.
    #[arg(long, value_name = "LEVEL")]
    allow_isolation: Option<Level>,
}

/// How strongly a sandbox is kept away from the machine.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    None,
    Process,
    Container,
    Vm,
}

impl From<Level> for Isolation {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::None,
            Level::Process => Self::Process,
            Level::Container => Self::Container,
            Level::Vm => Self::Vm,
        }
    }
}

impl ServeArgs {
    /// Lays the flags over a configuration.
    fn apply(&self, config: &mut Config) {
        if let Some(listen) = self.listen {
            config.http.listen = listen;
        }
        let level = self.allow_isolation.map(Isolation::from);
        let level = level.or(config.min_isolation);
        config.min_isolation = Some(level.unwrap_or(Isolation::Container));
    }
}

pub(super) async fn run(args: ServeArgs, global: Global) -> Result<u8, Failure> {
    let mut config = global.prepare()?;
    args.apply(&mut config);
    allow_descriptors();
    let mut signals = Signals::new()?;
    let listener = Listener::bind(&config.http);
    let listener = listener.map_err(|error| Failure::new(exit::FAILURE, error))?;
    let started = tokio::select! {
        started = Host::start_stored(config) => started,
        // What it was about to take up is left to the next one.
        () = signals.end() => return Ok(exit::SUCCESS),
    };
    let host = started.map_err(|error| Failure::new(exit::FAILURE, error))?;
    let server = Server::new(host.clone(), listener);
    keep_pools(&host, &BTreeMap::new());
    let sweeping = tokio::spawn(sweep(host.clone()));
    let listening = format!("listening on http://{}", server.address());
    if let Err(error) = output::line(&listening) {
        // Clients need the server, not the line.
        tracing::warn!("{listening}; standard output does not take it: {error}");
    }
    let doors = server.doors();
    let stop = async {
        loop {
            if signals.any().await != exit::HUNG_UP {
                return;
            }
            tokio::select! {
                () = signals.end() => return,
                () = reread(&args, &global, &host, &doors) => {}
            }
        }
    };
    let mut answering = pin!(server.run(stop).await);
    sweeping.abort();
    host.manager().close();
    let (shutdown, began) = (host.config().timeouts.shutdown, Instant::now());
    // Half of the time is theirs who wait for an answer; what still runs then is cancelled, and
    // answered as such.
    let answered = timeout(shutdown / 2, &mut answering).await.is_ok();
    let left = shutdown.saturating_sub(began.elapsed());
    host.shutdown_within(left).await;
    if !answered && timeout(LAST_ANSWERS, answering).await.is_err() {
        tracing::warn!("connections are closed that took no answer in time");
    }
    Ok(exit::SUCCESS)
}

/// Has as many descriptors as the system allows: each connection and each sandbox takes some.
fn allow_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}

/// Takes what the configuration says now, and what was dropped into a plugin directory; what is gone
/// is offered no more.
async fn reread(args: &ServeArgs, global: &Global, host: &Host, doors: &Doors) {
    let mut config = match global.config() {
        Ok(config) => config,
        Err(failure) => {
            tracing::error!("the configuration stays as it was: {:#}", failure.error);
            return;
        }
    };
    args.apply(&mut config);
    if let Err(error) = doors.change(&config.http) {
        tracing::error!("the configuration stays as it was: {error}");
        return;
    }
    let before = host.config();
    let plugins = host.reload(config).await;
    keep_pools(host, &before.pools);
    let loaded = plugins
        .iter()
        .filter(|plugin| plugin.status == PluginStatus::Loaded);
    tracing::info!(plugins = loaded.count(), "read the configuration again");
}

/// Has the pools of the configuration as they are there, and ends those that were in an earlier one.
fn keep_pools(host: &Host, before: &BTreeMap<String, PoolSpec>) {
    let config = host.config();
    let (manager, now) = (host.manager(), &config.pools);
    let is_changed = |name: &&String| match (before.get(*name), now.get(*name)) {
        (Some(before), Some(now)) => !before.is_like(now),
        (before, now) => before.is_some() || now.is_some(),
    };
    for name in before.keys().chain(now.keys()).filter(is_changed) {
        // Where there is none yet, there is nothing to delete.
        let _ = manager.delete_pool(name);
    }
    for (name, spec) in now {
        let kept = match manager.pool(name) {
            // It is smaller where somebody deleted sandboxes of it.
            Ok(pool) => pool.resize(spec.size).map_err(CreatePoolError::from),
            Err(_) => {
                let mut spec = spec.clone();
                spec.name.clone_from(name);
                manager.create_configured_pool(spec).map(drop)
            }
        };
        if let Err(error) = kept {
            tracing::error!(pool = name, "no such pool is kept: {error}");
        }
    }
}

/// Removes again and again what hosts that died left behind.
async fn sweep(host: Host) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        host.manager().sweep().await;
    }
}
