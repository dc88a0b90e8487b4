//! A shared library, to be altered byte by byte.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use serde_json::{Map, Value};

use crate::cargo;

/// What every manifest starts with.
const MANIFEST_START: &[u8] = br#"{"format":1,"name":""#;

/// What goes in front of the version of a Rust compiler, in all that it compiles.
const COMPILER: &[u8] = b"rustc version ";

/// A shared library's bytes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Library {
    bytes: Arc<Vec<u8>>,
    /// Where its manifest is; `None` where it has none.
    manifest: Option<Range<usize>>,
}

impl Library {
    /// Returns a fixture of this package, built once for all tests.
    ///
    /// Examples have their package's name; this one is called what its fixture is called.
    ///
    /// # Errors
    ///
    /// It does not build, or there is no such fixture.
    pub fn example(name: &str) -> Result<Self> {
        Self::built(name, |library| {
            if library.manifest.is_none() {
                return Ok(library);
            }
            library.with("name", name)
        })
    }

    /// Returns the plugin of a package of this workspace, built once for all tests.
    ///
    /// # Errors
    ///
    /// It does not build, or there is no such plugin.
    pub fn package(name: &str) -> Result<Self> {
        Self::built(&name.replace('-', "_"), Ok)
    }

    fn built(target: &str, finish: impl FnOnce(Self) -> Result<Self>) -> Result<Self> {
        static READ: Mutex<BTreeMap<String, Library>> = Mutex::new(BTreeMap::new());
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = read.get(target) {
            return Ok(library.clone());
        }
        let path = cargo::build_workspace()?
            .get(target)
            .with_context(|| format!("the workspace has no plugin `{target}`"))?;
        let library = finish(Self::read(path)?)?;
        read.insert(target.into(), library.clone());
        Ok(library)
    }

    /// Reads a library from a file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::from_bytes(bytes))
    }

    /// Takes any bytes for a library.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let manifest = memmem::find(&bytes, MANIFEST_START).and_then(|start| {
            let mut values =
                serde_json::Deserializer::from_slice(bytes.get(start..)?).into_iter::<Value>();
            values.next()?.ok()?;
            Some(start..start + values.byte_offset())
        });
        Self {
            bytes: Arc::new(bytes),
            manifest,
        }
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the versions of the Rust compilers that made it, as its linker noted them.
    pub fn compilers(&self) -> BTreeSet<String> {
        let notes = memmem::find_iter(&self.bytes, COMPILER).filter_map(|at| {
            let note = self.bytes.get(at + COMPILER.len()..)?;
            let version = note.split(|byte| matches!(byte, b' ' | b'\0')).next()?;
            let version = std::str::from_utf8(version).ok()?;
            // Not a program that looks for such notes itself.
            version
                .starts_with(|first: char| first.is_ascii_digit())
                .then(|| version.to_owned())
        });
        notes.collect()
    }

    /// Returns its manifest.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn manifest(&self) -> Result<Map<String, Value>> {
        let range = self.manifest.clone();
        let range = range.context("the library has no manifest")?;
        let text = self.bytes.get(range).unwrap_or_default();
        Ok(serde_json::from_slice(text)?)
    }

    /// Changes a value in its manifest.
    ///
    /// The description gives way where the new manifest would be longer.
    ///
    /// # Errors
    ///
    /// It has no manifest, or the new one is longer without any description.
    pub fn with(&self, key: &str, value: impl Into<Value>) -> Result<Self> {
        let mut manifest = self.manifest()?;
        manifest.insert(key.into(), value.into());
        let mut text = serde_json::to_string(&manifest)?;
        if self
            .manifest
            .as_ref()
            .is_some_and(|range| text.len() > range.len())
        {
            manifest.remove("description");
            text = serde_json::to_string(&manifest)?;
        }
        self.with_manifest(&text)
    }

    /// Puts any text in the place of its manifest, filled up with spaces.
    ///
    /// # Errors
    ///
    /// It has no manifest, or a shorter one.
    pub fn with_manifest(&self, text: &str) -> Result<Self> {
        let range = self.manifest.clone();
        let range = range.context("the library has no manifest")?;
        ensure!(
            text.len() <= range.len(),
            "the manifest has {} bytes, too few for {text}",
            range.len()
        );
        let padded = text.bytes().chain(std::iter::repeat(b' '));
        let padded: Vec<u8> = padded.take(range.len()).collect();
        let mut library = self.with_bytes_at(range.start, &padded)?;
        library.manifest = Some(range);
        Ok(library)
    }

    /// Writes over some of its bytes.
    ///
    /// # Errors
    ///
    /// There are no such bytes.
    pub fn with_bytes_at(&self, at: usize, bytes: &[u8]) -> Result<Self> {
        let mut changed = self.clone();
        let all = Arc::make_mut(&mut changed.bytes);
        all.get_mut(at..at + bytes.len())
            .with_context(|| format!("the library has no {} bytes at {at}", bytes.len()))?
            .copy_from_slice(bytes);
        Ok(changed)
    }

    /// Writes over every place where some bytes are, with as many others.
    ///
    /// # Errors
    ///
    /// The bytes are nowhere, or are not as many.
    pub fn replacing(&self, old: &[u8], new: &[u8]) -> Result<Self> {
        ensure!(old.len() == new.len(), "only bytes of one length fit");
        let places: Vec<usize> = memmem::find_iter(&self.bytes, old).collect();
        ensure!(!places.is_empty(), "the bytes are not in the library");
        places
            .into_iter()
            .try_fold(self.clone(), |library, at| library.with_bytes_at(at, new))
    }
}
