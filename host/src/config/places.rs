//! Where things are: the configuration itself, plugins, and what a host keeps.

use std::{env, path::PathBuf};

use etcetera::{BaseStrategy, base_strategy::Xdg};

use super::Config;

impl Config {
    /// Returns the file that is read when none is named: the user's, else the system's.
    pub fn default_path() -> Option<PathBuf> {
        let user = base().map(|base| base.config_dir().join("boxyard/boxyard.toml"));
        user.into_iter()
            .chain([PathBuf::from("/etc/boxyard/boxyard.toml")])
            .find(|path| path.exists())
    }

    /// Returns the directories that are searched for plugins, and whether someone named them.
    pub fn plugin_dirs(&self) -> (Vec<PathBuf>, bool) {
        if let Some(directories) = &self.plugin_dirs {
            return (directories.clone(), true);
        }
        let mut directories: Vec<PathBuf> = build_dir().into_iter().collect();
        directories.extend(user_plugin_dir());
        directories.push("/usr/lib/boxyard/plugins".into());
        (directories, false)
    }

    /// Returns where leases and plugins' data live.
    pub fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| {
            base().and_then(|base| base.state_dir()).map_or_else(
                || env::temp_dir().join(format!("boxyard-{}", rustix::process::getuid().as_raw())),
                |directory| directory.join("boxyard"),
            )
        })
    }

    /// Returns where `serve` keeps what outlives it.
    pub fn store_dir(&self) -> PathBuf {
        let store = self.store.clone();
        store.unwrap_or_else(|| self.state_dir().join("store"))
    }

    /// Returns where private copies of plugins live.
    pub fn cache_dir(&self) -> PathBuf {
        self.cache_dir.clone().unwrap_or_else(|| {
            base().map_or_else(
                || self.state_dir().join("cache"),
                |base| base.cache_dir().join("boxyard"),
            )
        })
    }
}

/// Returns where `plugins install` puts plugins; `None` without a home directory.
pub fn user_plugin_dir() -> Option<PathBuf> {
    base().map(|base| base.data_dir().join("boxyard/plugins"))
}

fn base() -> Option<Xdg> {
    Xdg::new().ok()
}

/// Returns the build directory that this program runs from, whose plugins are the workspace's own.
pub(crate) fn build_dir() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    let profile = program.parent()?;
    // Cargo marks its target directory with the first file and every profile with the second.
    let target = profile.parent()?;
    (target.join("CACHEDIR.TAG").exists() && profile.join(".cargo-lock").exists())
        .then(|| profile.to_path_buf())
}
