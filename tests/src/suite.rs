//! A run of all cases against one plugin.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use boxyard_host::plugin::{Inspected, inspect};
use boxyard_plugin_api::SandboxTypeDescriptor;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::{
    case::{Case, Needs},
    cases,
    isolate::{Ended, Isolation},
    report::{CaseReport, PluginSummary, Report},
    subject::{Offered, Place, Subject, Target},
    verdict::{Finding, Verdict},
};

/// The argument that makes the harness's program the process of one case.
pub const CASE_ARGUMENT: &str = "--boxyard-case";
/// The case that asks a plugin what it offers; not one of the contract's.
const DESCRIBE: &str = "describe";
/// The case that removes what others left; not one of the contract's.
const SWEEP: &str = "sweep";

/// What is run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is tested.
    pub target: Target,
    /// The cases that are run, by name or by group; all where empty.
    pub only: Vec<String>,
    /// What the order of cases, and everything random in them, comes from.
    pub seed: u64,
    /// How many cases run at once.
    pub jobs: usize,
    /// The program that runs one case when it is started with [`CASE_ARGUMENT`].
    pub program: PathBuf,
    /// Variables for the processes of cases.
    pub env: BTreeMap<String, String>,
}

/// What the process of a case is told.
#[derive(Debug, Serialize, Deserialize)]
struct Assignment {
    case: String,
    target: Target,
    seed: u64,
    /// Where private copies of plugins are.
    cache: PathBuf,
    /// The lease of the host that it is.
    lease: String,
    /// The leases of cases that are over.
    #[serde(default)]
    over: Vec<String>,
    /// Where the verdict goes; what the plugin prints goes elsewhere.
    answer: PathBuf,
}

/// What the process of a case answers.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    verdict: Verdict,
    message: String,
    #[serde(default)]
    offered: Option<Offered>,
}

/// What happens in a run, as it happens.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// So many cases will be run.
    Begun(usize),
    /// One has ended.
    Ended(&'a CaseReport),
}

/// Runs the cases; tells of each as it ends.
///
/// # Errors
///
/// Nothing can be run: there is no such file, it is no plugin, or it has no such type. Or the run
/// was [interrupted](crate::interrupt).
pub async fn run(options: &Options, mut tell: impl FnMut(Progress<'_>)) -> Result<Report> {
    let began = Instant::now();
    let mut chosen = chosen(&options.only)?;
    fastrand::Rng::with_seed(options.seed).shuffle(&mut chosen);
    let session = Session::new(options.clone()).await?;
    tell(Progress::Begun(chosen.len()));
    let mut reports = Vec::new();
    let mut failure = None;
    let mut running = stream::iter(&chosen)
        .map(|case| session.run_case(case))
        .buffer_unordered(options.jobs.max(1));
    // To the end also when one fails: what still runs is to be killed, and not to be left.
    while let Some(report) = running.next().await {
        match report {
            Ok(report) => {
                tell(Progress::Ended(&report));
                reports.push(report);
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    session.sweep().await;
    if let Some(error) = failure {
        return Err(error);
    }
    reports.sort_by_key(|report| {
        let is_it = |case: &&Case| case.id == report.id;
        cases::all().position(|case| is_it(&case))
    });
    Ok(Report {
        plugin: session.plugin.clone(),
        seed: options.seed,
        duration_ms: milliseconds(began.elapsed()),
        cases: reports,
    })
}

fn check_type(plugin: &Inspected, options: &Options) -> Result<()> {
    let Some(wanted) = &options.target.sandbox_type else {
        return Ok(());
    };
    let types = &plugin.manifest.sandbox_types;
    if types.iter().any(|known| known.name == *wanted) {
        return Ok(());
    }
    let known: Vec<&str> = types.iter().map(|known| known.name.as_str()).collect();
    bail!(
        "the plugin has no sandbox type `{wanted}`: expected one of [{}]",
        known.join(", ")
    )
}

fn chosen(only: &[String]) -> Result<Vec<&'static Case>> {
    for wanted in only {
        if !cases::all().any(|case| case.is_named(wanted)) {
            bail!("there is no case or group `{wanted}`: `--list` shows those that there are");
        }
    }
    let is_wanted = |case: &&Case| only.is_empty() || only.iter().any(|name| case.is_named(name));
    Ok(cases::all().filter(is_wanted).collect())
}

/// A plugin that was asked what it offers, whose cases can be run: in any order, any number at once.
#[derive(Debug)]
pub struct Session {
    options: Options,
    /// Tells what it makes from what others make.
    run: u32,
    /// What no sandbox, log or document may have.
    secret: String,
    plugin: PluginSummary,
    isolation: Isolation,
    /// What the plugin offers; a word about it where it does not say.
    offered: Result<Offered, String>,
}

impl Session {
    /// Looks at the plugin; `only` and `jobs` are the caller's to heed.
    ///
    /// # Errors
    ///
    /// Nothing can be run: there is no such file, it is no plugin, or it has no such type.
    pub async fn new(options: Options) -> Result<Self> {
        let inspected = inspect(&options.target.plugin)
            .with_context(|| format!("{}", options.target.plugin.display()))?;
        check_type(&inspected, &options)?;
        let mut session = Self {
            plugin: PluginSummary {
                path: options.target.plugin.clone(),
                name: inspected.manifest.name,
                version: inspected.manifest.version,
                api_version: inspected.manifest.api_version,
                sandbox_type: options.target.sandbox_type.clone(),
            },
            run: fastrand::u32(..),
            secret: format!("secret-{:016x}", fastrand::u64(..)),
            isolation: Isolation::new(&options.target.plugin)?,
            options,
            offered: Ok(Offered::default()),
        };
        session.offered = session.describe().await;
        Ok(session)
    }

    async fn describe(&self) -> Result<Offered, String> {
        let described = self.process(DESCRIBE, Case::DEADLINE, Vec::new());
        let (answer, ended) = match described.await {
            Ok(both) => both,
            Err(error) => return Err(format!("{error:#}")),
        };
        match answer {
            Some(Answer {
                offered: Some(offered),
                ..
            }) => Ok(offered),
            Some(answer) => Err(answer.message),
            None => Err(crash(&ended)),
        }
    }

    /// Runs one case, in a process of its own, unless it means nothing for the plugin.
    ///
    /// # Errors
    ///
    /// What the system says where there is no process; whatever becomes of one is a report.
    pub async fn run_case(&self, case: &Case) -> Result<CaseReport> {
        let began = Instant::now();
        let excluded = excluded(case, &self.offered, &self.options.target);
        let (verdict, message, excluded) = match excluded {
            Some((reason, excluded)) => (Verdict::Skipped, reason, excluded),
            None => {
                let (verdict, message) = self.verdict(case).await?;
                (verdict, message, false)
            }
        };
        Ok(CaseReport {
            id: case.id.into(),
            clause: case.clause.into(),
            level: case.level,
            verdict,
            message,
            excluded,
            duration_ms: milliseconds(began.elapsed()),
        })
    }

    async fn verdict(&self, case: &Case) -> Result<(Verdict, String)> {
        let (answer, ended) = self.process(case.id, case.deadline, Vec::new()).await?;
        Ok(match answer {
            Some(answer) if answer.verdict == Verdict::Passed => {
                if case.leaves_nothing && !ended.left.is_empty() {
                    let left = ended.left.join(", ");
                    let message = format!("expected no process to be left, found {left}");
                    (Verdict::Failed, message)
                } else if case.prints_nothing && !ended.printed.is_empty() {
                    let printed: String = ended.printed.chars().take(200).collect();
                    let message = format!("expected nothing to be printed, found {printed:?}");
                    (Verdict::Failed, message)
                } else if ended.exit.exit_code != 0 {
                    // It had a verdict, and died on its way out.
                    (Verdict::Crashed, crash(&ended))
                } else {
                    (Verdict::Passed, String::new())
                }
            }
            Some(answer) => (answer.verdict, answer.message),
            None if ended.exit.timed_out => {
                let limit = case.deadline.as_secs();
                let message = format!("it took longer than {limit} s, and was killed");
                (Verdict::TimedOut, message)
            }
            None => (Verdict::Crashed, crash(&ended)),
        })
    }

    /// Removes what cases left on an engine, as the next host of a machine does: those that were
    /// killed, and those that end before their plugin is through with it.
    pub async fn sweep(&self) {
        let offered = self.offered.as_ref().ok();
        let offered = offered.and_then(|offered| under_test(offered, &self.options.target));
        if offered.is_some_and(|offered| declares(offered, "sweep")) {
            let over = cases::all().map(|case| self.lease(case.id)).collect();
            // Whether a plugin sweeps is the business of a case.
            let _ = self.process(SWEEP, Case::DEADLINE, over).await;
        }
    }

    /// Returns the lease of a case. Short: paths of sockets may have it.
    fn lease(&self, case: &str) -> String {
        let number = cases::all().position(|known| known.id == case);
        format!(
            "{:08x}-{}",
            self.run,
            number.unwrap_or(usize::from(u8::MAX))
        )
    }

    async fn process(
        &self,
        case: &str,
        limit: Duration,
        over: Vec<String>,
    ) -> Result<(Option<Answer>, Ended)> {
        let place = self.isolation.place()?;
        let answer = place.path().join("answer.json");
        let assignment = Assignment {
            case: case.into(),
            target: Target {
                plugin: self.isolation.plugin().into(),
                ..self.options.target.clone()
            },
            seed: self.options.seed,
            cache: self.isolation.cache(),
            lease: self.lease(case),
            over,
            answer: answer.clone(),
        };
        let argv = vec![
            self.options.program.to_string_lossy().into_owned(),
            CASE_ARGUMENT.into(),
            serde_json::to_string(&assignment)?,
        ];
        let mut env = self.options.env.clone();
        env.insert(crate::HOST_SECRET.into(), self.secret.clone());
        env.insert("TMPDIR".into(), place.path().to_string_lossy().into_owned());
        let ended = self.isolation.run(argv, &env, limit).await?;
        let answer = fs::read(&answer).ok();
        let answer = answer.and_then(|text| serde_json::from_slice(&text).ok());
        Ok((answer, ended))
    }
}

/// Says why a case means nothing for this plugin, and whether what it declares excludes it.
fn excluded(
    case: &Case,
    offered: &Result<Offered, String>,
    target: &Target,
) -> Option<(String, bool)> {
    if case.needs == Needs::Library {
        return None;
    }
    let offered = match offered {
        Ok(offered) => offered,
        Err(reason) => {
            return Some((
                format!("what the plugin offers is not known: {reason}"),
                false,
            ));
        }
    };
    let reason = match (case.needs, under_test(offered, target)) {
        (Needs::Library, _) => return None,
        (Needs::Tool, _) if offered.tools.is_empty() => "the plugin has no tool".into(),
        (Needs::Tool, _) => return None,
        (_, None) => "the plugin has no sandbox type".into(),
        (Needs::SandboxType, Some(_)) => return None,
        (Needs::Capability(wanted), Some(known)) => match declares(known, wanted) {
            true => return None,
            false => format!("the type does not declare `{wanted}`"),
        },
        (Needs::NoCapability(unwanted), Some(known)) => match declares(known, unwanted) {
            true => format!("the type declares `{unwanted}`"),
            false => return None,
        },
        (Needs::CommandsWithout(_) | Needs::AtLeast(_), Some(known))
            if !declares(known, "commands") =>
        {
            "the type does not declare `commands`".into()
        }
        (Needs::CommandsWithout(unwanted), Some(known)) => match declares(known, unwanted) {
            true => format!("the type declares `{unwanted}`"),
            false => return None,
        },
        (Needs::AtLeast(wanted), Some(known)) if known.isolation < wanted => {
            format!("the type's isolation is `{}`", known.isolation)
        }
        (Needs::AtLeast(_), Some(_)) => return None,
    };
    Some((reason, true))
}

/// Returns the sandbox type under test.
fn under_test<'a>(offered: &'a Offered, target: &Target) -> Option<&'a SandboxTypeDescriptor> {
    let mut types = offered.sandbox_types.iter();
    match &target.sandbox_type {
        Some(wanted) => types.find(|known| known.name == *wanted),
        None => types.next(),
    }
}

fn declares(sandbox_type: &SandboxTypeDescriptor, capability: &str) -> bool {
    let mut declared = sandbox_type.capabilities.iter();
    declared.any(|declared| declared == capability)
}

fn crash(ended: &Ended) -> String {
    let how = match (ended.exit.timed_out, ended.exit.signal) {
        (true, _) => "it took too long, and was killed".to_owned(),
        (false, Some(signal)) => format!("its process was ended by signal {signal}"),
        (false, None) => format!("its process ended with exit code {}", ended.exit.exit_code),
    };
    let mut lines = ended
        .printed
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty());
    match lines.next() {
        Some(last) => format!("{how}; it said {last:?} last"),
        None => how,
    }
}

/// Is the process of one case where the program was started as one, and returns what it ends
/// with; what [`Options::program`] does first.
pub fn case_process() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(CASE_ARGUMENT) {
        return None;
    }
    Some(match run_assigned(&arguments.next().unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(std::io::stderr(), "the process of a case: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run_assigned(assignment: &str) -> Result<()> {
    let assignment: Assignment = serde_json::from_str(assignment)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let answer = answer(&assignment).await;
        let (verdict, message, offered) = match answer {
            Ok(offered) => (Verdict::Passed, String::new(), offered),
            Err(finding) => (finding.verdict(), finding.message().to_owned(), None),
        };
        Answer {
            verdict,
            message,
            offered,
        }
    });
    // In one piece: a process that is killed meanwhile has no verdict.
    let aside = assignment.answer.with_extension("part");
    fs::write(&aside, serde_json::to_vec(&answer)?)?;
    fs::rename(aside, &assignment.answer)?;
    // What a plugin left running in this process ends with it.
    runtime.shutdown_background();
    Ok(())
}

async fn answer(assignment: &Assignment) -> Result<Option<Offered>, Finding> {
    let root = tempfile::Builder::new()
        .prefix("boxyard-subject-")
        .tempdir()?;
    let case = cases::all().find(|case| case.id == assignment.case);
    let place = Place {
        root,
        cache: assignment.cache.clone(),
        lease: assignment.lease.clone(),
    };
    let subject = Subject::load(assignment.target.clone(), assignment.seed, place).await?;
    match case {
        Some(case) => (case.run)(subject).await?,
        None if assignment.case == SWEEP => subject.sweep(&assignment.over).await?,
        None => return Ok(Some(subject.offered()?)),
    }
    Ok(None)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
