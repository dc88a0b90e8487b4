//! The limits that a command can be given.

use rustix::process::Resource;
use serde::{Deserialize, Serialize};

/// A limit of a process, spelt as `setrlimit` does, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Address space, in bytes.
    As,
    /// Core files, in bytes.
    Core,
    /// Processor time, in seconds.
    Cpu,
    /// The data segment, in bytes.
    Data,
    /// Files that it writes, in bytes.
    Fsize,
    /// Locked memory, in bytes.
    Memlock,
    /// Open files.
    Nofile,
    /// Processes of its user.
    Nproc,
    /// The stack, in bytes.
    Stack,
}

impl Limit {
    /// Every limit with its name.
    pub const ALL: [(&'static str, Self); 9] = [
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

    /// Returns its name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, limit)| *limit == self);
        found.map_or("", |(name, _)| name)
    }

    /// Finds a limit by its name.
    ///
    /// # Errors
    ///
    /// There is none of that name; the message has those that there are.
    pub fn from_name(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, limit)| *limit).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("limit `{name}` is none of {}", known.join(", "))
        })
    }

    /// Returns what the system calls it.
    pub fn resource(self) -> Resource {
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

/// A string of a closed set; the derived schema would say so less plainly, and not of keys.
#[cfg(feature = "client")]
impl schemars::JsonSchema for Limit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "enum": Self::ALL.map(|(name, _)| name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_documents_and_a_wrong_one_is_named() {
        for (name, limit) in Limit::ALL {
            assert_eq!(limit.name(), name);
            assert_eq!(Limit::from_name(name), Ok(limit));
            let document = serde_json::Value::from(name);
            assert_eq!(serde_json::from_value::<Limit>(document).unwrap(), limit);
        }
        assert!(Limit::from_name("rss").unwrap_err().contains("`rss`"));
    }
}
