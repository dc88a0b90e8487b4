//! How strongly a sandbox type keeps its sandboxes away from the machine.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Error;

/// How strongly a sandbox is kept away from the machine, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// None: a command can do what the host's user can do.
    None,
    /// Restrictions on a process: namespaces, a system call filter, Landlock.
    Process,
    /// A container that shares the machine's kernel.
    Container,
    /// A virtual machine with a kernel of its own.
    Vm,
}

impl Isolation {
    /// Returns the word for it, as configuration and JSON spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Process => "process",
            Self::Container => "container",
            Self::Vm => "vm",
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Isolation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::None, Self::Process, Self::Container, Self::Vm]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| {
                Error::invalid_argument(format_args!(
                    "isolation level `{text}` is none of none, process, container, vm"
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_read_back() {
        assert!(Isolation::None < Isolation::Process && Isolation::Container < Isolation::Vm);
        for level in [
            Isolation::None,
            Isolation::Process,
            Isolation::Container,
            Isolation::Vm,
        ] {
            assert_eq!(level.as_str().parse::<Isolation>().unwrap(), level);
        }
        assert!("Container".parse::<Isolation>().is_err());
    }
}
