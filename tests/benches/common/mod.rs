//! What the benchmarks share: their table, and where the release build is.

use std::{
    env,
    fmt::{self, Display, Formatter},
    path::PathBuf,
    time::Duration,
};

/// Prints the table's head.
pub(crate) fn head(floor: &str) {
    println!(
        "{:<46} {floor:>11} {:>11} {:>7}  budget",
        "work", "boxyard", "ratio"
    );
}

/// What something may cost: so many times the floor, and so much more.
#[derive(Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) times: f64,
    pub(crate) more: Duration,
}

impl Budget {
    fn is_kept(self, floor: Duration, cost: Duration) -> bool {
        cost.as_secs_f64() <= floor.as_secs_f64() * self.times + self.more.as_secs_f64()
    }
}

impl From<f64> for Budget {
    fn from(times: f64) -> Self {
        let more = Duration::ZERO;
        Self { times, more }
    }
}

impl From<Duration> for Budget {
    fn from(more: Duration) -> Self {
        Self { times: 0.0, more }
    }
}

impl Display for Budget {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.times, self.more) {
            (times, Duration::ZERO) => write!(f, "<= {times:.3} x"),
            (0.0, most) => write!(f, "<= {most:?}"),
            (times, more) => write!(f, "<= {times} x + {more:?}"),
        }
    }
}

/// Prints a row of medians.
pub(crate) fn compare(
    work: &str,
    floor: Vec<Duration>,
    cost: Vec<Duration>,
    budget: impl Into<Budget>,
) {
    row(work, median(floor), median(cost), budget);
}

/// Prints a row.
pub(crate) fn row(work: &str, floor: Duration, cost: Duration, budget: impl Into<Budget>) {
    let budget = budget.into();
    let ratio = cost.as_secs_f64() / floor.as_secs_f64();
    let verdict = verdict(budget.is_kept(floor, cost));
    let (floor, cost) = (format!("{floor:.1?}"), format!("{cost:.1?}"));
    println!("{work:<46} {floor:>11} {cost:>11} {ratio:>7.3}  {budget} ({verdict})");
}

pub(crate) fn verdict(is_kept: bool) -> &'static str {
    if is_kept { "kept" } else { "MISSED" }
}

pub(crate) fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples[samples.len() / 2]
}

/// Returns a file of the release build; `cargo measure` has made it.
pub(crate) fn built(name: &str) -> PathBuf {
    let program = env::current_exe().unwrap();
    let release = program.ancestors().nth(2).unwrap();
    let path = release.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo measure`",
        path.display()
    );
    path
}
