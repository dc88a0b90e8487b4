//! The name of an image, and the registry that it is from.

use std::fmt;

use boxyard_plugin_api::prelude::*;

/// The registry that a name without one is from.
const DOCKER_HUB: &str = "docker.io";

/// The name of an image with its tag or digest, or an image's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    /// The registry as it was written; none where that is Docker Hub's place.
    registry: Option<String>,
    path: String,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Version {
    Tag(String),
    /// With the tag that may stand before it and means nothing then.
    Digest(String),
    /// The name is an id.
    Id,
}

impl Reference {
    /// Reads the name of an image as docker's tools do; without a tag it is `latest`.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::INVALID_ARGUMENT`] for what no image can be called.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::read(text).ok_or_else(|| {
            Error::invalid_argument(format_args!(
                "image: expected a name in lower case such as `python:3.11-slim` or \
                 `registry:5000/name@sha256:…`, found {text:?}"
            ))
        })
    }

    fn read(text: &str) -> Option<Self> {
        if let Some(hex) = text.strip_prefix("sha256:")
            && is_hex(hex, 64)
        {
            return Some(Self {
                registry: None,
                path: text.into(),
                version: Version::Id,
            });
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let name_start = name.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match name.get(name_start..)?.find(':') {
            Some(colon) => {
                let (name, tag) = name.split_at(name_start + colon);
                (name, tag.strip_prefix(':'))
            }
            None => (name, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (Some(first.to_owned()), rest),
            _ => (None, name),
        };
        let version = match (tag, digest) {
            (Some(tag), _) if !is_tag(tag) => return None,
            (_, Some(digest)) => Version::Digest(digest_of(digest)?.into()),
            (tag, None) => Version::Tag(tag.unwrap_or("latest").into()),
        };
        path.split('/').all(is_component).then(|| Self {
            registry,
            path: path.into(),
            version,
        })
    }

    /// Returns the registry's name.
    pub(crate) fn registry(&self) -> &str {
        self.registry.as_deref().unwrap_or(DOCKER_HUB)
    }

    /// Returns whether it is the id of an image, which no registry knows.
    pub(crate) fn is_id(&self) -> bool {
        self.version == Version::Id
    }

    /// Returns the name without tag and digest.
    pub(super) fn name(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.path),
            None => self.path.clone(),
        }
    }

    /// Returns the tag or the digest.
    pub(super) fn version(&self) -> &str {
        match &self.version {
            Version::Tag(version) | Version::Digest(version) => version,
            Version::Id => "",
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match &self.version {
            Version::Tag(tag) => write!(f, "{name}:{tag}"),
            Version::Digest(digest) => write!(f, "{name}@{digest}"),
            Version::Id => f.write_str(&name),
        }
    }
}

/// Whether the first part of a name is a registry and no directory of Docker Hub.
fn is_registry(first: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    let looks = first == "localhost"
        || first.contains(['.', ':'])
        || first.contains(|c: char| c.is_ascii_uppercase());
    looks && first.chars().all(plain)
}

fn is_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(alphanumeric)
        && part.ends_with(alphanumeric)
        && !part.contains("..")
        && part.chars().all(|c| alphanumeric(c) || "._-".contains(c))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || ".-".contains(c))
}

fn digest_of(digest: &str) -> Option<&str> {
    let (algorithm, hex) = digest.split_once(':')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "+._-".contains(c);
    (!algorithm.is_empty() && algorithm.chars().all(plain) && is_hex(hex, 32)).then_some(digest)
}

fn is_hex(text: &str, least: usize) -> bool {
    text.len() >= least && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let hex = "0123456789abcdef".repeat(4);
        for (text, registry, whole) in [
            ("python", "docker.io", "python:latest".to_owned()),
            ("python:3.11-slim", "docker.io", "python:3.11-slim".into()),
            (
                "boxyard/busybox",
                "docker.io",
                "boxyard/busybox:latest".into(),
            ),
            ("localhost/a", "localhost", "localhost/a:latest".into()),
            ("host:5000/a/b:1", "host:5000", "host:5000/a/b:1".into()),
            ("[::1]:5000/a", "[::1]:5000", "[::1]:5000/a:latest".into()),
            (
                "ghcr.io/a__b/c-d:X_1.2",
                "ghcr.io",
                "ghcr.io/a__b/c-d:X_1.2".into(),
            ),
            (
                &format!("a:1@sha256:{hex}"),
                "docker.io",
                format!("a@sha256:{hex}"),
            ),
            (
                &format!("sha256:{hex}"),
                "docker.io",
                format!("sha256:{hex}"),
            ),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.registry(), registry, "{text}");
            assert_eq!(reference.to_string(), whole, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            " ",
            "a b",
            "-x",
            "/a",
            "a/",
            "a//b",
            "a/../../containers/x",
            "a/..",
            "Python",
            "a:",
            "a:b:c",
            "a@b",
            "a@sha256:1234",
            "a?b",
            "a#b",
            "ä",
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT);
            assert!(error.message().contains(&format!("{text:?}")), "{error}");
        }
    }
}
