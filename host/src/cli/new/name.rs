//! What a plugin may be called.

use std::str::FromStr;

/// The longest name of a sandbox type.
const LONGEST: usize = 64;
/// In front of a package's name it says what the package is, and is no part of the type's name.
const PREFIX: &str = "boxyard-plugin-";
/// Crates that a crate cannot be called after.
const TAKEN: [&str; 13] = [
    "alloc",
    "boxyard-agent",
    "boxyard-conformance",
    "boxyard-host",
    "boxyard-plugin-api",
    "core",
    "proc-macro",
    "rustix",
    "schemars",
    "serde",
    "std",
    "test",
    "tokio",
];
/// The words of Rust that are lower case.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// The name of a plugin's package, from which all its other names come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PluginName(String);

/// Why a plugin cannot be called that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    /// It has the wrong characters.
    #[error(
        "expected lowercase letters, digits and single dashes, a letter first{}",
        near.as_ref().map(|near| format!("; `{near}` would do")).unwrap_or_default()
    )]
    Shape {
        /// The nearest name that fits.
        near: Option<String>,
    },
    /// Hosts would not take the type.
    #[error("expected at most {LONGEST} characters, found {found}")]
    Length {
        /// How many it has.
        found: usize,
    },
    /// Rust means something else by it.
    #[error("it is a keyword of Rust, which no crate can be called; `{0}-sandbox` would do")]
    Keyword(String),
    /// It would be in the way of a crate that every plugin needs.
    #[error("it is a crate that plugins use themselves; `my-{0}` would do")]
    Taken(String),
}

impl PluginName {
    /// Returns the name of the package.
    pub(super) fn package(&self) -> &str {
        &self.0
    }

    /// Returns the name of the crate, which its library's file has.
    pub(super) fn library(&self) -> String {
        self.0.replace('-', "_")
    }

    /// Returns the name of the sandbox type.
    pub(super) fn sandbox_type(&self) -> &str {
        self.0.strip_prefix(PREFIX).unwrap_or(&self.0)
    }
}

impl FromStr for PluginName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if !is_kebab(name) {
            let near = Some(kebab(name)).filter(|near| is_kebab(near));
            let near = near.filter(|near| near.parse::<Self>().is_ok());
            return Err(NameError::Shape { near });
        }
        if name.len() > LONGEST {
            return Err(NameError::Length { found: name.len() });
        }
        if KEYWORDS.contains(&name) {
            return Err(NameError::Keyword(name.into()));
        }
        if TAKEN.contains(&name) {
            return Err(NameError::Taken(name.into()));
        }
        Ok(Self(name.into()))
    }
}

fn is_kebab(name: &str) -> bool {
    let is_word = |word: &str| {
        let mut bytes = word.bytes();
        !word.is_empty() && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.split('-').all(is_word)
}

/// Turns `DemoBox`, `demo_box` and `demo box` into `demo-box`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    let mut after_lowercase = false;
    for character in name.chars() {
        let starts_word = !character.is_ascii_alphanumeric()
            || (character.is_ascii_uppercase() && after_lowercase);
        if starts_word && !kebab.is_empty() && !kebab.ends_with('-') {
            kebab.push('-');
        }
        if character.is_ascii_alphanumeric() {
            kebab.push(character.to_ascii_lowercase());
        }
        after_lowercase = character.is_ascii_lowercase();
    }
    let kebab = kebab.trim_end_matches('-');
    let starts = |character: char| character.is_ascii_digit() || character == '-';
    kebab.trim_start_matches(starts).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Result<PluginName, String> {
        name.parse().map_err(|error: NameError| error.to_string())
    }

    #[test]
    fn every_other_name_comes_from_the_packages() {
        let name = parse("demo-box2").unwrap();
        assert_eq!(
            (name.package(), name.library().as_str(), name.sandbox_type()),
            ("demo-box2", "demo_box2", "demo-box2")
        );
        let name = parse("boxyard-plugin-jail").unwrap();
        assert_eq!(name.package(), "boxyard-plugin-jail");
        assert_eq!(name.sandbox_type(), "jail");
    }

    #[test]
    fn a_name_that_does_not_fit_says_which_would() {
        let longest = "a".repeat(LONGEST);
        assert!(parse(&longest).is_ok());
        for (name, expected) in [
            ("", "a letter first"),
            ("-", "a letter first"),
            ("Demo", "`demo` would do"),
            ("demo_box", "`demo-box` would do"),
            ("DemoBox", "`demo-box` would do"),
            ("demo--box", "`demo-box` would do"),
            ("demo-", "`demo` would do"),
            ("../demo box", "`demo-box` would do"),
            ("9pfs", "`pfs` would do"),
            ("bücher", "`b-cher` would do"),
            ("box", "`box-sandbox` would do"),
            ("async", "keyword of Rust"),
            ("serde", "`my-serde` would do"),
            ("boxyard-plugin-api", "crate that plugins use"),
            ("boxyard-plugin-", "`boxyard-plugin` would do"),
            (&format!("{longest}a"), "at most 64 characters, found 65"),
        ] {
            let error = parse(name).unwrap_err();
            assert!(error.contains(expected), "{name}: {error}");
        }
        // No suggestion that would be refused, too.
        assert!(!parse("Box").unwrap_err().contains("would do"));
    }
}
