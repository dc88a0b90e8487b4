//! What a library says of itself in bytes that are read without running it.

#![expect(
    clippy::indexing_slicing,
    reason = "constants: an index out of range stops the build, not the program"
)]

use serde::{Deserialize, Serialize};

use crate::Isolation;

/// The version of the manifest's form.
pub const FORMAT: u32 = 1;
/// The exported symbol that holds the manifest.
pub const MANIFEST_SYMBOL: &str = "BOXYARD_MANIFEST";
/// The section that holds the manifest.
pub const MANIFEST_SECTION: &str = if cfg!(target_vendor = "apple") {
    "__boxyard"
} else {
    ".boxyard"
};

/// What a library says of itself, embedded as JSON by [`register_plugin!`](crate::register_plugin).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// [`FORMAT`]; another number means that nothing else here may be trusted.
    pub format: u32,
    /// The plugin's package name.
    pub name: String,
    /// The plugin's version.
    pub version: String,
    /// One sentence for people.
    #[serde(default)]
    pub description: String,
    /// Who wrote it.
    #[serde(default)]
    pub authors: Vec<String>,
    /// Its licence, as an SPDX expression.
    #[serde(default)]
    pub license: String,
    /// The plugin API that it was built with.
    pub api_version: String,
    /// The oldest plugin API of a host that it runs on.
    pub min_host_api: String,
    /// The sandbox types that it provides.
    #[serde(default)]
    pub sandbox_types: Vec<ManifestSandboxType>,
    /// The tools that it provides, by name.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Whether a panic aborts the process that it is loaded into.
    #[serde(default)]
    pub panic_abort: bool,
}

/// A sandbox type in a [`Manifest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ManifestSandboxType {
    /// The canonical name.
    pub name: String,
    /// How strongly its sandboxes are kept away from the machine.
    pub isolation: Isolation,
}

/// Returns the canonical form of a sandbox type's name: `_` means `-`.
///
/// ```
/// assert_eq!(boxyard_plugin_api::canonical_type_name("local_process"), "local-process");
/// ```
pub fn canonical_type_name(name: &str) -> String {
    name.replace('_', "-")
}

/// A manifest in constants, as [`register_plugin!`](crate::register_plugin) gathers it.
#[doc(hidden)]
#[derive(Debug)]
pub struct ConstManifest {
    pub name: &'static str,
    pub version: &'static str,
    pub description: &'static str,
    /// Separated by `:`, as cargo has them.
    pub authors: &'static str,
    pub license: &'static str,
    pub min_host_api: &'static str,
    pub sandbox_types: &'static [(&'static str, Isolation)],
    pub tools: &'static [&'static str],
    pub panic_abort: bool,
}

impl ConstManifest {
    /// Returns the length of the JSON text.
    pub const fn text_len(&self) -> usize {
        self.write(Text::<0>::new()).len
    }

    /// Returns the JSON text; `N` is [`ConstManifest::text_len`].
    pub const fn to_bytes<const N: usize>(&self) -> [u8; N] {
        self.write(Text::<N>::new()).bytes
    }

    const fn write<const N: usize>(&self, text: Text<N>) -> Text<N> {
        let mut text = text
            .raw(r#"{"format":1,"name":"#)
            .string(self.name)
            .raw(r#","version":"#)
            .string(self.version)
            .raw(r#","description":"#)
            .string(self.description)
            .raw(r#","authors":"#)
            .list(self.authors)
            .raw(r#","license":"#)
            .string(self.license)
            .raw(r#","api_version":"#)
            .string(crate::API_VERSION)
            .raw(r#","min_host_api":"#)
            .string(self.min_host_api)
            .raw(r#","sandbox_types":["#);
        let mut index = 0;
        while index < self.sandbox_types.len() {
            let (name, isolation) = self.sandbox_types[index];
            check_name(name, b'-');
            text = text
                .raw(if index == 0 {
                    r#"{"name":"#
                } else {
                    r#",{"name":"#
                })
                .string(name)
                .raw(r#","isolation":"#)
                .string(isolation.as_str())
                .raw("}");
            index += 1;
        }
        text = text.raw(r#"],"tools":["#);
        index = 0;
        while index < self.tools.len() {
            check_name(self.tools[index], b'_');
            text = text
                .raw(if index == 0 { "" } else { "," })
                .string(self.tools[index]);
            index += 1;
        }
        text.raw(r#"],"panic_abort":"#)
            .raw(if self.panic_abort { "true}" } else { "false}" })
    }
}

/// Stops the build of a plugin whose type or tool has a name that hosts refuse.
const fn check_name(name: &str, separator: u8) {
    let bytes = name.as_bytes();
    assert!(
        !bytes.is_empty() && bytes.len() <= 64,
        "a sandbox type or tool name has 1 to 64 characters"
    );
    let mut index = 0;
    while index < bytes.len() {
        let byte = bytes[index];
        assert!(
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == separator,
            "sandbox types are named `like-this` and tools `like_this`: a-z, 0-9 and the separator"
        );
        index += 1;
    }
}

/// JSON text in a constant; counts only while `N` is too small.
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            len: 0,
        }
    }

    const fn byte(mut self, byte: u8) -> Self {
        if self.len < N {
            self.bytes[self.len] = byte;
        }
        self.len += 1;
        self
    }

    const fn raw(mut self, text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut index = 0;
        while index < bytes.len() {
            self = self.byte(bytes[index]);
            index += 1;
        }
        self
    }

    const fn escaped(self, byte: u8) -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        match byte {
            b'"' | b'\\' => self.byte(b'\\').byte(byte),
            0..=0x1f => self
                .raw("\\u00")
                .byte(HEX[(byte >> 4) as usize])
                .byte(HEX[(byte & 15) as usize]),
            _ => self.byte(byte),
        }
    }

    const fn string(mut self, text: &str) -> Self {
        let bytes = text.as_bytes();
        self = self.byte(b'"');
        let mut index = 0;
        while index < bytes.len() {
            self = self.escaped(bytes[index]);
            index += 1;
        }
        self.byte(b'"')
    }

    /// Writes what `:` separates as an array of strings.
    const fn list(mut self, text: &str) -> Self {
        let bytes = text.as_bytes();
        if bytes.is_empty() {
            return self.raw("[]");
        }
        self = self.raw("[\"");
        let mut index = 0;
        while index < bytes.len() {
            self = if bytes[index] == b':' {
                self.raw("\",\"")
            } else {
                self.escaped(bytes[index])
            };
            index += 1;
        }
        self.raw("\"]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWKWARD: ConstManifest = ConstManifest {
        name: "na\"me\\",
        version: "1.2.3",
        description: "tab\tand ünïcode",
        authors: "A <a@example.org>:B",
        license: "",
        min_host_api: "1.0.0",
        sandbox_types: &[("one", Isolation::None), ("two-2", Isolation::Vm)],
        tools: &["first_tool", "second"],
        panic_abort: true,
    };

    #[test]
    fn the_constant_text_is_the_manifest() {
        const LEN: usize = AWKWARD.text_len();
        static BYTES: [u8; LEN] = AWKWARD.to_bytes();
        let manifest: Manifest = serde_json::from_slice(&BYTES).unwrap();
        assert_eq!(manifest.format, FORMAT);
        assert_eq!(manifest.name, AWKWARD.name);
        assert_eq!(manifest.description, AWKWARD.description);
        assert_eq!(manifest.authors, ["A <a@example.org>", "B"]);
        assert_eq!(manifest.api_version, crate::API_VERSION);
        assert_eq!(
            manifest.sandbox_types[1],
            ManifestSandboxType {
                name: "two-2".into(),
                isolation: Isolation::Vm
            }
        );
        assert_eq!(manifest.tools, AWKWARD.tools);
        assert!(manifest.panic_abort);
    }

    #[test]
    fn nothing_is_an_empty_list() {
        const EMPTY: ConstManifest = ConstManifest {
            authors: "",
            sandbox_types: &[],
            tools: &[],
            ..AWKWARD
        };
        const LEN: usize = EMPTY.text_len();
        let manifest: Manifest = serde_json::from_slice(&EMPTY.to_bytes::<LEN>()).unwrap();
        assert!(
            manifest.authors.is_empty()
                && manifest.sandbox_types.is_empty()
                && manifest.tools.is_empty()
        );
    }
}
