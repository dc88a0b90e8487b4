//! `FAULTS.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
};

use anyhow::{Context, Result};

use super::trial::{Failures, Trial};

/// Where the table is kept.
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/FAULTS.md");

/// The bad plugins and the cases that fail for each, the one that must be first.
pub(super) struct Table(BTreeMap<String, Vec<String>>);

impl Table {
    pub(super) fn of(found: &[(Failures, Trial)]) -> Self {
        let row = |(failures, trial): &(Failures, Trial)| {
            let others = failures.keys().filter(|case| *case != trial.caught_by);
            let own = [trial.caught_by.to_owned()];
            let cases = own.into_iter().chain(others.cloned()).collect();
            (trial.name.clone(), cases)
        };
        Self(found.iter().map(row).collect())
    }

    pub(super) fn read() -> Result<Self> {
        let text = fs::read_to_string(PATH).context(PATH)?;
        let rows = text.lines().filter(|line| line.contains('`'));
        let row = |row: &str| {
            let name = row.strip_prefix("| ")?.split(' ').next()?;
            let cases = row.split('`').skip(1).step_by(2).map(str::to_owned);
            Some((name.to_owned(), cases.collect()))
        };
        Ok(Self(rows.filter_map(row).collect()))
    }

    pub(super) fn write(&self) -> Result<()> {
        fs::write(PATH, self.to_string()).context(PATH)
    }

    /// The cases that may fail for a bad plugin.
    pub(super) fn row(&self, name: &str) -> Result<BTreeSet<String>> {
        let row = self.0.get(name);
        let row = row.with_context(|| format!("{PATH} has no fault `{name}`"))?;
        Ok(row.iter().cloned().collect())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "# Bad plugins, and what catches them\n\n\
             Each row is a plugin that is wrong in one way. The harness fails the case that is named for it, and\n\
             as far as the fault allows no other. A test runs them all and compares.\n\n\
             | fault | caught by | and so fails |\n|---|---|---|\n",
        )?;
        for (name, cases) in &self.0 {
            let quoted = cases.iter().map(|case| format!("`{case}`"));
            let quoted: Vec<String> = quoted.collect();
            let (own, others) = quoted
                .split_first()
                .map_or(("", &[][..]), |(own, others)| (own, others));
            writeln!(f, "| {name} | {own} | {} |", others.join(", "))?;
        }
        Ok(())
    }
}
