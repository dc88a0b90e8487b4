//! `boxyard serve`, as its clients meet it: over real connections to a real process.

mod crowd;
mod ending;
mod gate;
mod inputs;
mod routes;
mod store;

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use boxyard_conformance::{Library, Yard, cargo};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) const LOCAL_PROCESS: &str = "boxyard-plugin-local-process";

/// The file that has what servers say of themselves.
const LOG: &str = "serve.log";
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A home for servers with the shipped `local-process` in it.
pub(crate) struct Home {
    yard: Yard,
}

impl Home {
    fn new(config: &str) -> Self {
        let yard = Yard::new().unwrap();
        let library = Library::package(LOCAL_PROCESS).unwrap();
        yard.put(&format!("{LOCAL_PROCESS}.so"), &library).unwrap();
        let home = Self { yard };
        home.configure(config);
        home
    }

    fn configure(&self, config: &str) {
        fs::write(self.yard.root().join("boxyard.toml"), config).unwrap();
    }

    fn serve(&self) -> Served {
        Served::start(&self.yard, &["--allow-isolation", "none"])
    }
}

/// Returns a `boxyard` with a home of its own, which has a `boxyard.toml`.
pub(crate) fn boxyard(yard: &Yard, arguments: &[&str]) -> Command {
    let root = yard.root();
    let mut command = Command::new(cargo::program("boxyard").unwrap());
    command
        .arg("--config-file")
        .arg(root.join("boxyard.toml"))
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", root)
        .env("XDG_STATE_HOME", root.join("state"))
        .env("XDG_CACHE_HOME", root.join("cache"))
        .env("BOXYARD_PLUGIN_PATH", yard.plugins())
        .stdin(Stdio::null());
    command
}

/// Returns what the servers of a home said of themselves.
fn log_of(yard: &Yard) -> String {
    fs::read_to_string(yard.root().join(LOG)).unwrap_or_default()
}

/// A server; killed when the test ends before it does.
pub(crate) struct Served {
    child: Child,
    address: SocketAddr,
    _stdout: BufReader<ChildStdout>,
}

/// An answer of a server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Served {
    /// Starts one on a port that the system chooses, and waits until it listens.
    pub(crate) fn start(yard: &Yard, arguments: &[&str]) -> Self {
        let arguments = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
        let mut command = boxyard(yard, &arguments);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(yard.root().join(LOG))
            .unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://");
        let address = address.unwrap_or_else(|| {
            // A server that ended has said why.
            let _ = child.wait();
            panic!("{line:?}: {}", log_of(yard))
        });
        Self {
            address: address.parse().unwrap(),
            child,
            _stdout: stdout,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Makes a request; `body` is JSON.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE));
        let agent = ureq::Agent::from(config.build());
        let uri = format!("{}{path}", self.url());
        let answer = match (method, body) {
            ("GET", _) => agent.get(&uri).call(),
            ("DELETE", _) => agent.delete(&uri).call(),
            (_, Some(body)) => agent.post(&uri).send_json(body),
            (_, None) => agent.post(&uri).send_empty(),
        };
        let mut answer = answer.unwrap();
        Answer {
            status: answer.status().as_u16(),
            body: answer.body_mut().read_json().unwrap(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, Some(body))
    }

    /// Makes a sandbox and returns its id.
    pub(crate) fn create(&self, sandbox_type: &str, config: Value) -> String {
        let answer = self.post(
            &format!("/sandbox/create?sandbox_type={sandbox_type}"),
            config,
        );
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["sandbox_id"].as_str().unwrap().to_owned()
    }

    /// Runs a tool in a sandbox.
    pub(crate) fn tool(&self, sandbox: &str, tool: &str, parameters: Value) -> Answer {
        let body = serde_json::json!({
            "sandbox_id": sandbox, "tool_name": tool, "parameters": parameters,
        });
        self.post("/sandbox/tool/execute", body)
    }

    /// Sends bytes as they are, and reads the answer to the end of the connection.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // A server that has read enough may have closed already.
        let _ = stream.write_all(bytes);
        read_to_end(stream)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Ends it as a service manager does; it must end well.
    pub(crate) fn end(mut self) {
        self.signal(Signal::TERM);
        assert!(self.wait().success());
    }

    pub(crate) fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }
}

fn read_to_end(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // What came before the connection was reset counts.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

impl Drop for Served {
    fn drop(&mut self) {
        // It has ended where the test passed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "never came true: {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
