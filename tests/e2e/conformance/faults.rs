//! Deliberately bad plugins, and the cases that catch them.
//!
//! Each is the fixture `faulty` with one fault, or with a manifest that lies. The table of what
//! catches what is `FAULTS.md`. A test runs each fault with the group of the case that must catch
//! it; with `BOXYARD_FAULTS=all` it runs every case for every fault and writes the table anew, which
//! takes half an hour, and `BOXYARD_FAULTS=name` runs every case for one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use boxyard_conformance::{
    Library, cases,
    report::{CaseReport, Report},
    subject::Target,
    suite::{self, Options},
};
use serde_json::{Map, Value, json};

/// Where the table is kept.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/FAULTS.md");

/// A fault, and the case that must catch it.
struct Fault {
    name: &'static str,
    caught_by: &'static str,
    sandbox_type: &'static str,
    /// The cases and groups that are run where all would take too long.
    only: &'static [&'static str],
}

/// Makes the table of faults: name, case, and where it is another one the sandbox type.
macro_rules! faults {
    ($($name:literal => $case:literal $(in $type:literal)? $(only $only:expr)?;)*) => {
        &[$(faults!(@one $name, $case $(, in $type)? $(, only $only)?),)*]
    };
    (@one $name:literal, $case:literal $(, only $only:expr)?) => {
        faults!(@one $name, $case, in "faulty" $(, only $only)?)
    };
    (@one $name:literal, $case:literal, in $type:literal) => {
        faults!(@one $name, $case, in $type, only &[])
    };
    (@one $name:literal, $case:literal, in $type:literal, only $only:expr) => {
        Fault { name: $name, caught_by: $case, sandbox_type: $type, only: $only }
    };
}

const FAULTS: &[Fault] = faults! {
    "writes-at-load" => "load-writes-nothing-outside-its-directory";
    "changes-the-directory-at-load" => "load-leaves-the-process-as-it-was";
    "changes-the-umask-at-load" => "load-leaves-the-process-as-it-was";
    "handles-signals-at-load" => "load-leaves-the-process-as-it-was";
    "starts-a-process-at-load" => "load-leaves-the-process-as-it-was";
    "loads-slowly" => "load-is-fast" only &["load"];
    "panics-at-load" => "load-host-takes-it";

    "schema-changes" => "descriptor-is-the-same-at-every-call";
    "schema-is-of-a-string" => "descriptor-schema-is-a-schema";
    "keys-are-not-described" => "descriptor-schema-describes-every-key";
    "parameters-are-no-object" => "descriptor-tool-schema-is-a-schema";
    "probe-hangs" => "descriptor-probe-answers-at-once";
    "probe-does-not-say-why" => "descriptor-probe-answers-at-once";

    "defaults-are-not-enough" => "config-defaults-are-enough";
    "schema-takes-unknown-keys" => "config-unknown-key-is-refused";
    "schema-takes-anything" => "config-wrong-type-names-the-key";
    "schema-has-a-secret" => "config-schema-has-no-secret";
    "code-takes-unknown-keys" => "config-schema-and-code-agree";
    "refuses-too-late" => "config-refused-one-leaves-nothing";

    "keeps-its-directory" => "lifecycle-cleanup-leaves-nothing";
    "leaves-a-helper" => "lifecycle-cleanup-leaves-nothing";
    "stops-once" => "lifecycle-stop-twice";
    "cleans-up-once" => "lifecycle-cleanup-twice";
    "stops-what-was-started-only" => "lifecycle-stop-before-start";
    "only-stop-ends-the-helper" => "lifecycle-cleanup-without-stop";
    "drops-a-helper" => "lifecycle-dropped-without-anything";
    "starts-in-create" => "lifecycle-nothing-runs-before-start";
    "runs-on-after-stop" => "lifecycle-nothing-runs-after-stop";
    "says-running-too-early" => "lifecycle-runs-as-soon-as-it-is-started";
    "stops-slowly" => "lifecycle-stop-is-quick" only &["lifecycle-stop-is-quick"];
    "sandboxes-share-a-directory" => "concurrency-ids-are-the-hosts";
    "calls-a-stop-an-end" => "lifecycle-exited-is-not-said-of-a-stop";
    "hears-of-cancelling-too-late" => "lifecycle-create-that-was-cancelled";

    "joins-arguments" => "exec-runs-an-argv-as-it-is";
    "splits-lines-itself" => "exec-runs-a-line-under-a-shell";
    "has-signed-exit-codes" => "exec-exit-code";
    "forgets-the-signal" => "exec-signal";
    "calls-a-missing-program-an-error" => "exec-missing-program-is-127";
    "takes-126-for-127" => "exec-not-executable-is-126";
    "forgets-stderr" => "exec-streams-are-apart";
    "mixes-the-streams" => "exec-streams-are-apart";
    "takes-output-for-text" => "exec-output-is-binary-safe";
    "loses-the-tail" => "exec-output-is-whole";
    "holds-output-back" => "exec-output-comes-as-it-is-printed";
    "reads-all-input-first" => "exec-output-comes-as-it-is-printed";
    "cuts-the-input" => "exec-stdin-is-streamed-and-ends";
    "leaves-stdin-open" => "exec-stdin-that-is-not-given-is-at-its-end";
    "minds-unread-input" => "exec-stdin-that-is-not-read";
    "replaces-the-environment" => "exec-environment-is-added";
    "never-clears-the-environment" => "exec-environment-is-cleared";
    "passes-the-hosts-environment-on" => "exec-environment-of-the-host-is-not-passed-on";
    "ignores-the-directory" => "exec-working-directory";
    "calls-a-missing-directory-a-missing-program" => "exec-missing-working-directory-is-an-error";
    "ignores-timeouts" => "exec-timeout-is-124" only &["exec"];
    "calls-a-timeout-an-error" => "exec-timeout-is-124";
    "times-out-too-early" => "exec-timeout-is-124";
    "never-says-that-it-timed-out" => "exec-timeout-is-124";
    "kills-the-group-only" => "exec-timeout-kills-descendants" only &["exec"];
    "a-timeout-kills-all" => "exec-timeout-of-one-spares-others";
    "waits-for-background-children" => "exec-background-child-does-not-hold-the-call";
    "drops-controls" => "exec-signals-reach-the-command";
    "writes-on-to-nobody" => "exec-reader-that-leaves-closes-the-pipe";
    "keeps-output-in-memory" => "exec-reader-that-stops-makes-it-wait";
    "runs-nothing-gladly" => "exec-refuses-what-cannot-be-run";
    "runs-one-command-at-a-time" => "exec-commands-run-side-by-side";
    "ignores-cancelling" => "exec-cancel-kills" only &["exec", "cancel"];
    "outlives-its-caller" => "exec-drop-kills";
    "runs-commands-undeclared" => "exec-undeclared-is-unsupported" in "faulty-bare";

    "does-not-truncate" => "model-random-operations";
    "reads-a-megabyte" => "files-large-round-trip";
    "reads-from-the-start" => "files-part-of-a-file";
    "takes-a-missing-file-for-an-empty-one" => "files-missing-is-not-found";
    "keeps-files-elsewhere" => "files-commands-see-the-same-files";
    "writes-in-place" => "files-write-is-whole-or-nothing";
    "writes-with-its-own-mode" => "files-stat-says-what-is-there";
    "looks-through-links" => "files-stat-looks-at-links-themselves";
    "lists-a-page" => "files-list-has-every-entry";
    "hides-dotted-files" => "files-list-has-every-entry";
    "always-removes-whole-trees" => "files-remove";
    "removes-nothing-gladly" => "files-remove";
    "removes-what-links-point-to" => "files-remove-does-not-follow-links";
    "always-makes-parents" => "files-make-directory";
    "packs-nothing" => "files-archive-round-trip";
    "takes-every-archive" => "files-archive-that-is-none-is-refused";
    "unpacks-with-tar" => "files-archive-does-not-leave-its-directory";
    "has-files-undeclared" => "files-undeclared-are-unsupported" in "faulty-modest";
    "has-archives-undeclared" => "files-archives-undeclared-are-unsupported" in "faulty-modest";

    "ignores-the-terminals-size" => "capability-terminal";
    "has-terminals-undeclared" => "capability-terminal-undeclared" in "faulty-modest";
    "ignores-users" => "capability-users";
    "runs-unknown-users-as-its-own" => "capability-users-unknown";
    "has-users-undeclared" => "capability-users-undeclared" in "faulty-modest";
    "ignores-limits" => "capability-limits-of-a-command";
    "measures-nothing" => "capability-stats";
    "measures-undeclared" => "capability-stats-undeclared" in "faulty-modest";
    "resets-nothing" => "capability-reset";
    "resets-undeclared" => "capability-reset-undeclared" in "faulty-modest";
    "keeps-logs-undeclared" => "capability-logs-undeclared";
    "isolates-in-words" => "capability-isolation-hides-the-hosts-files" in "faulty-boastful";

    "blocks-the-runtime" => "concurrency-a-long-command-holds-nothing-up" only &["concurrency"];

    "panics-on-garbage" => "recovery-garbage-state-is-an-error";
    "recovers-every-version" => "recovery-of-a-later-version-is-refused";
    "recovers-nothing" => "recovery-finds-a-running-sandbox";
    "recovers-the-dead" => "recovery-finds-a-running-sandbox";
    "saves-no-state" => "recovery-state-is-saved-before-start";
    "sweeps-the-living" => "recovery-sweep-spares-the-living";
    "sweeps-nothing" => "recovery-sweep-removes-orphans";
    "sweeps-the-young" => "recovery-sweep-keeps-what-is-young";
    "sweeps-undeclared" => "recovery-sweep-undeclared-is-unsupported" in "faulty-modest";

    "parameters-are-not-described" => "tool-parameters-name-every-key";
    "panics-without-commands" => "tool-in-a-sandbox-that-refuses-everything";
    "hangs-when-cancelled" => "tool-that-is-cancelled-ends";
    "panics-at-the-second-call" => "tool-can-be-called-again";

    "panics-on-long-paths" => "safety-hostile-paths";
    "panics-in-drop" => "safety-a-life-without-a-panic";
    "prints" => "telemetry-prints-nothing";
    "logs-secrets" => "telemetry-tells-no-secret";
    "notes-secrets" => "telemetry-tells-no-secret";

    "leaks-a-descriptor-per-command" => "hygiene-descriptors-of-commands";
    "leaks-a-descriptor-per-sandbox" => "hygiene-descriptors-of-sandboxes";
    "leaks-a-thread-per-command" => "hygiene-threads";
    "leaks-memory-per-command" => "hygiene-memory";
    "leaks-temporary-files" => "hygiene-temporary-files";
    "leaves-zombies" => "hygiene-children-are-waited-for";
};

/// Stands for the harness's own refusal of what it cannot take for a plugin.
const REFUSED: &str = "refused";

/// A key of the manifest that lies, and the case that must catch it.
fn lies() -> Vec<(&'static str, Value, &'static str)> {
    let types = |names: &[&str]| {
        let one = |name: &&str| json!({ "name": name, "isolation": "none" });
        Value::from(names.iter().map(one).collect::<Vec<_>>())
    };
    vec![
        ("version", json!("one"), REFUSED),
        (
            "api_version",
            json!("2.0.0"),
            "load-api-version-fits-this-host",
        ),
        (
            "min_host_api",
            json!("1.99.0"),
            "load-api-version-fits-this-host",
        ),
        (
            "sandbox_types",
            types(&["Faulty_Type"]),
            "load-names-are-canonical",
        ),
        (
            "sandbox_types",
            types(&["one", "one"]),
            "load-names-are-canonical",
        ),
        ("panic_abort", json!(true), "load-unwinds-and-never-aborts"),
        ("tools", json!(["greet", "dance"]), "load-host-takes-it"),
    ]
}

struct Harness {
    place: tempfile::TempDir,
}

impl Harness {
    fn new() -> Result<Self> {
        Ok(Self {
            place: tempfile::tempdir()?,
        })
    }

    fn put(&self, name: &str, library: &Library) -> Result<PathBuf> {
        let path = self.place.path().join(format!("{name}.so"));
        fs::write(&path, library.bytes())?;
        Ok(path)
    }

    async fn run(
        &self,
        plugin: &Path,
        sandbox_type: &str,
        only: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Report> {
        let options = Options {
            target: Target {
                plugin: plugin.into(),
                sandbox_type: (!sandbox_type.is_empty()).then(|| sandbox_type.into()),
                config: Map::new(),
            },
            only: only.iter().map(|only| (*only).to_owned()).collect(),
            seed: 1,
            jobs: 4,
            program: env!("CARGO_BIN_EXE_boxyard-conformance").into(),
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        suite::run(&options, |_| {}).await
    }
}

fn group(id: &str) -> &'static str {
    let mut known = cases::all();
    known.find(|case| case.id == id).expect(id).group()
}

fn bad(report: &Report) -> BTreeSet<String> {
    let bad = report.cases.iter().filter(|case| case.verdict.is_bad());
    bad.map(|case| case.id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_passes_everything() -> Result<()> {
    let harness = Harness::new()?;
    let plugin = harness.put("faulty", &Library::example("faulty")?)?;
    let mut looked_at = BTreeSet::new();
    for sandbox_type in ["faulty", "faulty-modest", "faulty-bare"] {
        let report = harness.run(&plugin, sandbox_type, &[], &[]).await?;
        let not_passed = |case: &&CaseReport| !case.excluded && case.verdict.name() != "passed";
        let not_passed: Vec<_> = report.cases.iter().filter(not_passed).collect();
        assert!(not_passed.is_empty(), "{sandbox_type}: {not_passed:#?}");
        let looked = report.cases.iter().filter(|case| !case.excluded);
        looked_at.extend(looked.map(|case| case.id.clone()));
    }
    // Isolation is for plugins that have some.
    let unseen = cases::all()
        .map(|case| case.id)
        .filter(|id| !looked_at.contains(*id));
    let unseen: Vec<_> = unseen.filter(|id| !id.contains("isolation")).collect();
    assert!(
        unseen.is_empty(),
        "no control shows that these can pass: {unseen:?}"
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a test prints its table")]
#[tokio::test(flavor = "multi_thread")]
async fn every_bad_plugin_is_caught_by_the_case_that_should() -> Result<()> {
    let harness = Harness::new()?;
    let faulty = Library::example("faulty")?;
    let plugin = harness.put("faulty", &faulty)?;
    let asked = std::env::var("BOXYARD_FAULTS").ok();
    let whole = asked.as_deref() == Some("all");
    let is_asked = |fault: &&Fault| whole || asked.as_ref().is_none_or(|name| name == fault.name);
    let mut table = Table::new();
    let mut missed = Vec::new();
    for fault in FAULTS.iter().filter(is_asked) {
        let began = Instant::now();
        let env = [("BOXYARD_FAULT", fault.name)];
        let own_group = [group(fault.caught_by)];
        let only = match (&asked, fault.only) {
            (None, []) => &own_group[..],
            (_, only) => only,
        };
        let run = harness.run(&plugin, fault.sandbox_type, only, &env);
        let bad = bad(&run.await?);
        let took = began.elapsed().as_millis();
        println!("{:<45} {took:>6} ms {bad:?}", fault.name);
        if !bad.contains(fault.caught_by) {
            missed.push((fault.name, fault.caught_by, bad.clone()));
        }
        table.insert(fault.name.to_owned(), (fault.caught_by, bad));
    }
    for (number, (key, value, caught_by)) in lies().into_iter().enumerate() {
        let name = format!("manifest-lies-{number}-about-{}", key.replace('_', "-"));
        let liar = harness.put(&name, &faulty.with(key, value)?)?;
        let bad = match harness.run(&liar, "", &["load"], &[]).await {
            Ok(report) => bad(&report),
            Err(_) => BTreeSet::from([REFUSED.to_owned()]),
        };
        println!("{name:<45} {bad:?}");
        if !bad.contains(caught_by) {
            missed.push((key, caught_by, bad.clone()));
        }
        table.insert(name, (caught_by, bad));
    }
    assert!(
        missed.is_empty(),
        "not caught by the case that should: {missed:#?}"
    );
    if whole {
        fs::write(TABLE, written(&table))?;
    }
    compare(&table)
}

type Table = BTreeMap<String, (&'static str, BTreeSet<String>)>;

/// Compares what was found with the table that is kept: nothing else may fail for a fault.
fn compare(found: &Table) -> Result<()> {
    let kept = read(&fs::read_to_string(TABLE).context(TABLE)?);
    for (name, (caught_by, bad)) in found {
        let kept = kept
            .get(name)
            .with_context(|| format!("{TABLE} has no fault `{name}`"))?;
        let unexpected: Vec<_> = bad.iter().filter(|case| !kept.contains(*case)).collect();
        ensure!(
            kept.contains(*caught_by),
            "{TABLE}: `{name}` is caught by `{caught_by}`"
        );
        ensure!(unexpected.is_empty(), "`{name}` also fails {unexpected:?}");
    }
    Ok(())
}

fn written(table: &Table) -> String {
    let mut text = String::from(
        "# Bad plugins, and what catches them\n\n\
         Each row is a plugin that is wrong in one way. The harness fails the case that is named for it, and\n\
         as far as the fault allows no other. A test runs them all and compares.\n\n\
         | fault | caught by | and so fails |\n|---|---|---|\n",
    );
    for (name, (caught_by, bad)) in table {
        let others = bad.iter().filter(|case| case != caught_by);
        let others: Vec<String> = others.map(|case| format!("`{case}`")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | `{caught_by}` | {} |", others.join(", "));
    }
    text
}

/// The cases that fail for each fault.
fn read(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = text.lines().filter(|line| line.contains('`'));
    rows.filter_map(|row| {
        let name = row.strip_prefix("| ")?.split(' ').next()?;
        let cases = row.split('`').skip(1).step_by(2).map(str::to_owned);
        Some((name.to_owned(), cases.collect()))
    })
    .collect()
}
