//! The servers that are measured.

use std::{
    env,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use boxyard_conformance::Yard;
use rustix::process::{Pid, Signal, kill_process};

use crate::{client::Client, common::built, timed};

/// A Python that has ms-enclave.
const PYTHON: &str = "BOXYARD_MS_ENCLAVE_PYTHON";

/// A server that runs; told to end when this is dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    // Nobody reads it, but its end would be an error to who writes.
    _stdout: Option<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts `boxyard serve` with the plugins of a yard.
    pub(crate) fn boxyard(yard: &Yard) -> Self {
        let root = yard.root();
        let mut command = Command::new(built("boxyard"));
        command
            .args(["--log", "error", "serve", "--listen", "127.0.0.1:0"])
            .args(["--allow-isolation", "none"])
            .env("BOXYARD_PLUGIN_PATH", yard.plugins())
            .env("XDG_STATE_HOME", root.join("server-state"))
            .env("XDG_CACHE_HOME", root.join("server-cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://");
        Self {
            child,
            address: address.unwrap().parse().unwrap(),
            _stdout: Some(stdout),
        }
    }

    /// Starts ms-enclave's server; says why it cannot.
    pub(crate) fn ms_enclave() -> Result<Self, String> {
        let python = env::var_os(PYTHON).ok_or_else(|| format!("{PYTHON} is not set"))?;
        let program = PathBuf::from(python).with_file_name("ms-enclave");
        // It cannot be told to choose one.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.unwrap();
        let child = Command::new(&program)
            .args(["server", "--host", "127.0.0.1", "--log-level", "error"])
            .args(["--port", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let mut server = Self {
            child,
            address,
            _stdout: None,
        };
        let (client, began) = (server.client(), Instant::now());
        while !client.is_answered() {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("{} ended: {status}", program.display()));
            }
            if began.elapsed() > Duration::from_secs(60) {
                return Err(format!("{} answers nothing", program.display()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Ends it as a service manager does; returns how long that took.
    pub(crate) fn end(mut self) -> Duration {
        let (status, took) = timed(|| {
            kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
            self.child.wait().unwrap()
        });
        let was_ended = status.success() || status.signal() == Some(Signal::TERM.as_raw());
        assert!(was_ended, "{status}");
        took
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended where nothing went wrong.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}
