//! API keys: random, shown once, kept as their hashes.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::hex;

/// What every key begins with, so that one that leaked is found for what it is.
const PREFIX: &str = "byk_";
/// More than 256 bits in an alphabet of 62.
const LENGTH: usize = 43;

/// Makes a new key.
pub(crate) fn generate() -> String {
    format!(
        "{PREFIX}{}",
        nanoid::nanoid!(LENGTH, &nanoid::alphabet::SAFE)
    )
}

/// Returns what is kept of a key.
pub(crate) fn hash(key: &str) -> String {
    hex::text(&Sha256::digest(key.as_bytes()))
}

/// The keys that a server accepts.
#[derive(Debug)]
pub(super) struct Keys(Vec<(String, String)>);

impl Keys {
    pub(super) fn new(keys: &BTreeMap<String, String>) -> Self {
        let lower = |(name, hash): (&String, &String)| (name.clone(), hash.to_ascii_lowercase());
        Self(keys.iter().map(lower).collect())
    }

    /// Whether a key is asked for at all.
    pub(super) fn are_asked_for(&self) -> bool {
        !self.0.is_empty()
    }

    /// Returns the name of a key, in a time that says nothing about which one it is.
    pub(super) fn name_of(&self, key: &str) -> Option<&str> {
        let given = hash(key);
        let mut found = None;
        for (name, hash) in &self.0 {
            if bool::from(hash.as_bytes().ct_eq(given.as_bytes())) {
                found = Some(name.as_str());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_hash_alone() {
        let (key, other) = (generate(), generate());
        assert_ne!(key, other);
        let keys = Keys::new(&BTreeMap::from([
            ("ci".to_owned(), hash(&key).to_uppercase()),
            ("me".to_owned(), hash(&other)),
        ]));
        assert_eq!(keys.name_of(&key), Some("ci"));
        assert_eq!(keys.name_of(&other), Some("me"));
        assert_eq!(keys.name_of("byk_"), None);
        assert!(!format!("{keys:?}").contains(&key));
    }
}
