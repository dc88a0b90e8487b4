//! `boxyard run`: a sandbox for one command or one tool.

mod progress;
mod request;
mod streams;

use std::{path::PathBuf, sync::Arc, time::Duration};

use boxyard_plugin_api::{Command, Error, Isolation};
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use super::{Failure, output, signals::Signals};
use crate::{
    HealthStatus,
    config::{Config, parse_duration},
    exit,
    host::Host,
    manager::CreateRequest,
    plugin::Needed,
    sandbox::{Sandbox, SandboxInfo},
    tool::{ToolResult, ToolStatus},
};

/// How long a run waits for the sweep of what earlier ones left.
const SWEEP_AT_MOST: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The sandbox type; the only healthy one that isolates where it is left out.
    #[arg(short = 't', long = "type", env = "BOXYARD_TYPE", value_name = "TYPE")]
    sandbox_type: Option<String>,
    /// Set a key of the sandbox's configuration; `a.b=1` reaches inside; repeatable.
    #[arg(short = 'c', value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Read the sandbox's configuration from a JSON or TOML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// End the command after this long: seconds, or 500ms, 5m, …
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Set a variable for the command; `NAME` alone passes this program's on; repeatable.
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Run the command in this directory of the sandbox.
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Run the command as this user of the sandbox.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Take COMMAND, one word, as a line for `sh -c`.
    #[arg(long)]
    shell: bool,
    /// Run a tool instead of a command.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["command", "shell", "env", "cwd", "user"])]
    tool: Option<String>,
    /// The tool's parameters.
    #[arg(long, value_name = "JSON", requires = "tool")]
    params: Option<String>,
    /// Print one JSON document at the end instead of the output as it comes.
    #[arg(long)]
    json: bool,
    /// The command and its arguments, run as they are.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND",
        required_unless_present = "tool"
    )]
    command: Vec<String>,
}

/// What is to be done in the sandbox.
enum Task {
    Command(Command),
    Tool {
        name: String,
        params: Value,
        timeout: Option<Duration>,
    },
}

pub(super) async fn run(args: RunArgs, config: Config) -> Result<u8, Failure> {
    let task = request::task(&args)?;
    let mut signals = Signals::new()?;
    let host = match needed(&args, &config) {
        Some(needed) => Host::start_for(config, needed).await,
        None => Host::start(config).await,
    };
    let host = host.map_err(|error| Failure::new(exit::NOT_RUN, error))?;
    // What a killed `boxyard run` left behind goes while this one works.
    let sweep = {
        let manager = host.manager().clone();
        tokio::spawn(async move { timeout(SWEEP_AT_MOST, manager.sweep()).await })
    };
    let (ended, was_interrupted) = tokio::select! {
        ended = in_sandbox(&args, task, &host) => (ended, false),
        code = signals.any() => (Ok(code), true),
    };
    let cleaned = async {
        // It ends by itself, and a sweep that failed is tried again by the next run.
        let _ = sweep.await;
        host.shutdown().await;
    };
    let again = async {
        if !was_interrupted {
            // What it asks for is being done already.
            signals.any().await;
        }
        signals.any().await
    };
    tokio::select! {
        () = cleaned => {}
        // The lease frees itself: the next `boxyard` removes what is left.
        _ = again => output::remark("interrupted again: leaving the clean-up to the next run"),
    }
    ended
}

/// What a run needs of the plugins: all of them where that is `None`.
fn needed(args: &RunArgs, config: &Config) -> Option<Needed> {
    // The document lists the tools of the sandbox, whoever brings them.
    if args.json {
        return None;
    }
    let sandbox_type = args
        .sandbox_type
        .as_ref()
        .or(config.default_type.as_ref())?;
    Some(Needed::new([sandbox_type.as_str()], args.tool.as_deref()))
}

async fn in_sandbox(args: &RunArgs, task: Task, host: &Host) -> Result<u8, Failure> {
    let not_run = |error: anyhow::Error| Failure::new(exit::NOT_RUN, error);
    let name = match &args.sandbox_type {
        Some(name) => name.clone(),
        None => default_type(host).await?,
    };
    let registry = host.registry();
    let sandbox_type = registry
        .sandbox_type(&name)
        .map_err(|error| not_run(error.into()))?;
    if let Task::Tool { name, params, .. } = &task {
        // A misspelt tool costs no sandbox.
        let tool = registry
            .tool(name, sandbox_type.name())
            .map_err(|error| not_run(error.into()))?;
        tool.check_params(params.clone())
            .map_err(|error| not_run(error.into()))?;
    }
    let config = request::config(args, sandbox_type)?;
    let (listener, events) = mpsc::unbounded_channel();
    let request = CreateRequest::new(sandbox_type.name())
        .config(config)
        .listener(listener);
    let creating = progress::shown(events, host.manager().create(request));
    let sandbox = creating.await.map_err(|error| not_run(error.into()))?;
    match task {
        Task::Command(command) => run_command(&sandbox, command, args.json).await,
        Task::Tool {
            name,
            params,
            timeout,
        } => run_tool(&sandbox, &name, params, timeout, args.json).await,
    }
}

/// Chooses the type that the configuration names, else the only healthy one that isolates.
async fn default_type(host: &Host) -> Result<String, Failure> {
    if let Some(name) = &host.config().default_type {
        return Ok(name.clone());
    }
    let registry = host.registry();
    let mut healthy = Vec::new();
    for one in registry
        .types()
        .filter(|one| one.isolation() >= Isolation::Container)
    {
        if one.probe().await.status != HealthStatus::Unhealthy {
            healthy.push(one.name());
        }
    }
    if let [only] = healthy.as_slice() {
        return Ok((*only).to_owned());
    }
    let all: Vec<String> = registry
        .types()
        .map(|one| format!("{} (isolation: {})", one.name(), one.isolation()))
        .collect();
    let there_are = if all.is_empty() {
        "none is loaded".into()
    } else {
        format!("there are {}", all.join(", "))
    };
    Err(Failure::usage(format_args!(
        "which sandbox type? Name one with -t or `default_type`: {} isolated and healthy; {there_are}",
        if healthy.is_empty() {
            "none is".to_owned()
        } else {
            format!("{} are", healthy.join(", "))
        }
    )))
}

#[derive(Serialize)]
struct CommandDocument {
    exit_code: i32,
    signal: Option<i32>,
    stdout: String,
    stderr: String,
    timed_out: bool,
    truncated: bool,
    out_of_memory: bool,
    killed: Option<u32>,
    duration_ms: u64,
    sandbox: SandboxInfo,
}

#[derive(Serialize)]
struct ToolDocument<'a> {
    #[serde(flatten)]
    result: &'a ToolResult,
    sandbox: SandboxInfo,
}

async fn run_command(
    sandbox: &Arc<Sandbox>,
    mut command: Command,
    as_json: bool,
) -> Result<u8, Failure> {
    let failed = |error: Error| Failure::new(exit::NOT_RUN, error);
    command.stdin = true;
    let exit = if as_json {
        let result = sandbox
            .run_with(
                command,
                streams::stdin(),
                boxyard_plugin_api::Controls::none(),
            )
            .await
            .map_err(failed)?;
        let document = CommandDocument {
            exit_code: result.exit.exit_code,
            signal: result.exit.signal,
            stdout: result.stdout_text(),
            stderr: result.stderr_text(),
            timed_out: result.exit.timed_out,
            truncated: result.truncated,
            out_of_memory: result.exit.out_of_memory,
            killed: result.exit.killed,
            duration_ms: result.exit.duration_ms,
            sandbox: sandbox.info().await,
        };
        output::json(&document)?;
        result.exit
    } else {
        let exit = streams::run(sandbox, &command).await.map_err(failed)?;
        if exit.timed_out {
            output::remark("boxyard: the command timed out");
        }
        exit
    };
    // Exit codes are bytes to the kernel.
    Ok(u8::try_from(exit.exit_code.rem_euclid(256)).unwrap_or(exit::FAILURE))
}

async fn run_tool(
    sandbox: &Arc<Sandbox>,
    name: &str,
    params: Value,
    timeout: Option<Duration>,
    as_json: bool,
) -> Result<u8, Failure> {
    let result = sandbox
        .execute_tool(name, params, timeout)
        .await
        .map_err(|error| Failure::new(exit::NOT_RUN, error))?;
    if as_json {
        let info = sandbox.info().await;
        output::json(&ToolDocument {
            result: &result,
            sandbox: info,
        })?;
    } else {
        print_tool_result(&result)?;
    }
    Ok(if result.status == ToolStatus::Success {
        exit::SUCCESS
    } else {
        exit::FAILURE
    })
}

/// Prints what a tool answered, whatever it says beside: a script that failed has printed too.
fn print_tool_result(result: &ToolResult) -> Result<(), Failure> {
    match &result.output {
        Value::Null => {}
        Value::String(text) => output::text(text)?,
        document => output::line(output::one_line(document))?,
    }
    let Some(error) = &result.error else {
        return Ok(());
    };
    if result.status == ToolStatus::Success {
        output::remark(error.trim_end());
    } else {
        output::complain(&anyhow::anyhow!("tool `{}`: {error}", result.tool));
    }
    Ok(())
}
