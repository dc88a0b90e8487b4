//! The engine: found, spoken to in a version that both sides know, and asked what it is.

mod dialect;
pub(crate) mod endpoint;
mod facts;
mod failure;
mod health;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, BollardRequest, ClientVersion, Docker, models::SystemVersion};
use boxyard_plugin_api::prelude::*;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::time::timeout;

use self::endpoint::Address;
#[cfg(test)]
pub(crate) use self::facts::Limits;
pub(crate) use self::{
    dialect::Dialect,
    endpoint::{Endpoint, Environment},
    facts::{Facts, Kind},
    failure::{Doing, failure, is_being_removed, is_overtaken, is_unseen_mount, remedy},
};

/// The engine 20.10 speaks it, the oldest that gives everything that is used here.
const OLDEST: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 41,
};
/// How long an engine may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);
/// How long any other request may take to be answered. Long, for a busy engine makes hundreds of
/// containers one after the other; a caller that has waited enough cancels.
const ANSWER: Duration = Duration::from_secs(300);

/// An engine, which may come and go.
#[derive(Debug)]
pub(crate) struct Engine {
    /// Where it is, or why that is not known.
    address: Result<Address>,
    environment: Environment,
    acquaintance: Mutex<Acquaintance>,
}

/// How far it is with finding out who the engine is.
#[derive(Debug, Default)]
enum Acquaintance {
    #[default]
    None,
    /// Somebody needs it and asks. Whoever comes meanwhile waits for the same answer; it is broken
    /// off when nobody does any more.
    Asking(WeakShared<Greeting>),
    /// It is kept: every request connects anew.
    Made(Arc<Connection>),
}

type Greeting = BoxFuture<'static, Result<Arc<Connection>>>;

/// An engine that answered, in the version that it is spoken to in.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) docker: Docker,
    pub(crate) endpoint: Endpoint,
    pub(crate) facts: Facts,
}

impl Engine {
    /// Takes the engine that the operator's `host` or the environment names. Nothing is connected
    /// yet, and an address that is wrong is what [`Engine::probe`] will say.
    pub(crate) fn connect(host: Option<&str>, environment: Environment) -> Self {
        Self {
            address: Address::find(host, &environment),
            environment,
            acquaintance: Mutex::default(),
        }
    }

    /// Returns the line to the engine.
    pub(crate) async fn docker(&self) -> Result<Docker> {
        Ok(self.connection().await?.docker.clone())
    }

    /// Returns the line to the engine with what is known of it, connecting if nobody did.
    ///
    /// # Errors
    ///
    /// What [`Engine::probe`] says, under the code of its cause.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>> {
        let greeting = match &mut *self.acquaintance() {
            Acquaintance::Made(connection) => return Ok(Arc::clone(connection)),
            acquaintance => self.join(acquaintance),
        };
        let connection = greeting.await?;
        *self.acquaintance() = Acquaintance::Made(Arc::clone(&connection));
        Ok(connection)
    }

    /// Asks the engine anew who it is: it may have been replaced by another version.
    pub(crate) async fn reconnect(&self) -> Result<Arc<Connection>> {
        let greeted = greet(self.address.clone()).await;
        *self.acquaintance() = match &greeted {
            Ok(connection) => Acquaintance::Made(Arc::clone(connection)),
            Err(_) => Acquaintance::None,
        };
        greeted
    }

    fn acquaintance(&self) -> MutexGuard<'_, Acquaintance> {
        let acquaintance = self.acquaintance.lock();
        acquaintance.unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins those who wait for the engine to say who it is, or asks.
    fn join(&self, acquaintance: &mut Acquaintance) -> Shared<Greeting> {
        if let Acquaintance::Asking(greeting) = acquaintance
            && let Some(greeting) = greeting.upgrade()
            // What failed is tried anew, also before all who waited have heard of it.
            && greeting.peek().is_none()
        {
            return greeting;
        }
        let greeting = greet(self.address.clone()).boxed().shared();
        if let Some(asked) = greeting.downgrade() {
            *acquaintance = Acquaintance::Asking(asked);
        }
        greeting
    }
}

async fn greet(address: Result<Address>) -> Result<Arc<Connection>> {
    let address = address?;
    let asked = timeout(GREETING, Connection::open(address.endpoint().clone())).await;
    let answer = asked.unwrap_or_else(|_| {
        Err(Error::unavailable(format_args!(
            "it did not answer within {} s: look at the engine's own log",
            GREETING.as_secs()
        ))
        .retryable())
    });
    answer
        .map(Arc::new)
        .map_err(|error| error.context(format_args!("the engine at {address}")))
}

impl Connection {
    async fn open(endpoint: Endpoint) -> Result<Self> {
        let docker = line(&endpoint)?;
        let answered = docker.version().await;
        let version = answered.map_err(|error| health::explain(&endpoint, error))?;
        let spoken = negotiate(&version)?;
        let docker = docker.with_request_modifier(move |request| versioned(request, spoken));
        let info = docker.info().await.map_err(failure)?;
        let facts = Facts::new(&version, &info);
        tracing::debug!(%endpoint, version = %facts.version, api = %spoken, "the engine answers");
        Ok(Self {
            docker,
            endpoint,
            facts,
        })
    }
}

fn line(endpoint: &Endpoint) -> Result<Docker> {
    let seconds = ANSWER.as_secs();
    let made = match endpoint {
        Endpoint::Unix(path) => {
            let path = path.to_str().ok_or_else(|| {
                Error::invalid_argument(format_args!("{endpoint}: the path is not UTF-8"))
            })?;
            Docker::connect_with_unix(path, seconds, API_DEFAULT_VERSION)
        }
        Endpoint::Tcp(address) => Docker::connect_with_http(address, seconds, API_DEFAULT_VERSION),
    };
    made.map_err(|error| health::explain(endpoint, error))
}

/// Returns the newest version of the API that both sides know.
fn negotiate(engine: &SystemVersion) -> Result<ClientVersion> {
    let newest = engine.api_version.as_deref().and_then(parse_version);
    let Some(newest) = newest else {
        return Err(Error::failed_precondition(format_args!(
            "what answers is no Docker engine: its API version is {:?}",
            engine.api_version
        )));
    };
    let name = engine.version.as_deref().unwrap_or("of unknown version");
    if newest < OLDEST {
        return Err(Error::failed_precondition(format_args!(
            "the engine {name} is too old: it speaks API {newest}, and {OLDEST} (Docker 20.10) or \
             newer is needed"
        )));
    }
    let oldest = engine.min_api_version.as_deref().and_then(parse_version);
    if let Some(oldest) = oldest.filter(|oldest| oldest > API_DEFAULT_VERSION) {
        return Err(Error::failed_precondition(format_args!(
            "the engine {name} is too new: it speaks API {oldest} and newer, this plugin up to \
             {API_DEFAULT_VERSION}"
        )));
    }
    Ok(if newest < *API_DEFAULT_VERSION {
        newest
    } else {
        *API_DEFAULT_VERSION
    })
}

fn parse_version(text: &str) -> Option<ClientVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ClientVersion {
        major_version: major.parse().ok()?,
        minor_version: minor.parse().ok()?,
    })
}

/// Puts right what bollard sends: it leaves the version out of the path, so that an engine
/// answers in whatever version is its newest, and writes credentials in an alphabet of base64
/// that engines do not read.
fn versioned(mut request: BollardRequest, version: ClientVersion) -> BollardRequest {
    let uri = request.uri();
    if let (Some(scheme), Some(authority), Some(rest)) =
        (uri.scheme_str(), uri.authority(), uri.path_and_query())
        && let Ok(uri) = format!("{scheme}://{authority}/v{version}{rest}").parse()
    {
        *request.uri_mut() = uri;
    }
    if let Some(header) = request.headers_mut().get_mut("X-Registry-Auth") {
        let urlsafe = header
            .to_str()
            .map(|text| text.replace('+', "-").replace('/', "_"));
        if let Some(value) = urlsafe.ok().and_then(|text| text.parse().ok()) {
            *header = value;
            header.set_sensitive(true);
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(newest: &str, oldest: &str) -> SystemVersion {
        SystemVersion {
            version: Some("1.2.3".into()),
            api_version: Some(newest.into()),
            min_api_version: Some(oldest.into()),
            ..SystemVersion::default()
        }
    }

    #[test]
    fn the_newest_version_that_both_know_is_spoken() {
        for (newest, oldest, expected) in [
            ("1.41", "1.12", Ok("1.41")),
            ("1.47", "1.24", Ok("1.47")),
            ("1.99", "1.44", Ok("1.53")),
            ("1.40", "1.12", Err("too old")),
            ("2.10", "2.0", Err("too new")),
            ("", "", Err("no Docker engine")),
        ] {
            match (negotiate(&version(newest, oldest)), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.to_string(), expected),
                (Err(error), Err(named)) => {
                    assert_eq!(error.code(), ErrorCode::FAILED_PRECONDITION);
                    assert!(error.message().contains(named), "{error}");
                }
                (found, _) => panic!("{newest}: {found:?}"),
            }
        }
    }
}
