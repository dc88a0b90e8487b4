//! What an image is for.

use std::{borrow::Cow, fmt};

use boxyard_plugin_api::prelude::*;
use schemars::{Schema, SchemaGenerator, json_schema};

use super::value::{read_by, shown};

/// A platform as images name it: `linux/arm64`, `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Platform {
    os: String,
    arch: String,
    variant: Option<String>,
}

impl Platform {
    fn read(value: Value) -> Result<Self, String> {
        let parts: Vec<&str> = value.as_str().unwrap_or("").split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        let (arch, variant) = match parts.as_slice() {
            ["linux", rest @ ..] if rest.iter().all(plain) => match rest {
                [arch] => (*arch, None),
                [arch, variant] => (*arch, Some((*variant).to_owned())),
                _ => ("", None),
            },
            _ => ("", None),
        };
        // As people write the two that have more than one name.
        let arch = match arch {
            "" => {
                return Err(format!(
                    "expected a platform such as `linux/amd64` or `linux/arm/v7`, found {}",
                    shown(&value)
                ));
            }
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            arch => arch,
        };
        Ok(Self {
            os: "linux".into(),
            arch: arch.into(),
            variant,
        })
    }

    /// Returns whether an image of this operating system, architecture and variant is one of the
    /// platform's.
    pub(crate) fn is_of(&self, os: &str, arch: &str, variant: &str) -> bool {
        // Engines leave out the variant where there is but one.
        let variants = self.variant.as_deref().unwrap_or("");
        self.os == os
            && self.arch == arch
            && (variants.is_empty() || variant.is_empty() || variants == variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

read_by!(Platform);

impl JsonSchema for Platform {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Platform".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^linux/[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_of_a_platform_or_not() {
        let platform: Platform = serde_json::from_value(json!("linux/arm/v7")).unwrap();
        assert_eq!(platform.to_string(), "linux/arm/v7");
        assert!(platform.is_of("linux", "arm", "v7"));
        assert!(platform.is_of("linux", "arm", ""));
        assert!(!platform.is_of("linux", "arm", "v6"));
        assert!(!platform.is_of("linux", "arm64", "v7"));
        let platform: Platform = serde_json::from_value(json!("linux/x86_64")).unwrap();
        assert!(platform.is_of("linux", "amd64", "") && platform.to_string() == "linux/amd64");
        for wrong in [
            "amd64",
            "windows/amd64",
            "linux/",
            "linux/a/b/c",
            "linux/a b",
            "",
        ] {
            assert!(
                serde_json::from_value::<Platform>(json!(wrong)).is_err(),
                "{wrong}"
            );
        }
    }
}
