//! A plugin directory with everything that a host on it needs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use boxyard_host::{Config, Host, PluginReport};
use tempfile::TempDir;

use crate::Library;

/// A temporary plugin directory, with a host's state and cache beside it.
#[derive(Debug)]
pub struct Yard {
    root: TempDir,
    /// What hosts are started with; the directories are set.
    pub config: Config,
}

impl Yard {
    /// Makes an empty one that only this user can use.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new() -> Result<Self> {
        // The temporary directory may be behind a symbolic link, and reports name real paths.
        let parent = std::env::temp_dir().canonicalize()?;
        let root = tempfile::Builder::new()
            .prefix("boxyard-test-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        let plugins = root.path().join("plugins");
        fs::create_dir(&plugins)?;
        fs::set_permissions(&plugins, fs::Permissions::from_mode(0o700))?;
        let config = Config {
            plugin_dirs: Some(vec![plugins]),
            state_dir: Some(root.path().join("state")),
            cache_dir: Some(root.path().join("cache")),
            ..Config::default()
        };
        Ok(Self { root, config })
    }

    /// Returns the directory that everything is in; it is removed with this value.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Returns the plugin directory.
    pub fn plugins(&self) -> PathBuf {
        self.root().join("plugins")
    }

    /// Puts a library in the plugin directory, in place of what had the name.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn put(&self, name: &str, library: &Library) -> Result<PathBuf> {
        let path = self.plugins().join(name);
        // A new file in the place of the old one, as an installer does it.
        let aside = self.root().join("aside");
        fs::write(&aside, library.bytes())?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o644))?;
        fs::rename(&aside, &path)?;
        Ok(path)
    }

    /// Starts a host.
    ///
    /// # Errors
    ///
    /// The host does not start; that a plugin is refused is no error.
    pub async fn host(&self) -> Result<Host> {
        Ok(Host::start(self.config.clone()).await?)
    }

    /// Returns what a host reports of a file in the plugin directory.
    ///
    /// # Errors
    ///
    /// It reports nothing of it.
    pub fn report(&self, host: &Host, name: &str) -> Result<PluginReport> {
        let path = self.plugins().join(name);
        let mut reports = host.plugins().into_iter();
        reports
            .find(|report| report.path == path)
            .with_context(|| format!("the host reports nothing of {}", path.display()))
    }
}
