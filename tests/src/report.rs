//! What a run found, and the forms that it is shown in.

mod human;
mod junit;
mod tap;

use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use crate::{case::Level, verdict::Verdict};

pub use human::{line, summary};
pub use junit::junit;
pub use tap::tap;

/// Which plugin was tested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSummary {
    /// The file.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The plugin API that it was built with.
    pub api_version: String,
    /// The sandbox type that was asked for; the plugin's first where `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_type: Option<String>,
}

/// What became of one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseReport {
    /// Its name.
    pub id: String,
    /// The clause of the contract.
    pub clause: String,
    /// How binding that is.
    pub level: Level,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it did not pass; empty where it did.
    pub message: String,
    /// Whether it was skipped because of what the plugin declares.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
    /// How long it took.
    pub duration_ms: u64,
}

impl CaseReport {
    /// Whether the plugin does not conform because of it: a clause that must be kept and was
    /// broken, or that nobody looked at.
    pub fn is_fatal(&self) -> bool {
        let unseen = self.verdict == Verdict::Skipped && !self.excluded;
        self.level == Level::Must && (self.verdict.is_bad() || unseen)
    }
}

/// What became of all cases.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// The plugin.
    pub plugin: PluginSummary,
    /// What the run can be repeated with.
    pub seed: u64,
    /// How long it all took.
    pub duration_ms: u64,
    /// The cases, in the order of the contract.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// Counts a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let mut cases = self.cases.iter();
        cases
            .by_ref()
            .filter(|case| case.verdict == verdict)
            .count()
    }

    /// Whether the plugin conforms.
    pub fn is_pass(&self) -> bool {
        !self.cases.iter().any(CaseReport::is_fatal)
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Document<'a> {
            plugin: &'a PluginSummary,
            pass: bool,
            summary: serde_json::Map<String, serde_json::Value>,
            seed: u64,
            duration_ms: u64,
            cases: &'a [CaseReport],
        }
        let count = |verdict: Verdict| (verdict.name().to_owned(), self.count(verdict).into());
        Document {
            plugin: &self.plugin,
            pass: self.is_pass(),
            summary: Verdict::ALL.into_iter().map(count).collect(),
            seed: self.seed,
            duration_ms: self.duration_ms,
            cases: &self.cases,
        }
        .serialize(serializer)
    }
}
