//! One bad plugin, and what the harness finds in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::Result;
use boxyard_conformance::{
    report::Report,
    subject::Target,
    suite::{self, Options},
};
use serde_json::Map;

/// Stands for the harness's own refusal of what it cannot take for a plugin.
pub(super) const REFUSED: &str = "refused";

/// How often what is not as expected is looked at again.
const LOOKS: usize = 3;

/// The cases that fail, and why.
pub(super) type Failures = BTreeMap<String, String>;

/// A plugin that is wrong in one way, and the cases that look at it.
pub(super) struct Trial {
    pub(super) name: String,
    pub(super) caught_by: &'static str,
    pub(super) plugin: PathBuf,
    pub(super) sandbox_type: Option<&'static str>,
    /// The cases and groups that are run; all where empty.
    pub(super) only: Vec<String>,
    /// What the fixture is told to do wrong.
    pub(super) fault: Option<&'static str>,
}

impl Trial {
    pub(super) async fn failures(&self, only: &[String]) -> Failures {
        match run(&self.plugin, self.sandbox_type, only, self.fault).await {
            Ok(report) => {
                let bad = report
                    .cases
                    .into_iter()
                    .filter(|case| case.verdict.is_bad());
                bad.map(|case| (case.id, case.message)).collect()
            }
            Err(error) => Failures::from([(REFUSED.to_owned(), format!("{error:#}"))]),
        }
    }

    /// Says what is not as the table has it: its case must fail, and nothing that the table does
    /// not name. What is not is looked at again by itself, some times, because a machine that is busy
    /// can make a case fail that waits for something.
    pub(super) async fn compare(
        &self,
        failures: &Failures,
        kept: &BTreeSet<String>,
    ) -> Option<String> {
        let unexpected = failures.keys().filter(|case| !kept.contains(*case));
        let mut doubtful: Vec<String> = unexpected.cloned().collect();
        if !failures.contains_key(self.caught_by) {
            doubtful.push(self.caught_by.to_owned());
        }
        if doubtful.is_empty() && kept.contains(self.caught_by) {
            return None;
        }
        let mut is_caught = failures.contains_key(self.caught_by);
        let mut again = Failures::new();
        for _ in 0..LOOKS {
            again = self.failures(&doubtful).await;
            is_caught |= again.contains_key(self.caught_by);
            let as_expected = again.keys().all(|case| kept.contains(case));
            if is_caught && as_expected && kept.contains(self.caught_by) {
                return None;
            }
        }
        Some(format!(
            "`{}`: expected `{}` to fail, and of others {kept:?} at most; found {failures:?} and then {again:?}",
            self.name, self.caught_by
        ))
    }
}

/// Runs cases against a plugin.
pub(super) async fn run(
    plugin: &Path,
    sandbox_type: Option<&str>,
    only: &[String],
    fault: Option<&str>,
) -> Result<Report> {
    let options = Options {
        target: Target {
            plugin: plugin.into(),
            sandbox_type: sandbox_type.map(Into::into),
            config: Map::new(),
        },
        only: only.to_vec(),
        seed: 1,
        jobs: 4,
        program: env!("CARGO_BIN_EXE_boxyard-conformance").into(),
        env: fault
            .map(|fault| ("BOXYARD_FAULT".to_owned(), fault.to_owned()))
            .into_iter()
            .collect(),
    };
    suite::run(&options, |_| {}).await
}
