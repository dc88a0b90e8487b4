//! `boxyard-conformance`: tells the author of a plugin, check by check, whether it keeps the
//! contract.

#![expect(
    clippy::print_stdout,
    reason = "a program talks to people and programs"
)]

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use boxyard_conformance::{
    cases, interrupt,
    report::{self, Report},
    subject::Target,
    suite::{self, Options, Progress},
};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

/// The exit code where cases failed that must pass.
const FAILED: u8 = 1;
/// The exit code where nothing could be run.
const CANNOT_RUN: u8 = 2;

/// Tells whether a plugin keeps the contract, check by check.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// The plugin's library.
    #[arg(required_unless_present = "list")]
    plugin: Option<PathBuf>,
    /// The sandbox type to test; the plugin's first where there are several.
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    sandbox_type: Option<String>,
    /// The configuration of sandboxes, a file in JSON or TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Runs this case, or this group of cases, alone.
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// Lists the cases.
    #[arg(long)]
    list: bool,
    /// How the report is written.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// What the order of cases comes from; a new one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// How many cases run at once; as many as there are processors.
    #[arg(short, long)]
    jobs: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
    Junit,
    Tap,
}

fn main() -> ExitCode {
    if let Some(code) = suite::case_process() {
        return code;
    }
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(std::io::stderr(), "boxyard-conformance: {error:#}");
            ExitCode::from(match interrupt::is_asked() {
                true => interrupt::INTERRUPTED,
                false => CANNOT_RUN,
            })
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for case in cases::all() {
            println!("{:<44} {:<6} {}", case.id, case.level.name(), case.clause);
        }
        return Ok(true);
    }
    let plugin = arguments.plugin.clone().context("no plugin is given")?;
    let options = Options {
        target: Target {
            plugin,
            sandbox_type: arguments.sandbox_type.clone(),
            config: match &arguments.config {
                Some(file) => config(file)?,
                None => Map::new(),
            },
        },
        only: arguments.only.clone(),
        seed: arguments.seed.unwrap_or_else(seed),
        jobs: arguments
            .jobs
            .or_else(|| std::thread::available_parallelism().ok().map(Into::into))
            .unwrap_or(1),
        program: std::env::current_exe()?,
        env: BTreeMap::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    interrupt::listen()?;
    let bar = bar();
    let human = arguments.format == Format::Human;
    let report = runtime.block_on(suite::run(&options, |progress| match progress {
        Progress::Begun(cases) => bar.set_length(cases.try_into().unwrap_or(u64::MAX)),
        Progress::Ended(case) => {
            if human {
                bar.suspend(|| anstream::println!("{}", report::line(case)));
            }
            bar.inc(1);
        }
    }));
    bar.finish_and_clear();
    let report = report?;
    show(&report, arguments.format)?;
    Ok(report.is_pass())
}

/// Shows how far the run is where standard error is a terminal.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} cases, {elapsed}");
    let bar = ProgressBar::new(0);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn show(report: &Report, format: Format) -> Result<()> {
    match format {
        Format::Human => print!("{}", report::summary(report)),
        Format::Json => println!("{}", serde_json::to_string_pretty(report)?),
        Format::Junit => println!("{}", report::junit(report)?),
        Format::Tap => print!("{}", report::tap(report)),
    }
    Ok(())
}

fn config(file: &PathBuf) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let value = match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => toml::from_str(&text)?,
        Some("json") => serde_json::from_str(&text)?,
        _ => bail!("{}: expected a file in JSON or TOML", file.display()),
    };
    Ok(value)
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |now| now.subsec_nanos());
    u64::from(nanoseconds ^ std::process::id())
}
