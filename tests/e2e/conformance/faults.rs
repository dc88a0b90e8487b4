//! Deliberately bad plugins, and the cases that catch them.
//!
//! Each is the fixture `faulty` with one fault, or with a manifest that lies. The table of what
//! catches what is `FAULTS.md`. A test runs each fault with the group of the case that must catch
//! it; with `BOXYARD_FAULTS=all` it runs every case for every fault and writes the table anew, which
//! takes half an hour, `BOXYARD_FAULTS=name` runs every case for one, and `BOXYARD_FAULTS=none` runs
//! the manifests only.

mod table;
mod trial;

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::Result;
use boxyard_conformance::{Library, cases, report::CaseReport};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use self::{
    table::Table,
    trial::{REFUSED, Trial},
};

/// How many bad plugins are tried at once: most of them make something wait.
const AT_ONCE: usize = 3;

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
    "writes-with-its-own-rights" => "files-are-whose-commands-are";
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

fn group(id: &str) -> &'static str {
    let mut known = cases::all();
    known.find(|case| case.id == id).expect(id).group()
}

/// Which faults are run, and with which cases.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    /// Each, with the group of the case that must catch it.
    OwnGroups,
    /// Each, with every case.
    Everything,
    /// This one, with every case.
    One(String),
}

impl Asked {
    fn new() -> Self {
        match std::env::var("BOXYARD_FAULTS") {
            Err(_) => Self::OwnGroups,
            Ok(all) if all == "all" => Self::Everything,
            Ok(name) => Self::One(name),
        }
    }

    fn is_asked(&self, fault: &Fault) -> bool {
        !matches!(self, Self::One(name) if name != fault.name)
    }

    /// The cases and groups that are run for a fault.
    fn only(&self, fault: &Fault) -> Vec<String> {
        let only = match self {
            Self::OwnGroups if fault.only.is_empty() => vec![group(fault.caught_by)],
            _ => fault.only.to_vec(),
        };
        only.into_iter().map(str::to_owned).collect()
    }
}

/// Where plugins are put.
struct Plugins {
    place: tempfile::TempDir,
}

impl Plugins {
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

    fn trials(&self, asked: &Asked) -> Result<Vec<Trial>> {
        let faulty = Library::example("faulty")?;
        let plugin = self.put("faulty", &faulty)?;
        let faults = FAULTS.iter().filter(|fault| asked.is_asked(fault));
        let mut trials: Vec<_> = faults
            .map(|fault| Trial {
                name: fault.name.to_owned(),
                caught_by: fault.caught_by,
                plugin: plugin.clone(),
                sandbox_type: Some(fault.sandbox_type),
                only: asked.only(fault),
                fault: Some(fault.name),
            })
            .collect();
        for (number, (key, value, caught_by)) in lies().into_iter().enumerate() {
            let name = format!("manifest-lies-{number}-about-{}", key.replace('_', "-"));
            trials.push(Trial {
                plugin: self.put(&name, &faulty.with(key, value)?)?,
                name,
                caught_by,
                sandbox_type: None,
                only: vec!["load".to_owned()],
                fault: None,
            });
        }
        Ok(trials)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_passes_everything() -> Result<()> {
    let plugins = Plugins::new()?;
    let plugin = plugins.put("faulty", &Library::example("faulty")?)?;
    let mut looked_at = BTreeSet::new();
    for sandbox_type in ["faulty", "faulty-modest", "faulty-bare"] {
        let report = trial::run(&plugin, Some(sandbox_type), &[], None).await?;
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

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_plugin_is_caught_by_the_case_that_should() -> Result<()> {
    let asked = Asked::new();
    let plugins = Plugins::new()?;
    let found: Vec<_> = stream::iter(plugins.trials(&asked)?)
        .map(|trial| async move { (trial.failures(&trial.only).await, trial) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    if asked == Asked::Everything {
        Table::of(&found).write()?;
    }
    let kept = Table::read()?;
    let mut wrong = Vec::new();
    // One after the other, so that a second look is a look at that plugin alone.
    for (failures, trial) in &found {
        wrong.extend(trial.compare(failures, &kept.row(&trial.name)?).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
