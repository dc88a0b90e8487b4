//! Where a plugin's project takes the SDK from.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use boxyard_plugin_api::API_VERSION;
use serde_json::Value;

use crate::config::build_dir;

/// A crate that a plugin's project depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SdkCrate {
    PluginApi,
    Agent,
    Conformance,
}

impl SdkCrate {
    pub(super) const ALL: [Self; 3] = [Self::PluginApi, Self::Agent, Self::Conformance];

    /// Returns what stands for it in a template.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PluginApi => "plugin-api",
            Self::Agent => "agent",
            Self::Conformance => "conformance",
        }
    }

    /// Returns where it is in Boxyard's source.
    fn directory(self) -> &'static str {
        match self {
            Self::PluginApi => "plugin-api",
            Self::Agent => "plugins/agent",
            Self::Conformance => "tests",
        }
    }

    /// Returns the versions of it that make a plugin for this host.
    fn requirement(self) -> String {
        match self {
            // A candidate is compatible with nothing but itself.
            Self::PluginApi if API_VERSION.contains('-') => format!("={API_VERSION}"),
            Self::PluginApi => API_VERSION.into(),
            Self::Agent | Self::Conformance => env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// Where a plugin's project takes the SDK from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sdk {
    /// From Boxyard's source, on this machine.
    Path(PathBuf),
    /// From Boxyard's source, in a repository.
    Git {
        /// The repository.
        url: String,
        /// The commit; the newest where `None`.
        rev: Option<String>,
    },
    /// From cargo's registry.
    Registry,
}

/// Why a directory is not where the SDK is.
#[derive(Debug, thiserror::Error)]
pub(super) enum SdkError {
    /// It cannot be looked into.
    #[error("cannot look into --sdk-path {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds something else.
    #[error("--sdk-path {}: expected Boxyard's source, found no {missing} in it", path.display())]
    NoSource {
        /// The directory.
        path: PathBuf,
        /// A file that is not there.
        missing: String,
    },
    /// A manifest cannot name it.
    #[error("--sdk-path {}: expected a path in UTF-8, which a Cargo.toml can have", path.display())]
    NotText {
        /// The directory.
        path: PathBuf,
    },
}

impl Sdk {
    /// Takes it from a directory.
    ///
    /// # Errors
    ///
    /// [`SdkError`]: it is not there.
    pub(super) fn in_directory(directory: &Path) -> Result<Self, SdkError> {
        let path = fs::canonicalize(directory).map_err(|source| SdkError::Directory {
            path: directory.into(),
            source,
        })?;
        if path.to_str().is_none() {
            return Err(SdkError::NotText { path });
        }
        for part in SdkCrate::ALL {
            let missing = format!("{}/Cargo.toml", part.directory());
            if !path.join(&missing).is_file() {
                return Err(SdkError::NoSource { path, missing });
            }
        }
        Ok(Self::Path(path))
    }

    /// Takes it from where this program comes from: from its source, if it runs from where it was
    /// built, else from the registry.
    pub(super) fn at_hand() -> Self {
        let source = build_dir().and_then(|_| Path::new(env!("CARGO_MANIFEST_DIR")).parent());
        let source = source.and_then(|source| Self::in_directory(source).ok());
        source.unwrap_or(Self::Registry)
    }

    /// Writes a dependency, as a manifest has it.
    pub(super) fn dependency(&self, part: SdkCrate) -> String {
        // What JSON makes of a string, TOML reads as the same.
        let text = |value: &str| Value::from(value).to_string();
        match self {
            Self::Path(source) => {
                let directory = source.join(part.directory());
                format!("{{ path = {} }}", text(&directory.to_string_lossy()))
            }
            Self::Git { url, rev: None } => format!("{{ git = {} }}", text(url)),
            Self::Git {
                url,
                rev: Some(rev),
            } => format!("{{ git = {}, rev = {} }}", text(url), text(rev)),
            Self::Registry => text(&part.requirement()),
        }
    }
}

impl fmt::Display for Sdk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(source) => write!(f, "{}", source.display()),
            Self::Git { url, rev: None } => f.write_str(url),
            Self::Git {
                url,
                rev: Some(rev),
            } => write!(f, "{url} at {rev}"),
            Self::Registry => f.write_str("the registry"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_what_a_manifest_has() {
        let path = Sdk::Path("/src/box \"yard\"".into());
        let git = |rev: Option<&str>| Sdk::Git {
            url: "https://example.org/boxyard".into(),
            rev: rev.map(Into::into),
        };
        for (sdk, part, expected) in [
            (
                &path,
                SdkCrate::Agent,
                r#"{ path = "/src/box \"yard\"/plugins/agent" }"#,
            ),
            (
                &git(None),
                SdkCrate::PluginApi,
                r#"{ git = "https://example.org/boxyard" }"#,
            ),
            (
                &git(Some("v1")),
                SdkCrate::Conformance,
                r#"{ git = "https://example.org/boxyard", rev = "v1" }"#,
            ),
        ] {
            let dependency = sdk.dependency(part);
            assert_eq!(dependency, expected);
            toml::from_str::<toml::Table>(&format!("it = {dependency}")).unwrap();
        }
        let api = Sdk::Registry.dependency(SdkCrate::PluginApi);
        let api: String = serde_json::from_str(&api).unwrap();
        let api = semver::VersionReq::parse(&api).unwrap();
        assert!(api.matches(&API_VERSION.parse().unwrap()));
    }

    #[test]
    fn a_directory_with_something_else_says_what_is_missing() {
        let place = tempfile::tempdir().unwrap();
        let error = Sdk::in_directory(place.path()).unwrap_err().to_string();
        assert!(error.contains("no plugin-api/Cargo.toml"), "{error}");
        let error = Sdk::in_directory(&place.path().join("none")).unwrap_err();
        assert!(matches!(error, SdkError::Directory { .. }), "{error}");
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert!(Sdk::in_directory(workspace).is_ok());
    }
}
