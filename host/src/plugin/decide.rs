//! Step 4: which of the verified plugins to load, from their manifests alone.

use std::{cmp::Ordering, collections::BTreeMap, path::PathBuf};

use boxyard_plugin_api::{API_VERSION, Manifest};
use semver::{Version, VersionReq};

use super::Inspected;
use crate::{config::PluginConfig, tool::Builtin};

/// Why a plugin is not loaded although its file is in order.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecideError {
    /// Another major version of the API.
    #[error("was built with plugin API {plugin}, this host has {host}: rebuild it with plugin API {}", host.major)]
    Major {
        /// The plugin's API.
        plugin: Version,
        /// The host's API.
        host: Version,
    },
    /// A release candidate that is not the host's.
    #[error(
        "was built with plugin API {plugin}, this host has {host}, and a release candidate works with itself only: rebuild it with {host}"
    )]
    Candidate {
        /// The plugin's API.
        plugin: Version,
        /// The host's API.
        host: Version,
    },
    /// The host is too old for the plugin.
    #[error(
        "needs a host with plugin API {needed} or newer, this one has {host}: use a newer Boxyard, or an older version of the plugin"
    )]
    HostTooOld {
        /// What the plugin needs.
        needed: Version,
        /// The host's API.
        host: Version,
    },
    /// A panic in the plugin would end the host.
    #[error(
        "was built with panic=abort, so that a panic in it would end the host: rebuild it with panic=unwind"
    )]
    PanicAbort,
    /// The configuration forbids the plugin.
    #[error("is switched off by `plugins.{name}.enabled`")]
    Disabled {
        /// The plugin's name.
        name: String,
    },
    /// The configuration forbids the version.
    #[error("has version {version}, but `plugins.{name}.version` asks for {requirement}")]
    Version {
        /// The plugin's name.
        name: String,
        /// Its version.
        version: Version,
        /// What is asked for.
        requirement: String,
    },
    /// A name that is no package's, and could lead out of the directory of the plugin's data.
    #[error("is called `{}`: expected 1 to 64 of a-z, A-Z, 0-9, `-` and `_`", name.escape_debug())]
    PluginName {
        /// The name.
        name: String,
    },
    /// A name in the manifest that no host offers.
    #[error("names the {kind} `{}`: expected 1 to 64 of a-z, 0-9 and `{separator}`", name.escape_debug())]
    Name {
        /// `sandbox type` or `tool`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The separator that such names have.
        separator: char,
    },
    /// The plugin provides nothing.
    #[error("provides no sandbox type and no tool")]
    Empty,
    /// Another plugin has the name already.
    #[error("provides the {kind} `{name}`, which {} ({}) provides already: remove one of the two", owner.0, owner.1.display())]
    Duplicate {
        /// `sandbox type` or `tool`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The other plugin, and its file.
        owner: (String, PathBuf),
    },
}

/// Returns the host's API.
pub(super) fn host_api() -> Version {
    // The version comes from this workspace's own manifest, which cargo checked.
    Version::parse(API_VERSION).unwrap_or_else(|_| Version::new(0, 0, 0))
}

/// Decides whether a plugin may be loaded, whatever else there is.
///
/// # Errors
///
/// [`DecideError`], all but [`DecideError::Duplicate`].
pub fn admit(plugin: &Inspected, config: &PluginConfig) -> Result<(), DecideError> {
    let manifest = &plugin.manifest;
    if !is_name(&manifest.name, |c| {
        c.is_ascii_alphanumeric() || "-_".contains(c)
    }) {
        return Err(DecideError::PluginName {
            name: manifest.name.clone(),
        });
    }
    compatible(&host_api(), &plugin.api_version, &plugin.min_host_api)?;
    if manifest.panic_abort {
        return Err(DecideError::PanicAbort);
    }
    if !config.enabled {
        return Err(DecideError::Disabled {
            name: manifest.name.clone(),
        });
    }
    if let Some(requirement) = &config.version {
        // The configuration was validated when it was read.
        let matches =
            VersionReq::parse(requirement).is_ok_and(|parsed| parsed.matches(&plugin.version));
        if !matches {
            return Err(DecideError::Version {
                name: manifest.name.clone(),
                version: plugin.version.clone(),
                requirement: requirement.clone(),
            });
        }
    }
    check_names(manifest)
}

fn compatible(host: &Version, plugin: &Version, min_host_api: &Version) -> Result<(), DecideError> {
    let (host, plugin) = (host.clone(), plugin.clone());
    if plugin.major != host.major {
        return Err(DecideError::Major { plugin, host });
    }
    if plugin != host && !(plugin.pre.is_empty() && host.pre.is_empty()) {
        return Err(DecideError::Candidate { plugin, host });
    }
    if *min_host_api > host {
        return Err(DecideError::HostTooOld {
            needed: min_host_api.clone(),
            host,
        });
    }
    Ok(())
}

fn check_names(manifest: &Manifest) -> Result<(), DecideError> {
    if manifest.sandbox_types.is_empty() && manifest.tools.is_empty() {
        return Err(DecideError::Empty);
    }
    let types = manifest
        .sandbox_types
        .iter()
        .map(|one| ("sandbox type", &one.name, '-'));
    let tools = manifest.tools.iter().map(|name| ("tool", name, '_'));
    for (kind, name, separator) in types.chain(tools) {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == separator;
        if !is_name(name, fits) {
            return Err(DecideError::Name {
                kind,
                name: name.clone(),
                separator,
            });
        }
    }
    Ok(())
}

fn is_name(name: &str, fits: impl Fn(char) -> bool) -> bool {
    (1..=64).contains(&name.len()) && name.chars().all(fits)
}

/// Orders plugins for loading: names as they were found, and of one name the highest version first.
pub(super) fn order(plugins: &mut [Inspected]) {
    let mut found = BTreeMap::new();
    for plugin in plugins.iter() {
        let next = found.len();
        found.entry(plugin.manifest.name.clone()).or_insert(next);
    }
    let place = |plugin: &Inspected| found.get(&plugin.manifest.name).copied();
    plugins.sort_by(|a, b| match place(a).cmp(&place(b)) {
        Ordering::Equal => b.version.cmp(&a.version),
        other => other,
    });
}

/// Which plugin provides which sandbox types and tools.
#[derive(Debug)]
pub(super) struct Names(BTreeMap<(&'static str, String), (String, PathBuf)>);

impl Names {
    /// Returns the names that no plugin can have.
    pub(super) fn of_the_host() -> Self {
        let owner = || ("boxyard".into(), "the host itself".into());
        let own = Builtin::tools().map(|tool| (("tool", tool.name().to_owned()), owner()));
        Self(own.collect())
    }

    /// Returns why a plugin's names are taken, if one is.
    pub(super) fn check(&self, plugin: &Inspected) -> Result<(), DecideError> {
        for (kind, name) in names(&plugin.manifest) {
            if let Some(owner) = self.0.get(&(kind, name.clone())) {
                return Err(DecideError::Duplicate {
                    kind,
                    name,
                    owner: owner.clone(),
                });
            }
        }
        Ok(())
    }

    /// Takes the names of a plugin that is loaded.
    pub(super) fn take(&mut self, manifest: &Manifest, path: &std::path::Path) {
        for (kind, name) in names(manifest) {
            self.0
                .insert((kind, name), (manifest.name.clone(), path.into()));
        }
    }
}

fn names(manifest: &Manifest) -> impl Iterator<Item = (&'static str, String)> {
    let types = manifest
        .sandbox_types
        .iter()
        .map(|one| ("sandbox type", one.name.clone()));
    types.chain(manifest.tools.iter().map(|name| ("tool", name.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(host: &str, plugin: &str, min_host_api: &str) -> &'static str {
        let version = |text| Version::parse(text).unwrap();
        match compatible(&version(host), &version(plugin), &version(min_host_api)) {
            Ok(()) => "load",
            Err(DecideError::Major { .. }) => "major",
            Err(DecideError::Candidate { .. }) => "candidate",
            Err(DecideError::HostTooOld { .. }) => "host too old",
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn versions_decide() {
        for (host, plugin, min_host_api, expected) in [
            ("1.2.0", "1.2.0", "1.0.0", "load"),
            ("1.2.0", "1.0.0", "1.0.0", "load"),
            ("1.0.0", "1.2.0", "1.0.0", "load"),
            ("1.0.0", "1.2.0", "1.1.0", "host too old"),
            ("1.2.0", "2.0.0", "2.0.0", "major"),
            ("1.2.0", "0.9.0", "0.9.0", "major"),
            ("1.0.0-rc.1", "1.0.0-rc.1", "1.0.0-rc.1", "load"),
            ("1.0.0-rc.1", "1.0.0-rc.2", "1.0.0-rc.2", "candidate"),
            ("1.0.0", "1.0.0-rc.2", "1.0.0-rc.1", "candidate"),
        ] {
            assert_eq!(
                decide(host, plugin, min_host_api),
                expected,
                "{host} {plugin} {min_host_api}"
            );
        }
    }
}
