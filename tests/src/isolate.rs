//! A process for each case, that nothing of it outlives.
//!
//! Each case runs as a command of a guest agent of its own: a case that hangs is killed with all
//! that it started, one that crashes says how, and what it leaves behind is seen.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use boxyard_agent::{Client, Program, protocol::Setup};
use boxyard_plugin_api::{
    ByteSource, Call, CallController, Command, CommandExit, CommandIo, Controls, pipe,
};
use tempfile::TempDir;

use crate::interrupt;

/// How much of what a case prints is kept.
const MAX_PRINTED: usize = 1024 * 1024;
/// How long what a case started may take to be killed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long what a case leaves may take to see that the case is over.
const SETTLED: Duration = Duration::from_secs(2);

/// Where cases run.
#[derive(Debug)]
pub(crate) struct Isolation {
    agent: PathBuf,
    plugin: PathBuf,
    home: TempDir,
}

/// How the process of a case ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: CommandExit,
    /// What it printed, where somebody looks for the reason of a crash.
    pub(crate) printed: String,
    /// The programs that it left running.
    pub(crate) left: Vec<String>,
}

impl Isolation {
    /// Makes a place for cases, with a copy of the plugin in it.
    pub(crate) fn new(plugin: &Path) -> Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("boxyard-conformance-")
            .tempdir()?;
        let program = Program::for_this_machine(Path::new("/nonexistent"))?;
        let agent = home.path().join("boxyard-agent");
        program.write_to(&agent)?;
        let plugins = home.path().join("plugins");
        fs::create_dir(&plugins)?;
        let copy = plugins.join(plugin.file_name().context("the plugin has no name")?);
        fs::copy(plugin, &copy).with_context(|| format!("cannot copy {}", plugin.display()))?;
        Ok(Self {
            agent,
            plugin: copy,
            home,
        })
    }

    /// The copy of the plugin.
    pub(crate) fn plugin(&self) -> &Path {
        &self.plugin
    }

    /// A new directory for one case.
    pub(crate) fn place(&self) -> Result<TempDir> {
        Ok(tempfile::Builder::new()
            .prefix("case-")
            .tempdir_in(&self.home)?)
    }

    /// A directory that all cases share.
    pub(crate) fn cache(&self) -> PathBuf {
        self.home.path().join("cache")
    }

    /// Runs a program to its end, and kills all that is left of it.
    pub(crate) async fn run(
        &self,
        argv: Vec<String>,
        env: &BTreeMap<String, String>,
        limit: Duration,
    ) -> Result<Ended> {
        ensure!(!interrupt::is_asked(), "interrupted");
        let mut agent = Process::new(&self.agent);
        agent.stdout(Stdio::null());
        let started = boxyard_agent::spawn(agent).await;
        let (mut child, line) = started.context("starting the guest agent")?;
        let setup = Setup {
            env: std::env::vars().chain(env.clone()).collect(),
            working_dir: std::env::current_dir()?.to_string_lossy().into_owned(),
            ..Setup::default()
        };
        let (client, work) = Client::connect(line, setup).await?;
        let work = tokio::spawn(work);
        let ended = tokio::select! {
            ended = run(&client, argv, limit) => ended,
            () = interrupt::asked() => Err(anyhow!("interrupted")),
        };
        client.shut_down(PATIENCE).await?;
        work.await?;
        tokio::task::spawn_blocking(move || child.wait()).await??;
        ended
    }
}

async fn run(client: &Client, argv: Vec<String>, limit: Duration) -> Result<Ended> {
    let (stdout_sink, stdout) = pipe();
    let (stderr_sink, stderr) = pipe();
    let io = CommandIo {
        stdin: ByteSource::empty(),
        stdout: stdout_sink,
        stderr: stderr_sink,
        controls: Controls::none(),
    };
    let command = Command::argv(argv).timeout(limit);
    let call = CallController::new(0).call();
    let (exit, stdout, stderr) = tokio::join!(
        client.execute_command(&command, io, &call),
        head(&stdout),
        head(&stderr)
    );
    let exit = exit.context("running the process of the case")?;
    let left = left(client, &call).await?;
    let printed = [stdout, stderr].concat();
    Ok(Ended {
        exit,
        printed: String::from_utf8_lossy(&printed).into_owned(),
        left,
    })
}

/// What is left when what ends by itself has had its time.
async fn left(client: &Client, call: &Call) -> Result<Vec<String>> {
    let began = Instant::now();
    loop {
        let processes = client.processes(call).await?;
        if processes.is_empty() || began.elapsed() > SETTLED {
            let names = processes.into_iter().map(|process| process.name);
            return Ok(names.collect());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Reads a stream up, and keeps its head.
async fn head(source: &ByteSource) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Ok(Some(bytes)) = source.read(64 * 1024).await {
        let room = MAX_PRINTED.saturating_sub(kept.len());
        kept.extend(bytes.iter().take(room));
    }
    kept
}
