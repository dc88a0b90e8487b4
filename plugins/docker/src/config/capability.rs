//! The kernel's capabilities, and which of them commands have.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use boxyard_plugin_api::prelude::*;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::value::{read_by, shown};

/// All of them, each at the place that is its number in the kernel.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One of the kernel's capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinuxCapability(u8);

impl LinuxCapability {
    const CHOWN: Self = Self(0);
    const DAC_OVERRIDE: Self = Self(1);
    const FOWNER: Self = Self(3);
    const FSETID: Self = Self(4);
    const KILL: Self = Self(5);
    const SETGID: Self = Self(6);
    const SETUID: Self = Self(7);
    const SETPCAP: Self = Self(8);
    const NET_BIND_SERVICE: Self = Self(10);

    /// Returns its name, without `CAP_`.
    pub(crate) fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..).zip(NAMES).map(|(number, _)| Self(number))
    }

    fn parse(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        Self::all().find(|capability| capability.name() == name)
    }

    fn read(value: Value) -> Result<Self, String> {
        let found = value.as_str().and_then(Self::parse);
        found.ok_or_else(|| {
            format!(
                "expected a capability such as NET_RAW, found {}",
                shown(&value)
            )
        })
    }
}

impl fmt::Display for LinuxCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

read_by!(LinuxCapability);

impl JsonSchema for LinuxCapability {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "LinuxCapability".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z_]+$" })
    }
}

/// What commands have that run as root: enough to install packages, to become another user, and
/// to serve on a low port.
pub(crate) const COMMAND_CAPABILITIES: [LinuxCapability; 8] = [
    LinuxCapability::CHOWN,
    LinuxCapability::DAC_OVERRIDE,
    LinuxCapability::FOWNER,
    LinuxCapability::FSETID,
    LinuxCapability::KILL,
    LinuxCapability::SETGID,
    LinuxCapability::SETUID,
    LinuxCapability::NET_BIND_SERVICE,
];

/// What the agent needs to become the user of a command, to take capabilities from it, to kill
/// it, to find the directory that it is given, and to give that to him.
const AGENT_CAPABILITIES: [LinuxCapability; 6] = [
    LinuxCapability::CHOWN,
    LinuxCapability::DAC_OVERRIDE,
    LinuxCapability::KILL,
    LinuxCapability::SETGID,
    LinuxCapability::SETUID,
    LinuxCapability::SETPCAP,
];

/// Changes to the list of what commands may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Capabilities {
    /// What they have beside the list, such as `NET_RAW`.
    pub(crate) add: Vec<LinuxCapability>,
    /// What they do not have of the list; `ALL` for nothing of it.
    pub(crate) drop: Vec<Dropped>,
}

/// What is taken from the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    All,
    One(LinuxCapability),
}

impl Dropped {
    fn read(value: Value) -> Result<Self, String> {
        match value.as_str() {
            Some(text) if text.eq_ignore_ascii_case("ALL") => Ok(Self::All),
            _ => LinuxCapability::read(value).map(Self::One),
        }
    }
}

read_by!(Dropped);

impl JsonSchema for Dropped {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Dropped".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        LinuxCapability::json_schema(generator)
    }
}

impl Capabilities {
    /// Returns what commands have that run as root.
    pub(crate) fn of_commands(&self) -> BTreeSet<LinuxCapability> {
        let listed = COMMAND_CAPABILITIES.into_iter();
        let kept = listed.filter(|capability| {
            !self.drop.contains(&Dropped::All) && !self.drop.contains(&Dropped::One(*capability))
        });
        kept.chain(self.added()).collect()
    }

    /// Returns what commands would have that the list does not give them.
    pub(crate) fn added(&self) -> impl Iterator<Item = LinuxCapability> + '_ {
        let added = self.add.iter().copied();
        added.filter(|capability| !self.drop.contains(&Dropped::One(*capability)))
    }

    /// Returns what the container must have, so that the agent can do its work and give commands
    /// theirs.
    pub(crate) fn of_container(&self) -> BTreeSet<LinuxCapability> {
        let mut all = self.of_commands();
        all.extend(AGENT_CAPABILITIES);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(config: Value) -> Capabilities {
        serde_json::from_value(config).unwrap()
    }

    fn names(set: &BTreeSet<LinuxCapability>) -> String {
        let names: Vec<&str> = set.iter().map(|capability| capability.name()).collect();
        names.join(" ")
    }

    #[test]
    fn commands_have_the_list_and_what_is_asked_for() {
        let listed = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE";
        for (config, expected) in [
            (json!({}), listed.to_owned()),
            (json!({"add": ["cap_net_raw"]}), format!("{listed} NET_RAW")),
            (json!({"drop": ["ALL"]}), String::new()),
            (json!({"drop": ["all"], "add": ["KILL"]}), "KILL".into()),
            (
                json!({"drop": ["CHOWN", "NET_RAW"], "add": ["NET_RAW"]}),
                listed.replace("CHOWN ", ""),
            ),
        ] {
            assert_eq!(names(&capabilities(config).of_commands()), expected);
        }
    }

    #[test]
    fn the_container_has_what_the_agent_needs() {
        let none = capabilities(json!({"drop": ["ALL"]}));
        assert_eq!(
            names(&none.of_container()),
            "CHOWN DAC_OVERRIDE KILL SETGID SETUID SETPCAP"
        );
    }

    #[test]
    fn every_name_has_its_number() {
        for (name, number) in [
            ("CHOWN", 0),
            ("SETPCAP", 8),
            ("NET_RAW", 13),
            ("SYS_ADMIN", 21),
            ("CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(LinuxCapability::parse(name).unwrap().0, number);
        }
        for capability in COMMAND_CAPABILITIES.into_iter().chain(AGENT_CAPABILITIES) {
            assert!(!capability.name().is_empty());
        }
        assert_eq!(LinuxCapability::SETPCAP.name(), "SETPCAP");
        assert_eq!(LinuxCapability::NET_BIND_SERVICE.name(), "NET_BIND_SERVICE");
        assert!(LinuxCapability::parse("EVERYTHING").is_none());
    }
}
