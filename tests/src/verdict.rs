//! What becomes of a case.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The plugin keeps the clause.
    Passed,
    /// It breaks the clause.
    Failed,
    /// The case's process ended before it had a verdict.
    Crashed,
    /// The case took longer than it may, and was killed with all that it started.
    TimedOut,
    /// The clause could not be looked at.
    Skipped,
    /// The clause is kept, and something else is odd.
    Warned,
}

impl Verdict {
    /// Every verdict, worst last.
    pub const ALL: [Self; 6] = [
        Self::Passed,
        Self::Warned,
        Self::Skipped,
        Self::Failed,
        Self::TimedOut,
        Self::Crashed,
    ];

    /// Returns its name, as documents have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
            Self::Warned => "warned",
        }
    }

    /// Whether the plugin broke the clause, or the process of the case.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Crashed | Self::TimedOut)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name().replace('_', " "))
    }
}

/// Why a case did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The clause is broken: what was expected and what was found.
    Failed(String),
    /// The clause could not be looked at here.
    Skipped(String),
    /// The clause is kept, but.
    Warned(String),
}

impl Finding {
    /// Returns the verdict that it is.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Failed(_) => Verdict::Failed,
            Self::Skipped(_) => Verdict::Skipped,
            Self::Warned(_) => Verdict::Warned,
        }
    }

    /// Returns what it says.
    pub fn message(&self) -> &str {
        match self {
            Self::Failed(message) | Self::Skipped(message) | Self::Warned(message) => message,
        }
    }
}

/// An error where none is allowed breaks the clause, whatever it is.
impl<E: Into<anyhow::Error>> From<E> for Finding {
    fn from(error: E) -> Self {
        let error: anyhow::Error = error.into();
        Self::Failed(format!("{error:#}"))
    }
}

/// What a case returns.
pub type Outcome<T = ()> = Result<T, Finding>;

/// Ends the case as failed unless a condition holds; says what was expected and found.
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::verdict::Finding::Failed(format!($($message)+)));
        }
    };
}

/// Ends the case as failed unless two values are equal.
macro_rules! check_eq {
    ($found:expr, $expected:expr, $($what:tt)+) => {
        match (&$found, &$expected) {
            (found, expected) if *found == *expected => {}
            (found, expected) => {
                let what = format!($($what)+);
                return Err($crate::verdict::Finding::Failed(format!(
                    "{what}: expected {expected:?}, found {found:?}"
                )));
            }
        }
    };
}

pub(crate) use {check, check_eq};
