//! What registries are shown, from docker's own config.

use std::{collections::HashMap, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bollard::auth::DockerCredentials;
use boxyard_plugin_api::prelude::*;

use super::helper;
use crate::engine::endpoint::read_json;

/// What docker's config calls Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The credentials in docker's own config, read anew each time: `docker login` changes them.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: HashMap<String, Entry>,
    creds_store: String,
    cred_helpers: HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    /// `user:password` in base64.
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Credentials {
    pub(super) fn new(config_dir: Option<PathBuf>) -> Self {
        Self {
            file: config_dir.map(|dir| dir.join("config.json")),
        }
    }

    /// Returns what to show to a registry; `None` where docker's config has nothing for it.
    ///
    /// # Errors
    ///
    /// The config cannot be read, or its helper does not answer.
    pub(super) async fn of(&self, registry: &str) -> Result<Option<DockerCredentials>> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let Some(config) = read_json::<DockerConfig>(file)? else {
            return Ok(None);
        };
        let server = match registry {
            "docker.io" | "index.docker.io" => DOCKER_HUB,
            other => other,
        };
        let helper = config.cred_helpers.get(server).or(match registry {
            "docker.io" => config.cred_helpers.get(registry),
            _ => None,
        });
        let helper = helper.unwrap_or(&config.creds_store);
        if !helper.is_empty() {
            let program = format!("docker-credential-{helper}");
            if let Some(login) = helper::get(program.as_ref(), server).await? {
                return Ok(Some(shown(login, server)));
            }
        }
        config.entry(server).map_or(Ok(None), |entry| {
            let read = entry.read(server);
            read.map_err(|error| error.context(file.display()))
        })
    }
}

fn shown(login: helper::Login, server: &str) -> DockerCredentials {
    let mut credentials = DockerCredentials {
        serveraddress: Some(server.into()),
        ..DockerCredentials::default()
    };
    // How helpers say that the secret is a token.
    if login.username == "<token>" {
        credentials.identitytoken = Some(login.secret);
    } else {
        credentials.username = Some(login.username);
        credentials.password = Some(login.secret);
    }
    credentials
}

impl DockerConfig {
    fn entry(&self, server: &str) -> Option<&Entry> {
        let found = self.auths.get(server);
        found.or_else(|| {
            let mut all = self.auths.iter();
            let found = all.find(|(key, _)| host_of(key) == host_of(server));
            found.map(|(_, entry)| entry)
        })
    }
}

/// Keys may be addresses with a scheme and a path, as old versions of docker wrote them.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split_once('/').map_or(rest, |(host, _)| host)
}

impl Entry {
    fn read(&self, server: &str) -> Result<Option<DockerCredentials>> {
        let (mut username, mut password) = (self.username.clone(), self.password.clone());
        if !self.auth.is_empty() {
            let decoded = STANDARD.decode(&self.auth).ok();
            let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            let Some((user, secret)) = decoded.as_deref().and_then(|text| text.split_once(':'))
            else {
                return Err(Error::failed_precondition(format_args!(
                    "`auth` of {server} is no base64 of `user:password`"
                )));
            };
            username = user.into();
            password = secret.trim_matches('\0').into();
        }
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let credentials = DockerCredentials {
            username: some(&username),
            password: some(&password),
            identitytoken: some(&self.identitytoken),
            registrytoken: some(&self.registrytoken),
            ..DockerCredentials::default()
        };
        if credentials == DockerCredentials::default() {
            return Ok(None);
        }
        Ok(Some(DockerCredentials {
            serveraddress: Some(server.into()),
            ..credentials
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(config: Value, registry: &str) -> Result<Option<DockerCredentials>> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
        let credentials = Credentials::new(Some(directory.path().into()));
        credentials.of(registry).await
    }

    fn login(found: &DockerCredentials) -> (&str, &str) {
        let (username, password) = (found.username.as_deref(), found.password.as_deref());
        (username.unwrap(), password.unwrap())
    }

    #[tokio::test]
    async fn logins_are_found_as_docker_finds_them() {
        let config = json!({"auths": {
            "host:5000": {"auth": STANDARD.encode("me:a:b")},
            "https://old.example/v1/": {"username": "old", "password": "secret"},
            "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:x\0\0")},
            "empty": {},
        }});
        for (registry, expected) in [
            ("host:5000", Some(("me", "a:b"))),
            ("old.example", Some(("old", "secret"))),
            ("docker.io", Some(("hub", "x"))),
            ("empty", None),
            ("host", None),
        ] {
            let found = of(config.clone(), registry).await.unwrap();
            assert_eq!(found.as_ref().map(login), expected, "{registry}");
        }
        let token = json!({"auths": {"host": {"identitytoken": "t"}}});
        let found = of(token, "host").await.unwrap().unwrap();
        assert_eq!(found.identitytoken.as_deref(), Some("t"));
        assert_eq!(found.serveraddress.as_deref(), Some("host"));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_said() {
        let broken = json!({"auths": {"host": {"auth": "!"}}});
        let error = of(broken, "host").await.unwrap_err();
        assert!(error.message().contains("host"), "{error}");
        let missing = json!({"credHelpers": {"host": "boxyard-test-missing"}});
        let error = of(missing.clone(), "host").await.unwrap_err();
        assert!(
            error
                .message()
                .contains("docker-credential-boxyard-test-missing"),
            "{error}"
        );
        assert!(of(missing, "other").await.unwrap().is_none());
        let nowhere = Credentials::new(None);
        assert!(nowhere.of("host").await.unwrap().is_none());
    }
}
