//! The `setrlimit` limits of a command.

use std::collections::BTreeMap;

use boxyard_plugin_api::prelude::*;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// A limit, spelt as `setrlimit` does, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum Limit {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Memlock,
    Nofile,
    Nproc,
    Stack,
}

/// Each limit of a command with its value.
pub(crate) type Limits = BTreeMap<Limit, u64>;

impl Limit {
    const ALL: [(&'static str, Self); 9] = [
        ("as", Self::As),
        ("core", Self::Core),
        ("cpu", Self::Cpu),
        ("data", Self::Data),
        ("fsize", Self::Fsize),
        ("memlock", Self::Memlock),
        ("nofile", Self::Nofile),
        ("nproc", Self::Nproc),
        ("stack", Self::Stack),
    ];

    fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, limit)| *limit == self)
            .map_or("", |(name, _)| name)
    }

    fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, limit)| *limit).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            Error::invalid_argument(format_args!(
                "limit `{name}` is none of {}",
                known.join(", ")
            ))
        })
    }

    fn resource(self) -> Resource {
        match self {
            Self::As => Resource::As,
            Self::Core => Resource::Core,
            Self::Cpu => Resource::Cpu,
            Self::Data => Resource::Data,
            Self::Fsize => Resource::Fsize,
            Self::Memlock => Resource::Memlock,
            Self::Nofile => Resource::Nofile,
            Self::Nproc => Resource::Nproc,
            Self::Stack => Resource::Stack,
        }
    }
}

/// Returns the sandbox's limits with the command's own in their place.
pub(crate) fn merged(sandbox: &Limits, command: &BTreeMap<String, u64>) -> Result<Limits> {
    let mut limits = sandbox.clone();
    for (name, value) in command {
        limits.insert(Limit::from_name(name)?, *value);
    }
    Ok(limits)
}

/// Sets the limits of a process that waits for it and was not reaped yet.
pub(crate) fn apply(limits: &Limits, pid: Pid) -> Result<()> {
    for (limit, value) in limits {
        // The kernel spells "no limit" as the largest number.
        let value = (*value != u64::MAX).then_some(*value);
        let both = Rlimit {
            current: value,
            maximum: value,
        };
        prlimit(Some(pid), limit.resource(), both).map_err(|errno| {
            let shown = value.map_or("unlimited".into(), |value| value.to_string());
            Error::from(std::io::Error::from(errno)).context(format_args!(
                "setting the limit `{}` to {shown}",
                limit.name()
            ))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_configuration() {
        for (name, limit) in Limit::ALL {
            assert_eq!(limit.name(), name);
            assert_eq!(serde_json::from_value::<Limit>(json!(name)).unwrap(), limit);
        }
    }

    #[test]
    fn a_command_replaces_and_adds_and_a_wrong_name_is_named() {
        let sandbox = Limits::from([(Limit::Cpu, 1), (Limit::Core, 0)]);
        let own = BTreeMap::from([("cpu".to_owned(), 2), ("nofile".to_owned(), 9)]);
        assert_eq!(
            merged(&sandbox, &own).unwrap(),
            Limits::from([(Limit::Cpu, 2), (Limit::Core, 0), (Limit::Nofile, 9)])
        );
        let error = merged(&sandbox, &BTreeMap::from([("rss".to_owned(), 1)])).unwrap_err();
        assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT);
        assert!(error.message().contains("`rss`"), "{error}");
    }
}
