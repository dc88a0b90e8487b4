//! The HTTP server: ms-enclave's routes, and the first of Boxyard's own.
//!
//! Every handler translates a request to the manager's calls and the answer back. A client that goes
//! away drops its handler: commands and tools end with it, creations and deletions run to their end.

mod body;
mod config;
mod enclave;
mod error;
mod guard;
mod id;
pub(crate) mod keys;
mod v1;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use axum::{
    Router,
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::from_fn_with_state,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Mutex, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::host::Host;

pub use config::HttpConfig;

use self::{body::Bounds, error::ApiError, keys::Keys};

/// How long to wait after the system had no room for one more connection.
const NO_ROOM: Duration = Duration::from_millis(50);
/// The longest head of a request, in bytes: whoever sends one may be anybody.
const HEAD: usize = 64 * 1024;
/// How long what is on its way at the end may take: a request's body, and an answer that was given.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// How many connections may wait to be let in, where the system allows so many.
const BACKLOG: u32 = 4096;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anybody could reach it.
    #[error(
        "{address} is reached from other machines, and no API key is asked for: make one with `boxyard key new NAME` and put it under `[http.keys]`, or listen on 127.0.0.1"
    )]
    Public {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", advice(source))]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; is another server running? Choose another with `--listen`",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        _ => "",
    }
}

/// What all handlers share.
struct App {
    host: Host,
    /// As the server was started; who is let in may change since.
    config: HttpConfig,
    access: RwLock<Arc<Access>>,
    requests: Semaphore,
    /// How many bytes of documents may still be held.
    bodies: Arc<Semaphore>,
    /// Held by whoever initializes the pool that ms-enclave's routes know.
    initializing: Mutex<()>,
    /// Requests that are being answered.
    answering: TaskTracker,
    /// Cancelled when nobody is let in any more.
    ending: CancellationToken,
    began: Instant,
}

/// Who is let in.
#[derive(Debug)]
struct Access {
    keys: Keys,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Access {
    fn new(config: &HttpConfig) -> Self {
        Self {
            keys: Keys::new(&config.keys),
            hosts: config.hosts.clone(),
            origins: config.origins.clone(),
        }
    }
}

impl App {
    fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until it is too late for what has not come yet.
    async fn is_over(&self) {
        self.ending.cancelled().await;
        sleep(LAST_BYTES).await;
    }

    fn json_bounds(&self) -> Bounds {
        Bounds {
            bytes: u64::try_from(self.config.max_body_bytes).unwrap_or(u64::MAX),
            read_timeout: self.config.read_timeout,
        }
    }

    fn archive_bounds(&self) -> Bounds {
        Bounds {
            bytes: self.config.max_archive_bytes,
            ..self.json_bounds()
        }
    }
}

/// An address that is listened on. Those who come wait until a [`Server`] answers them.
///
/// Taken before there is a host: one that takes up sandboxes and then finds its address in use would
/// have to leave them again.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens where the configuration says.
    ///
    /// Must be called inside a runtime.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn bind(config: &HttpConfig) -> Result<Self, ServeError> {
        let address = config.listen;
        check(address, config)?;
        let listen = |source| ServeError::Listen { address, source };
        let listener = open(address).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { listener, address })
    }
}

/// What answers; [`Server::run`] does.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    router: Router,
    listener: Listener,
}

impl Server {
    /// Answers for a host, as its configuration says.
    pub fn new(host: Host, listener: Listener) -> Self {
        let config = host.config().http.clone();
        let app = Arc::new(App {
            host,
            access: RwLock::new(Arc::new(Access::new(&config))),
            requests: Semaphore::new(config.max_requests),
            bodies: Arc::new(Semaphore::new(config.max_held_bytes)),
            initializing: Mutex::default(),
            answering: TaskTracker::new(),
            ending: CancellationToken::new(),
            began: Instant::now(),
            config,
        });
        Self {
            router: router(&app),
            app,
            listener,
        }
    }

    /// Returns where it listens, the port included that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// Returns what lets in others while it runs.
    pub fn doors(&self) -> Doors {
        Doors(Arc::clone(&self.app))
    }

    /// Answers until `stop` ends; then nobody is let in any more, and what it returns ends once
    /// everything is answered that was asked by then.
    pub async fn run(
        self,
        stop: impl Future<Output = ()>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let places = Arc::new(Semaphore::new(self.app.config.max_connections));
        let graceful = GracefulShutdown::new();
        let accepting = async {
            loop {
                // The semaphore is never closed.
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                let stream = accept(&self.listener.listener).await;
                let service = TowerToHyperService::new(self.router.clone());
                let mut builder = http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .max_buf_size(HEAD)
                    .header_read_timeout(self.app.config.read_timeout);
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                let connection = graceful.watch(connection);
                tokio::spawn(async move {
                    // A client that breaks off is nobody's fault here.
                    if let Err(error) = connection.await {
                        tracing::debug!("connection: {error}");
                    }
                    drop(place);
                });
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop => {}
        }
        drop(self.listener);
        self.app.ending.cancel();
        let answering = self.app.answering.clone();
        answering.close();
        async move {
            // Whoever asked is to have the answer; who only began to ask is not waited for.
            let answered = async {
                answering.wait().await;
                sleep(LAST_BYTES).await;
            };
            tokio::select! {
                () = graceful.shutdown() => {}
                () = answered => {}
            }
        }
    }
}

/// Who is let in to a server that runs.
#[derive(Clone)]
pub struct Doors(Arc<App>);

impl Doors {
    /// Lets in whom a configuration lets in: its keys, hosts and origins.
    ///
    /// # Errors
    ///
    /// [`ServeError::Public`]: everybody would be let in; nothing is changed.
    pub fn change(&self, config: &HttpConfig) -> Result<(), ServeError> {
        let address = self.0.config.listen;
        check(address, config)?;
        let access = Arc::new(Access::new(config));
        *self
            .0
            .access
            .write()
            .unwrap_or_else(PoisonError::into_inner) = access;
        Ok(())
    }
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Doors").field(&self.0.access()).finish()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

/// An address that others reach asks for a key.
fn check(address: SocketAddr, config: &HttpConfig) -> Result<(), ServeError> {
    if address.ip().is_loopback() || !config.keys.is_empty() {
        Ok(())
    } else {
        Err(ServeError::Public { address })
    }
}

/// Listens with room for a crowd that comes at once: whoever finds none tries again after a second.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small and waited for. A socket without it works too.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                sleep(NO_ROOM).await;
            }
        }
    }
}

fn router(app: &Arc<App>) -> Router {
    let known = Arc::clone(app);
    let may = move |origin: &HeaderValue, _: &Parts| {
        let origins = &known.access().origins;
        origins
            .iter()
            .any(|known| known.as_bytes() == origin.as_bytes())
    };
    enclave::routes()
        .merge(v1::routes())
        .fallback(async || ApiError::not_found("Not Found"))
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(from_fn_with_state(Arc::clone(app), guard::guard))
        // Outside the guard: a browser asks without the key whether it may send one.
        .layer(
            CorsLayer::new()
                .allow_origin(AllowOrigin::predicate(may))
                .allow_methods([Method::GET, Method::POST, Method::DELETE])
                .allow_headers([
                    header::CONTENT_TYPE,
                    header::AUTHORIZATION,
                    header::HeaderName::from_static("x-api-key"),
                ]),
        )
        .with_state(Arc::clone(app))
}
