//! Where the engine is, found as docker's own tools find it.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use boxyard_plugin_api::prelude::*;
use sha2::{Digest, Sha256};

use crate::hex::hex;

/// Where an engine listens when nobody says otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// The port that `tcp://` means when it names none.
const DEFAULT_PORT: u16 = 2375;

/// What the process's environment says about engines, read once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `DOCKER_HOST`.
    pub(crate) host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub(crate) context: Option<String>,
    /// Whether `DOCKER_TLS_VERIFY` or `DOCKER_TLS` is set.
    pub(crate) tls: bool,
    /// `XDG_RUNTIME_DIR`.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// The directory of docker's own files: `DOCKER_CONFIG`, else `~/.docker`.
    pub(crate) config_dir: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process, which is frozen when plugins are opened.
    pub(crate) fn of_process() -> Self {
        let text = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name| text(name).map(PathBuf::from);
        Self {
            host: text("DOCKER_HOST"),
            context: text("DOCKER_CONTEXT"),
            tls: text("DOCKER_TLS_VERIFY").or(text("DOCKER_TLS")).is_some(),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            config_dir: path("DOCKER_CONFIG")
                .or_else(|| path("HOME").map(|home| home.join(".docker"))),
        }
    }
}

/// An address that an engine listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A host and port, unencrypted.
    Tcp(String),
}

impl Endpoint {
    /// Reads an address as docker's tools spell it.
    pub(crate) fn parse(host: &str) -> Result<Self> {
        let refused = |why: &str| Err(Error::invalid_argument(format_args!("`{host}`: {why}")));
        let Some((scheme, rest)) = host.split_once("://") else {
            return refused("expected `unix:///path/to.sock` or `tcp://host:port`");
        };
        match scheme {
            "unix" if Path::new(rest).is_absolute() => Ok(Self::Unix(rest.into())),
            "unix" => refused("expected the socket's absolute path after `unix://`"),
            "tcp" | "http" => match rest.trim_end_matches('/') {
                "" => refused("expected a host after `//`"),
                rest if rest.contains(['/', '@', '?', '#', ' ']) => {
                    refused("expected nothing but a host and a port after `//`")
                }
                rest => Ok(Self::Tcp(with_port(rest))),
            },
            "ssh" => refused(
                "engines are not reached over ssh: forward the socket (`ssh -nNT -L \
                 /tmp/engine.sock:/var/run/docker.sock HOST`) and name it as \
                 `unix:///tmp/engine.sock`",
            ),
            "https" => refused(TLS),
            _ => refused("expected one of the schemes `unix`, `tcp` and `http`"),
        }
    }

    /// Returns whether paths of this machine mean something to the engine, as far as an address
    /// can say.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

const TLS: &str = "engines are not reached over TLS: forward the socket over ssh (`ssh -nNT -L \
                   /tmp/engine.sock:/var/run/docker.sock HOST`) and name it as \
                   `unix:///tmp/engine.sock`";

fn with_port(address: &str) -> String {
    // A colon inside the brackets of an IPv6 address parts no port.
    let after_host = address.rsplit_once(']').map_or(address, |(_, rest)| rest);
    if after_host.contains(':') {
        address.into()
    } else {
        format!("{address}:{DEFAULT_PORT}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Who said where the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The operator's settings.
    Settings,
    /// `DOCKER_HOST`.
    Host,
    /// A context of docker's own, by name.
    Context(String),
    /// Nobody: it is where engines usually are.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => f.write_str("the plugin setting `host`"),
            Self::Host => f.write_str("DOCKER_HOST"),
            Self::Context(name) => write!(f, "docker context `{name}`"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Where to look for the engine: the first address that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) origin: Origin,
    first: Endpoint,
    others: Vec<Endpoint>,
}

impl Address {
    /// Finds it: the operator's setting, `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context,
    /// the usual sockets.
    pub(crate) fn find(host: Option<&str>, environment: &Environment) -> Result<Self> {
        let one = |origin: Origin, host: &str| {
            let first = Endpoint::parse(host).map_err(|error| error.context(&origin))?;
            Ok(Self {
                origin,
                first,
                others: Vec::new(),
            })
        };
        if let Some(host) = host {
            return one(Origin::Settings, host);
        }
        let found = if let Some(host) = &environment.host {
            one(Origin::Host, host)?
        } else {
            match context(environment)? {
                Some(name) => {
                    let host = context_host(environment, &name)?;
                    one(Origin::Context(name), &host)?
                }
                None => Self::usual(environment),
            }
        };
        if environment.tls && !found.first.is_local() {
            return Err(Error::invalid_argument(format_args!(
                "DOCKER_TLS_VERIFY: {TLS}"
            )));
        }
        Ok(found)
    }

    fn usual(environment: &Environment) -> Self {
        let rootless = environment.runtime_dir.as_ref();
        Self {
            origin: Origin::Default,
            first: Endpoint::Unix(DEFAULT_SOCKET.into()),
            others: Vec::from_iter(rootless.map(|dir| Endpoint::Unix(dir.join("docker.sock")))),
        }
    }

    /// Returns the address to connect to now: the first whose socket is there, else the first.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        let is_there = |endpoint: &&Endpoint| match endpoint {
            Endpoint::Unix(path) => path.exists(),
            Endpoint::Tcp(_) => true,
        };
        let mut all = std::iter::once(&self.first).chain(&self.others);
        all.find(is_there).unwrap_or(&self.first)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.endpoint(), self.origin)
    }
}

/// Returns the context to use; `None` for the built-in one.
fn context(environment: &Environment) -> Result<Option<String>> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct DockerConfig {
        current_context: String,
    }

    let name = match (&environment.context, &environment.config_dir) {
        (Some(name), _) => name.clone(),
        (None, Some(directory)) => {
            let file = directory.join("config.json");
            let config: Option<DockerConfig> = read_json(&file)?;
            config.unwrap_or_default().current_context
        }
        (None, None) => String::new(),
    };
    Ok(Some(name).filter(|name| !name.is_empty() && name != "default"))
}

/// Returns the address in a context's own file.
fn context_host(environment: &Environment, name: &str) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Meta {
        endpoints: Endpoints,
    }
    #[derive(Deserialize)]
    struct Endpoints {
        docker: Docker,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Docker {
        #[serde(default)]
        host: String,
    }

    let doing = || format!("docker context `{name}`");
    let Some(directory) = &environment.config_dir else {
        return Err(Error::failed_precondition(
            "neither DOCKER_CONFIG nor HOME says where docker's contexts are",
        )
        .context(doing()));
    };
    let contexts = directory.join("contexts");
    let id = hex(&Sha256::digest(name.as_bytes()));
    let file = contexts.join("meta").join(&id).join("meta.json");
    let meta: Option<Meta> = read_json(&file).map_err(|error| error.context(doing()))?;
    let Some(meta) = meta else {
        return Err(Error::not_found(format_args!(
            "{} is not there: `docker context ls` lists the contexts",
            file.display()
        ))
        .context(doing()));
    };
    let host = meta.endpoints.docker.host;
    if contexts.join("tls").join(&id).exists() && !host.starts_with("unix://") {
        return Err(Error::invalid_argument(TLS).context(doing()));
    }
    Ok(host)
}

/// Reads one of docker's files; `None` when it is not there.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::from(error).context(file.display())),
    };
    let read = serde_json::from_slice(&text).map(Some);
    read.map_err(|error| Error::from(error).context(file.display()))
}

#[cfg(test)]
mod tests;
