//! The state machine of a sandbox.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// Where a sandbox is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being made.
    Initializing,
    /// It takes calls.
    Running,
    /// It takes calls, and waits in a pool.
    Idle,
    /// It takes calls, and at least one is running.
    Busy,
    /// It is being stopped.
    Stopping,
    /// Nothing runs in it, and nothing can.
    Stopped,
    /// Something went wrong; `metadata.error` says what.
    Error,
}

/// A move that no sandbox makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sandbox cannot go from {from} to {to}")]
pub struct StatusError {
    /// Where it is.
    pub from: Status,
    /// Where it was to go.
    pub to: Status,
}

impl Status {
    /// All there are.
    const ALL: [Self; 7] = [
        Self::Initializing,
        Self::Running,
        Self::Idle,
        Self::Busy,
        Self::Stopping,
        Self::Stopped,
        Self::Error,
    ];

    /// Returns the word for it, as JSON has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Error => "error",
        }
    }

    /// Returns whether commands and tools can run.
    pub const fn takes_calls(self) -> bool {
        matches!(self, Self::Running | Self::Idle | Self::Busy)
    }

    /// Makes a move.
    ///
    /// # Errors
    ///
    /// [`StatusError`] for one that no sandbox makes.
    pub(super) fn move_to(self, to: Self) -> Result<Self, StatusError> {
        use Status::{Busy, Error, Idle, Initializing, Running, Stopped, Stopping};
        match (self, to) {
            (Initializing, Running | Stopping)
            | (Running, Idle | Busy | Stopping)
            | (Idle, Running | Busy | Stopping)
            | (Busy, Running | Idle | Stopping)
            | (Stopping, Stopped)
            | (Initializing | Running | Idle | Busy | Stopping | Stopped | Error, Error) => Ok(to),
            (from, to) => Err(StatusError { from, to }),
        }
    }
}

impl FromStr for Status {
    type Err = String;

    /// Reads the word for it; the error says which words there are.
    fn from_str(word: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|status| status.as_str() == word);
        known.ok_or_else(|| {
            let words = Self::ALL.map(|status| format!("'{status}'"));
            match words.split_last() {
                Some((last, others)) => format!("{} or {last}", others.join(", ")),
                None => String::new(),
            }
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::{Status::*, *};

    #[test]
    fn legal_moves_are_made_and_others_are_errors_that_name_both_ends() {
        for (from, legal) in [
            (Initializing, vec![Running, Stopping, Error]),
            (Running, vec![Idle, Busy, Stopping, Error]),
            (Idle, vec![Running, Busy, Stopping, Error]),
            (Busy, vec![Running, Idle, Stopping, Error]),
            (Stopping, vec![Stopped, Error]),
            (Stopped, vec![Error]),
            (Error, vec![Error]),
        ] {
            for to in Status::ALL {
                let made = from.move_to(to);
                if legal.contains(&to) {
                    assert_eq!(made, Ok(to));
                } else {
                    assert_eq!(made, Err(StatusError { from, to }));
                }
            }
        }
        assert_eq!(
            StatusError {
                from: Stopped,
                to: Running
            }
            .to_string(),
            "a sandbox cannot go from stopped to running"
        );
    }
}
