//! The docker plugin on Podman's compatible socket, which the test serves itself: with storage of
//! its own, so that nothing else on the machine is touched.

use std::{
    fs,
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command as Process, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use boxyard_conformance::{Library, Yard};
use boxyard_host::{Command, CreateRequest, PluginConfig, Sandbox, Status};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{IMAGE, PLUGIN, WITHOUT, leave_out, text};
use crate::world::{bounded, object, run};

/// How long Podman may take to answer, and to end.
const START: Duration = Duration::from_secs(30);

/// A service of Podman's, with storage of its own.
struct Podman {
    directory: TempDir,
    service: Option<Child>,
}

impl Drop for Podman {
    fn drop(&mut self) {
        if self.service.is_some() {
            // The test failed, and what it says is told already.
            let _ = self.ask(&["rm", "--all", "--force"]);
            let _ = self.end();
        }
    }
}

impl Podman {
    /// Starts one that has the image; `None` where there is no Podman, or no image to give it.
    fn start() -> Option<Self> {
        let left_out = |without, why: &str| {
            leave_out(without, "the docker plugin on Podman", why);
            None
        };
        let image = Process::new("docker").args(["save", IMAGE]).output();
        let image = match image {
            Ok(output) if output.status.success() => output.stdout,
            Ok(output) => return left_out(WITHOUT, &text(&output.stderr)),
            Err(error) => return left_out(WITHOUT, &format!("docker: {error}")),
        };
        if let Err(error) = Process::new("podman").arg("--version").output() {
            return left_out("BOXYARD_WITHOUT_PODMAN", &format!("podman: {error}"));
        }
        let directory = tempfile::Builder::new()
            .prefix("boxyard-podman-")
            .tempdir()
            .unwrap();
        fs::write(directory.path().join("containers.conf"), configuration()).unwrap();
        let mut podman = Self {
            directory,
            service: None,
        };
        podman.load(&image);
        podman.serve();
        Some(podman)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn address(&self) -> String {
        format!("unix://{}", self.path("socket").display())
    }

    fn command(&self) -> Process {
        let mut command = Process::new("podman");
        command
            .arg("--root")
            .arg(self.path("root"))
            .arg("--runroot")
            .arg(self.path("run"))
            .arg("--tmpdir")
            .arg(self.path("tmp"))
            // It works wherever the directory is.
            .args(["--storage-driver", "vfs"])
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
            .env("CONTAINERS_CONF", self.path("containers.conf"))
            .stdin(Stdio::null());
        command
    }

    /// Asks Podman itself, not its service; returns what it prints.
    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command().args(arguments).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(text(&output.stdout).trim().to_owned())
        } else {
            Err(text(&output.stderr))
        }
    }

    fn load(&self, image: &[u8]) {
        let mut load = self.command();
        let mut load = load
            .args(["load", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        load.stdin.take().unwrap().write_all(image).unwrap();
        assert!(load.wait().unwrap().success(), "podman load");
    }

    fn serve(&mut self) {
        let log = fs::File::create(self.path("log")).unwrap();
        let service = self
            .command()
            .args(["system", "service", "--time=0", &self.address()])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let service = self.service.insert(service);
        let began = Instant::now();
        let log = self.directory.path().join("log");
        while UnixStream::connect(self.directory.path().join("socket")).is_err() {
            let ended = service.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < START,
                "podman does not answer: {}",
                fs::read_to_string(&log).unwrap()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the service, and waits for that.
    fn end(&mut self) -> Result<(), String> {
        let Some(mut service) = self.service.take() else {
            return Ok(());
        };
        kill_process(Pid::from_child(&service), Signal::TERM).map_err(|error| error.to_string())?;
        let began = Instant::now();
        while service.try_wait().unwrap().is_none() {
            if began.elapsed() > START {
                service.kill().unwrap();
                service.wait().unwrap();
                return Err("the service had to be killed".into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// What lets Podman work wherever a docker engine does.
fn configuration() -> String {
    // It would raise them above our own, which not every root may.
    let mut file =
        "[containers]\ndefault_ulimits = ['nofile=1024:1024', 'nproc=1024:1024']\n".to_owned();
    let runc = ["/usr/bin/runc", "/usr/sbin/runc", "/usr/local/bin/runc"];
    if runc.iter().any(|path| Path::new(path).exists()) {
        // crun refuses machines that have cgroups of both versions.
        file += "[engine]\nruntime = 'runc'\n";
    }
    file
}

/// Makes a plugin directory whose plugin uses this Podman.
fn yard(podman: &Podman) -> Yard {
    let mut yard = Yard::new().unwrap();
    let library = Library::package(PLUGIN).unwrap();
    yard.put(&format!("{PLUGIN}.so"), &library).unwrap();
    yard.config.timeouts.load = Duration::from_secs(60);
    let plugin = PluginConfig {
        settings: object(json!({
            "host": podman.address(),
            "allowed_mounts": [podman.path("shared")],
            "allow_host_gateway": true,
        })),
        ..PluginConfig::default()
    };
    yard.config.plugins.insert(PLUGIN.into(), plugin);
    yard
}

fn request(config: Value) -> CreateRequest {
    let mut all = object(json!({ "image": IMAGE, "network_enabled": false }));
    all.extend(object(config));
    CreateRequest::new("docker").config(all)
}

async fn says(sandbox: &Arc<Sandbox>, line: &str, stdin: &str) -> String {
    let ran = sandbox.run(Command::shell(line), Some(stdin.into())).await;
    let ran = ran.unwrap();
    assert_eq!(ran.exit.exit_code, 0, "{line}: {}", ran.stderr_text());
    ran.stdout_text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_of_podman_lives_its_whole_life_and_leaves_nothing() {
    let Some(mut podman) = Podman::start() else {
        return;
    };
    let yard = yard(&podman);
    bounded(async {
        let host = yard.host().await.unwrap();
        let shared = podman.path("shared");
        fs::create_dir(&shared).unwrap();
        for transport in ["socket", "attach"] {
            let mounts = json!({ shared.to_str().unwrap(): "/shared" });
            let config = json!({ "transport": transport, "volumes": mounts });
            let sandbox = host.manager().create(request(config)).await.unwrap();
            let info = sandbox.info().await;
            assert_eq!(info.backend["engine"]["kind"], "podman", "{info:?}");
            assert_eq!(info.backend["transport"], transport);

            let ran = run(&sandbox, &["echo", "hi"]).await.unwrap();
            assert_eq!((ran.exit.exit_code, &*ran.stdout_text()), (0, "hi\n"));
            let ran = sandbox.run(Command::shell("exit 7"), None).await.unwrap();
            assert_eq!(ran.exit.exit_code, 7);

            says(&sandbox, "cat > kept", "content").await;
            let kept = says(&sandbox, "cat /sandbox/kept; cp kept /shared", "").await;
            assert_eq!(kept, "content");
            assert_eq!(fs::read(shared.join("kept")).unwrap(), b"content");

            let sleep = Command::argv(["sleep", "600"]).timeout(Duration::from_millis(100));
            let slept = sandbox.run(sleep, None).await.unwrap();
            assert!(slept.exit.timed_out, "{slept:?}");
            assert_eq!(sandbox.status(), Status::Running);

            host.manager().delete(sandbox.id()).await.unwrap();
            assert_eq!(podman.ask(&["ps", "-aq"]).unwrap(), "");
        }
        host.shutdown().await;
        let meetings = yard.root().join("state/plugins").join(PLUGIN);
        let meetings = fs::read_dir(meetings.join("meetings")).unwrap();
        assert_eq!(meetings.count(), 0, "meeting places are left");
        assert_eq!(podman.ask(&["volume", "ls", "-q"]).unwrap(), "");
        podman.end().unwrap();
    })
    .await;
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = podman.directory.path().to_str().unwrap();
    assert!(!mounts.contains(&format!("{ours}/root/vfs")), "{mounts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_podman_cannot_do_is_refused_before_it_is_asked() {
    let Some(mut podman) = Podman::start() else {
        return;
    };
    let yard = yard(&podman);
    bounded(async {
        let host = yard.host().await.unwrap();
        let gate = json!({ "network_enabled": true, "extra_hosts": { "gate": "host-gateway" } });
        let error = host.manager().create(request(gate)).await.unwrap_err();
        let error = error.to_string();
        assert!(error.contains("extra_hosts.gate: Podman"), "{error}");
        assert_eq!(podman.ask(&["ps", "-aq"]).unwrap(), "");
        host.shutdown().await;
        podman.end().unwrap();
    })
    .await;
}
