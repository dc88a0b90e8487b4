//! What a host is started for, where that is known before its plugins are loaded.

use std::collections::BTreeSet;

use boxyard_plugin_api::{Manifest, canonical_type_name};

use crate::registry::Registry;

/// The sandbox types and tools that a host is started for: plugins that bring none of them are
/// looked at, and not loaded.
///
/// # Examples
///
/// ```
/// use boxyard_host::plugin::Needed;
///
/// let needed = Needed::new(["local_process"], ["hello"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    sandbox_types: BTreeSet<String>,
    tools: BTreeSet<String>,
}

impl Needed {
    /// Names sandbox types and tools.
    pub fn new<'a>(
        sandbox_types: impl IntoIterator<Item = &'a str>,
        tools: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let sandbox_types = sandbox_types.into_iter().map(canonical_type_name);
        Self {
            sandbox_types: sandbox_types.collect(),
            tools: tools.into_iter().map(str::to_owned).collect(),
        }
    }

    /// Whether a plugin brings any of it.
    pub(super) fn includes(&self, manifest: &Manifest) -> bool {
        let mut types = manifest.sandbox_types.iter();
        types.any(|known| self.sandbox_types.contains(&known.name))
            || manifest.tools.iter().any(|name| self.tools.contains(name))
    }

    /// Whether a registry offers all of it.
    pub(super) fn is_offered_by(&self, registry: &Registry) -> bool {
        let mut types = self.sandbox_types.iter();
        types.all(|name| registry.sandbox_type(name).is_ok())
            && self.tools.iter().all(|name| registry.has_tool(name))
    }
}
