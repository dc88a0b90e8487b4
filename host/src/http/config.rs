//! How the server is reached, and what it lets in.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::{config::duration, hex};

/// How the server is reached; `[http]` of the configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where it listens. An address that is not of this machine alone needs `keys`.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The API keys that it accepts, by name, each as the SHA-256 of the key in hexadecimal; none is
    /// asked for where there is none.
    pub keys: BTreeMap<String, String>,
    /// Names under which it is reached, beside `localhost` and plain addresses.
    pub hosts: Vec<String>,
    /// Web pages' origins that may use it, such as `https://example.org`.
    pub origins: Vec<String>,
    /// The longest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// How many bytes of bodies may be held at once, archives apart, which pass through; more are told to
    /// try again.
    pub max_held_bytes: usize,
    /// The longest archive, in bytes.
    pub max_archive_bytes: u64,
    /// How many connections there may be; more wait.
    pub max_connections: usize,
    /// How many requests may be answered at once; more are told to try again.
    pub max_requests: usize,
    /// How long the head of a request, and each 64 KiB of its body, may take to arrive.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub read_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            keys: BTreeMap::new(),
            hosts: Vec::new(),
            origins: Vec::new(),
            max_body_bytes: 16 * 1024 * 1024,
            max_held_bytes: 256 * 1024 * 1024,
            max_archive_bytes: 4 * 1024 * 1024 * 1024,
            max_connections: 16 * 1024,
            max_requests: 2048,
            read_timeout: Duration::from_secs(60),
        }
    }
}

impl HttpConfig {
    /// Checks what a schema cannot.
    ///
    /// # Errors
    ///
    /// A text that names the key and says what is expected.
    pub(crate) fn validate(&self) -> Result<(), String> {
        for (name, hash) in &self.keys {
            if !hex::is_sha256(hash) {
                return Err(format!(
                    "`http.keys.{name}` is no SHA-256 in hexadecimal: make a key with `boxyard key new`, and put there what it says"
                ));
            }
        }
        for (name, count) in [
            ("max_connections", self.max_connections),
            ("max_requests", self.max_requests),
            ("max_held_bytes", self.max_held_bytes),
        ] {
            if !(1..=Semaphore::MAX_PERMITS).contains(&count) {
                return Err(format!(
                    "`http.{name}` is {count}: expected 1 to {}",
                    Semaphore::MAX_PERMITS
                ));
            }
        }
        if self.max_held_bytes < self.max_body_bytes {
            return Err(format!(
                "`http.max_held_bytes` is {}: expected `http.max_body_bytes` at least, which is {}",
                self.max_held_bytes, self.max_body_bytes
            ));
        }
        for origin in &self.origins {
            let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
                ["http", "https"].contains(&scheme) && !host.is_empty() && !host.contains('/')
            });
            if !is_origin {
                return Err(format!(
                    "`http.origins`: `{origin}` is no origin: expected for example https://example.org"
                ));
            }
        }
        Ok(())
    }
}
