//! Which directories of the host and which volumes a configuration may mount.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use bollard::models::Mount;
use boxyard_plugin_api::prelude::*;

use super::refused;
use crate::{
    config::{Config, Mode, Volume},
    container,
    engine::{Endpoint, Facts},
    settings::Settings,
};

/// Where engines keep what rules the whole machine; whoever can write there is root on it.
const ENGINES: [&str; 7] = [
    "/run/docker.sock",
    "/run/docker",
    "/run/containerd",
    "/run/podman",
    "/run/crio",
    "/var/lib/containerd",
    "/var/lib/containers",
];

pub(super) fn check(
    settings: &Settings,
    config: &Config,
    endpoint: &Endpoint,
    facts: &Facts,
) -> Result<Vec<Mount>> {
    let engine = Guard::new(endpoint, facts);
    let all = config.volumes.iter();
    all.map(|(source, volume)| {
        if source.starts_with('/') {
            let path = check_path(settings, source, volume, endpoint, &engine)?;
            Ok(container::bind(path, volume.bind(), volume.mode()))
        } else if settings.allowed_volumes.contains(source) {
            Ok(container::volume(source, volume.bind(), volume.mode()))
        } else {
            Err(refused(
                "volumes",
                source,
                format_args!("allowed_volumes = [{source:?}]"),
            ))
        }
    })
    .collect()
}

/// Returns the path to mount: what the source leads to, should it be changed meanwhile.
fn check_path(
    settings: &Settings,
    source: &str,
    volume: &Volume,
    endpoint: &Endpoint,
    engine: &Guard,
) -> Result<String> {
    let not_allowed = || {
        refused(
            "volumes",
            source,
            format_args!("allowed_mounts = [{source:?}]"),
        )
    };
    if settings.allowed_mounts.is_empty() {
        return Err(not_allowed());
    }
    if !endpoint.is_local() {
        return Err(Error::permission_denied(format_args!(
            "volumes: {source} is not allowed: the engine at {endpoint} may be another machine, \
             where links in the path cannot be looked at"
        )));
    }
    let resolved = match Path::new(source).canonicalize() {
        Ok(resolved) => resolved,
        // Whether something is there is told only of places that could be mounted.
        Err(error) => {
            let near = nearest(Path::new(source));
            return Err(
                match near.filter(|near| !modes(settings, near).is_empty()) {
                    Some(_) => Error::from(error).context(format_args!("volumes: {source}")),
                    None => not_allowed(),
                },
            );
        }
    };
    let modes = modes(settings, &resolved);
    if modes.is_empty() {
        return Err(not_allowed());
    }
    if engine.is_near(&resolved) {
        return Err(Error::permission_denied(format_args!(
            "volumes: {source} is never allowed: it holds an engine's own socket or files, which \
             rule the whole machine"
        )));
    }
    if volume.mode() == Mode::ReadWrite && !modes.contains(&Mode::ReadWrite) {
        return Err(refused(
            "volumes",
            format_args!("{source} with mode `rw`"),
            format_args!("allowed_mounts = [{source:?}]"),
        ));
    }
    let path = resolved.into_os_string().into_string();
    path.map_err(|path| {
        Error::invalid_argument(format_args!(
            "volumes: {source} leads to {}, which is not UTF-8",
            path.display()
        ))
    })
}

/// Returns how a path without links may be mounted.
fn modes(settings: &Settings, resolved: &Path) -> Vec<Mode> {
    let allowed = settings.allowed_mounts.iter().filter(|allowed| {
        let path = allowed.path.canonicalize();
        path.is_ok_and(|path| resolved.starts_with(path))
    });
    let modes = allowed.map(|allowed| match allowed.read_only {
        true => Mode::ReadOnly,
        false => Mode::ReadWrite,
    });
    modes.collect()
}

/// Returns where the part of a path leads to that is there, unless a link that leads nowhere
/// follows it.
fn nearest(path: &Path) -> Option<PathBuf> {
    for part in path.ancestors() {
        match part.canonicalize() {
            Ok(resolved) => return Some(resolved),
            Err(_) if part.symlink_metadata().is_ok() => return None,
            Err(_) => {}
        }
    }
    None
}

/// What of the engine's must not be mounted, whatever the settings say.
struct Guard {
    paths: Vec<PathBuf>,
    /// The device and number of the engine's socket, which may have more names than one.
    socket: Option<(u64, u64)>,
}

impl Guard {
    fn new(endpoint: &Endpoint, facts: &Facts) -> Self {
        let mut paths: Vec<PathBuf> = ENGINES.iter().map(PathBuf::from).collect();
        if !facts.root_dir.is_empty() {
            paths.push(facts.root_dir.clone().into());
        }
        let mut socket = None;
        if let Endpoint::Unix(path) = endpoint {
            paths.push(path.clone());
            socket = identity(path);
        }
        for path in &mut paths {
            if let Ok(resolved) = path.canonicalize() {
                *path = resolved;
            }
        }
        Self { paths, socket }
    }

    /// Whether a path is, holds or is in one of the engine's.
    fn is_near(&self, path: &Path) -> bool {
        let mut paths = self.paths.iter();
        paths.any(|own| own.starts_with(path) || path.starts_with(own))
            || (self.socket.is_some() && identity(path) == self.socket)
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
