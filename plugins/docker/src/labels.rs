//! The labels of what a host makes in an engine: whose it is, and since when.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use boxyard_plugin_api::SandboxIdentity;

/// Every container and network of any Boxyard has it; its value is the host that made it.
pub(crate) const HOST: &str = "dev.boxyard.host";
const LEASE: &str = "dev.boxyard.lease";
const SANDBOX: &str = "dev.boxyard.sandbox";
/// When it was made, in milliseconds since 1970.
const CREATED: &str = "dev.boxyard.created";
/// What stays when its sandbox goes, because its owner wants it so.
const KEPT: &str = "dev.boxyard.kept";

/// Whose a container or a network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) host: String,
    pub(crate) lease: String,
    pub(crate) sandbox: String,
    pub(crate) created: SystemTime,
    pub(crate) kept: bool,
}

impl Labels {
    /// Labels what is made now for a sandbox.
    pub(crate) fn now(identity: &SandboxIdentity, kept: bool) -> Self {
        Self {
            host: identity.host.clone(),
            lease: identity.lease.clone(),
            sandbox: identity.id.clone(),
            created: SystemTime::now(),
            kept,
        }
    }

    /// Returns them as an engine takes them.
    pub(crate) fn to_map(&self) -> HashMap<String, String> {
        let since = self.created.duration_since(UNIX_EPOCH).unwrap_or_default();
        HashMap::from([
            (HOST.to_owned(), self.host.clone()),
            (LEASE.to_owned(), self.lease.clone()),
            (SANDBOX.to_owned(), self.sandbox.clone()),
            (CREATED.to_owned(), since.as_millis().to_string()),
            (KEPT.to_owned(), self.kept.to_string()),
        ])
    }

    /// Reads them back; `None` where it is none of ours.
    pub(crate) fn read(labels: &HashMap<String, String>) -> Option<Self> {
        let text = |name: &str| labels.get(name).cloned();
        let milliseconds = text(CREATED)?.parse().ok()?;
        Some(Self {
            host: text(HOST)?,
            lease: text(LEASE)?,
            sandbox: text(SANDBOX)?,
            created: UNIX_EPOCH + Duration::from_millis(milliseconds),
            kept: text(KEPT).is_some_and(|kept| kept == "true"),
        })
    }

    /// How long ago it was made; nothing where the clock went back since.
    pub(crate) fn age(&self) -> Duration {
        self.created.elapsed().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_they_were_written() {
        let identity = SandboxIdentity::new("box", "host", "lease");
        let labels = Labels::now(&identity, false);
        let mut written = labels.to_map();
        let read = Labels::read(&written).unwrap();
        assert_eq!((&*read.sandbox, &*read.lease), ("box", "lease"));
        assert!(read.age() < Duration::from_secs(10));
        written.insert(CREATED.into(), "yesterday".into());
        assert_eq!(Labels::read(&written), None);
    }
}
