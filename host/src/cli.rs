//! The command line: a file a verb. Translates to the library's calls and back.

mod completions;
mod config;
mod external;
mod key;
mod new;
mod output;
mod plugins;
mod remote;
mod run;
mod serve;
mod signals;
mod types;

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, error::ErrorKind};
use tokio::runtime;

use crate::{
    config::{Config, ConfigError},
    exit,
    host::Host,
    telemetry,
};

/// Runs other people's code in sandboxes whose backends are plugins.
#[derive(Debug, Parser)]
#[command(
    name = "boxyard",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes. Flags win over the environment, which wins over the file.
#[derive(Debug, clap::Args)]
struct Global {
    /// Search this directory for plugins; repeatable.
    #[arg(long, global = true, value_name = "DIR", help_heading = "Host options")]
    plugin_dir: Vec<PathBuf>,
    /// Load plugins from places that others can write to. For development.
    #[arg(
        long,
        global = true,
        env = "BOXYARD_TRUST_PLUGIN_DIRS",
        help_heading = "Host options"
    )]
    trust_plugin_dirs: bool,
    /// Read the host's configuration from this file.
    #[arg(
        long,
        global = true,
        env = "BOXYARD_CONFIG",
        value_name = "FILE",
        help_heading = "Host options"
    )]
    config_file: Option<PathBuf>,
    /// Log this much to standard error: `info`, `boxyard=debug,warn`, …
    #[arg(
        long,
        global = true,
        env = "BOXYARD_LOG",
        value_name = "FILTER",
        help_heading = "Host options"
    )]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List, inspect and install plugins.
    #[command(subcommand)]
    Plugins(plugins::PluginsVerb),
    /// List the sandbox types that the plugins offer.
    Types(types::TypesArgs),
    /// Create a sandbox, run a command or a tool in it, and delete it.
    Run(Box<run::RunArgs>),
    /// Serve sandboxes over HTTP.
    Serve(serve::ServeArgs),
    /// List the sandboxes of a running server.
    Ps(remote::PsArgs),
    /// Delete sandboxes of a running server.
    Rm(remote::RmArgs),
    /// Make API keys for a server.
    #[command(subcommand)]
    Key(key::KeyVerb),
    /// Make the project of a new plugin.
    #[command(subcommand)]
    New(new::NewVerb),
    /// Check the host's configuration.
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Print completions for a shell.
    Completions(completions::CompletionsArgs),
    /// `boxyard-VERB`, beside this program or on PATH.
    #[command(external_subcommand)]
    External(Vec<OsString>),
}

/// A failure of a verb, with the exit code that it ends with.
#[derive(Debug)]
struct Failure {
    error: anyhow::Error,
    code: u8,
}

impl Failure {
    fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self {
            error: error.into(),
            code,
        }
    }

    fn usage(message: impl std::fmt::Display) -> Self {
        Self::new(exit::USAGE, anyhow::anyhow!("{message}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(exit::FAILURE, error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(exit::CONFIG, error)
    }
}

/// Runs the program; what it returns is its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell when even this cannot be written.
            let _ = error.print();
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return ExitCode::from(if asked { exit::SUCCESS } else { exit::USAGE });
        }
    };
    match dispatch(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) if is_broken_pipe(&failure.error) => ExitCode::from(exit::SUCCESS),
        Err(failure) => {
            output::complain(&failure.error);
            ExitCode::from(failure.code)
        }
    }
}

/// Whoever read the output has enough of it, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let Cli { global, verb } = cli;
    match verb {
        Verb::Completions(args) => completions::run(&args),
        Verb::External(words) => external::run(&words),
        Verb::Config(verb) => config::run(&verb, &global),
        Verb::Key(verb) => key::run(&verb),
        Verb::Ps(args) => remote::ps(&args),
        Verb::Rm(args) => remote::rm(&args),
        Verb::Serve(args) => on_threads(serve::run(args, global)),
        Verb::New(verb) => new::run(verb),
        Verb::Plugins(verb) => plugins::run(verb, &global),
        Verb::Types(args) => on_runtime(types::run(args, global.prepare()?)),
        Verb::Run(args) => on_runtime(run::run(*args, global.prepare()?)),
    }
}

/// Runs a verb that needs a host.
fn on_runtime(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    run_on(runtime::Builder::new_current_thread(), work)
}

/// Runs a verb that has many clients.
fn on_threads(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    run_on(runtime::Builder::new_multi_thread(), work)
}

fn run_on(
    mut runtime: runtime::Builder,
    work: impl Future<Output = Result<u8, Failure>>,
) -> Result<u8, Failure> {
    let runtime = runtime.enable_all().build()?;
    let ended = runtime.block_on(work);
    // A thread that still waits to read standard input or to write to a full pipe is left behind.
    runtime.shutdown_timeout(Duration::ZERO);
    ended
}

impl Global {
    /// Reads the configuration, lays environment and flags over it, and starts the log.
    fn prepare(&self) -> Result<Config, Failure> {
        let config = self.config()?;
        telemetry::init(&config.log).map_err(Failure::usage)?;
        Ok(config)
    }

    fn config(&self) -> Result<Config, Failure> {
        let mut config = match self.config_file.clone().or_else(Config::default_path) {
            Some(path) => Config::read(&path)?,
            None => Config::default(),
        };
        if !self.plugin_dir.is_empty() {
            config.plugin_dirs = Some(self.plugin_dir.clone());
        } else if let Some(path) = std::env::var_os("BOXYARD_PLUGIN_PATH") {
            config.plugin_dirs = Some(std::env::split_paths(&path).collect());
        }
        config.trust_plugin_dirs |= self.trust_plugin_dirs;
        if let Some(log) = &self.log {
            config.log.clone_from(log);
        }
        Ok(config)
    }
}

/// Starts a host with every plugin; `code` is how the verb ends when that fails.
async fn start_host(config: Config, code: u8) -> Result<Host, Failure> {
    Host::start(config)
        .await
        .map_err(|error| Failure::new(code, error))
}
