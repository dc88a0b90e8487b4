//! A registry of the test's own, on a port of its own.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use bollard::{
    auth::DockerCredentials,
    query_parameters::{PushImageOptionsBuilder, TagImageOptionsBuilder},
};
use futures_util::TryStreamExt;

use super::harness::{BOUND, TestImage, remove, unique, within, without_docker};
use crate::engine::Engine;

/// A login, and the line of it for the registry. A password that base64 writes with characters
/// that differ between its alphabets.
pub(super) const LOGIN: &str = "me:s?~>cret";
const HTPASSWD: &str = "me:$2b$04$Sd1KHCYvQHjULjzOYDrp9Oi4wwKLid6Rud1eAJF.WiBewlIIx/62S";

/// A registry that runs; it ends with the test.
pub(super) struct Registry {
    pub(super) address: String,
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry that anybody may use; `None` where the tests are to do without.
    pub(super) fn open() -> Option<Self> {
        Self::start("")
    }

    /// Starts a registry that knows one login.
    pub(super) fn closed() -> Option<Self> {
        Self::start("auth: {htpasswd: {realm: test, path: DIRECTORY/htpasswd}}")
    }

    fn start(auth: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\n\
             storage: {{filesystem: {{rootdirectory: DIRECTORY/data}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n{auth}\n"
        );
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config.replace("DIRECTORY", path)).unwrap();
        std::fs::write(directory.path().join("htpasswd"), HTPASSWD).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(error) => {
                let reason = format!("docker-registry cannot be started: {error}");
                assert!(
                    without_docker(&reason),
                    "{reason}\n`cargo verify` installs it; BOXYARD_WITHOUT_DOCKER=1 leaves out what \
                     needs it"
                );
                return None;
            }
        };
        let log = Arc::<Mutex<Vec<String>>>::default();
        let (found, address) = mpsc::channel();
        let stdout = process.stdout.take().unwrap();
        let stderr = process.stderr.take().unwrap();
        let kept = log.clone();
        thread::spawn(move || read(BufReader::new(stdout), &kept, None));
        let kept = log.clone();
        thread::spawn(move || read(BufReader::new(stderr), &kept, Some(found)));
        Some(Self {
            address: address
                .recv_timeout(BOUND)
                .expect("it says where it listens"),
            process,
            log,
            _directory: directory,
        })
    }

    /// Puts an image into it, and leaves none in the engine. Returns its name.
    pub(super) async fn with_image(
        &self,
        engine: &Engine,
        bytes: usize,
        login: Option<&str>,
    ) -> String {
        let docker = engine.docker().await.unwrap();
        let path = unique("image");
        let made = TestImage::make(engine, &format!("localhost/{path}:1"), bytes).await;
        let repository = format!("{}/{path}", self.address);
        let tag = TagImageOptionsBuilder::default()
            .repo(&repository)
            .tag("1")
            .build();
        docker.tag_image(&made.name, Some(tag)).await.unwrap();
        let credentials = login
            .and_then(|login| login.split_once(':'))
            .map(|(user, password)| DockerCredentials {
                username: Some(user.into()),
                password: Some(password.into()),
                serveraddress: Some(self.address.clone()),
                ..DockerCredentials::default()
            });
        let options = PushImageOptionsBuilder::default().tag("1").build();
        // Without a login the engine wants an empty one.
        let credentials = credentials.or_else(|| Some(DockerCredentials::default()));
        let pushed = docker.push_image(&repository, Some(options), credentials);
        within(pushed.try_collect::<Vec<_>>()).await.unwrap();
        let name = format!("{repository}:1");
        remove(&docker, &name).await;
        made.remove().await;
        name
    }

    /// Returns how often something was asked for: `GET`, and a part of the path.
    pub(super) fn requests(&self, method: &str, path: &str) -> usize {
        let log = self.log.lock().unwrap();
        let asked = |line: &&String| line.contains(&format!("\"{method} ")) && line.contains(path);
        log.iter().filter(asked).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Keeps what the registry prints, and finds where it listens.
fn read(lines: impl BufRead, log: &Mutex<Vec<String>>, mut found: Option<mpsc::Sender<String>>) {
    for line in lines.lines().map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once("listening on ")
            && let Some(found) = found.take()
        {
            let address: String = rest
                .chars()
                .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
                .collect();
            found.send(address).unwrap();
        }
        log.lock().unwrap().push(line);
    }
}
