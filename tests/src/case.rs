//! A case: one promise of the contract, and how to see whether a plugin keeps it.

use std::{pin::Pin, time::Duration};

use boxyard_plugin_api::Isolation;
use serde::{Deserialize, Serialize};

use crate::{subject::Subject, verdict::Outcome};

/// How binding a clause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A plugin that breaks it does not conform.
    Must,
    /// A plugin that breaks it surprises people.
    Should,
    /// A plugin may keep it.
    May,
}

impl Level {
    /// Returns its name, as documents have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::May => "may",
        }
    }
}

/// What a plugin has to have for a case to mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// A library.
    Library,
    /// A sandbox type.
    SandboxType,
    /// A sandbox type that declares this.
    Capability(&'static str),
    /// A sandbox type that does not declare this.
    NoCapability(&'static str),
    /// A sandbox type that runs commands, and does not declare this.
    CommandsWithout(&'static str),
    /// A sandbox type that runs commands, and says that it isolates so strongly.
    AtLeast(Isolation),
    /// A tool.
    Tool,
}

/// The future of a case; it stays on its thread.
pub type Running = Pin<Box<dyn Future<Output = Outcome>>>;

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name: the group, a dash, and the promise.
    pub id: &'static str,
    /// The clause of `CONTRACT.md`.
    pub clause: &'static str,
    /// How binding that is.
    pub level: Level,
    /// When it means anything.
    pub needs: Needs,
    /// How long it may take.
    pub deadline: Duration,
    /// Whether nothing that it started may outlive it, however far it ran away.
    pub leaves_nothing: bool,
    /// Whether nothing may be printed meanwhile.
    pub prints_nothing: bool,
    /// What it does, in a process of its own.
    pub run: fn(Subject) -> Running,
}

impl Case {
    /// How long a case may take that does not say so.
    pub const DEADLINE: Duration = Duration::from_secs(20);

    /// Makes a case without options.
    pub(crate) const fn new(
        id: &'static str,
        clause: &'static str,
        level: Level,
        needs: Needs,
        run: fn(Subject) -> Running,
    ) -> Self {
        Self {
            id,
            clause,
            level,
            needs,
            deadline: Self::DEADLINE,
            leaves_nothing: false,
            prints_nothing: false,
            run,
        }
    }

    /// Whether it is what a person calls so: the case, or its group.
    pub fn is_named(&self, name: &str) -> bool {
        self.id == name || self.group() == name
    }

    /// Returns the group that it belongs to.
    pub fn group(&self) -> &'static str {
        self.id.split_once('-').map_or(self.id, |(group, _)| group)
    }
}

/// Makes the table of a group, a line a case: name, clause, level and needs, and the function.
macro_rules! cases {
    ($($id:literal $clause:literal $level:ident $needs:expr => $run:ident $({ $($option:ident: $value:expr),* })?;)*) => {
        /// The cases of this group.
        pub(crate) const CASES: &[$crate::case::Case] = &[$($crate::case::Case {
            $($($option: $value,)*)?
            ..$crate::case::Case::new(
                $id,
                $clause,
                $crate::case::Level::$level,
                $needs,
                |subject| Box::pin($run(subject)),
            )
        },)*];
    };
}

pub(crate) use cases;
