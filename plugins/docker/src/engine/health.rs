//! Whether the engine can be used, and if not, why and what to do.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use bollard::errors::Error as EngineError;
use boxyard_plugin_api::prelude::*;

use super::{
    Engine, Environment,
    endpoint::{Endpoint, Origin},
    facts::Facts,
    failure::{failure, system_error},
};

impl Engine {
    /// Asks the engine whether containers can be made, and says what is wrong and what to do.
    pub(crate) async fn probe(&self) -> Health {
        match self.reconnect().await {
            Ok(connection) => health_of(&connection.facts),
            Err(error) => {
                let elsewhere = match &self.address {
                    Ok(address) if address.origin == Origin::Default => {
                        podman_socket(&self.environment)
                    }
                    _ => None,
                };
                Health::unhealthy(match elsewhere {
                    Some(socket) => format!(
                        "{error}; Podman listens at {0}: set DOCKER_HOST=unix://{0} to use it",
                        socket.display()
                    ),
                    None => error.message().to_owned(),
                })
            }
        }
    }
}

fn health_of(facts: &Facts) -> Health {
    if facts.os != "linux" {
        return Health::unhealthy(format!(
            "the engine runs {} containers, and Linux ones are needed",
            facts.os
        ));
    }
    let missing: Vec<&str> = facts.limits.ignored().collect();
    if missing.is_empty() {
        Health::healthy()
    } else {
        Health::degraded(format!(
            "the engine cannot limit what containers use: {} will do nothing; it needs cgroups that \
             it may write{}",
            missing.join(", "),
            if facts.rootless {
                ", which without root are those of cgroup v2 with delegation"
            } else {
                ""
            }
        ))
    }
}

/// Says why an engine did not answer, and what to do.
pub(super) fn explain(endpoint: &Endpoint, error: EngineError) -> Error {
    use io::ErrorKind;
    let kind = match &error {
        EngineError::SocketNotFoundError(path) => {
            // A directory that may not be entered hides the socket.
            let found = Path::new(path).metadata();
            Some(
                found
                    .err()
                    .map_or(ErrorKind::NotFound, |error| error.kind()),
            )
        }
        EngineError::JsonDataError { .. } | EngineError::DockerResponseServerError { .. } => {
            return Error::failed_precondition(format_args!(
                "what answers is no Docker engine: {}",
                failure(error)
            ));
        }
        error => system_error(error).map(io::Error::kind),
    };
    match (endpoint, kind) {
        (Endpoint::Unix(path), Some(ErrorKind::NotFound)) => Error::unavailable(format_args!(
            "there is no socket {}: install Docker and start it (`sudo systemctl start docker`), \
             or name another engine with DOCKER_HOST",
            path.display()
        ))
        .retryable(),
        (Endpoint::Unix(path), Some(ErrorKind::PermissionDenied)) => {
            Error::permission_denied(format_args!(
                "this user may not use {}: add the user to the group `{}` (`sudo usermod -aG {1} \
                 USER`) and log in again",
                path.display(),
                group_of(path)
            ))
        }
        (Endpoint::Unix(path), Some(ErrorKind::ConnectionRefused)) if !is_socket(path) => {
            Error::failed_precondition(format_args!("{} is no socket", path.display()))
        }
        (Endpoint::Unix(path), Some(ErrorKind::ConnectionRefused)) => {
            Error::unavailable(format_args!(
                "nobody listens on {}, the daemon is down: start it (`sudo systemctl start docker`)",
                path.display()
            ))
            .retryable()
        }
        (Endpoint::Tcp(address), Some(ErrorKind::ConnectionRefused)) => {
            Error::unavailable(format_args!(
                "nobody listens on {address}: start the daemon there, or correct the address"
            ))
            .retryable()
        }
        _ => failure(error),
    }
}

fn is_socket(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Returns the name of a file's group: `docker`, as a rule.
fn group_of(path: &Path) -> String {
    let id = path.metadata().map_or(0, |metadata| metadata.gid());
    if id == 0 {
        return "docker".into();
    }
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id.to_string()).then_some(name)
    });
    name.map_or_else(|| id.to_string(), str::to_owned)
}

fn podman_socket(environment: &Environment) -> Option<PathBuf> {
    let rootless = environment.runtime_dir.as_ref();
    let sockets = rootless.map(|dir| dir.join("podman/podman.sock"));
    let sockets = sockets
        .into_iter()
        .chain([PathBuf::from("/run/podman/podman.sock")]);
    sockets.into_iter().find(|socket| is_socket(socket))
}
