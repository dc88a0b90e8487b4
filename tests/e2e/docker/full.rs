//! An engine whose disk is full: the error says so, nothing half-made is left, and what is there
//! can be used.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use boxyard_host::{CreateError, Error, ErrorCode};
use serde_json::{Value, json};

use super::{Dock, IMAGE, WITHOUT, engine, leave_out, private::Private};
use crate::world::{bounded, run};

/// How long anything may take that must come.
const BOUND: Duration = Duration::from_secs(60);
/// The engine's disk, in bytes.
const DISK: u64 = 24 << 20;

/// A registry that runs, on a port of its own.
struct Registry {
    process: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Registry {
    /// Starts one on a directory; `None` where there can be none.
    fn start(mut command: Command, directory: &Path) -> Option<Self> {
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n",
            directory.join("data").display()
        );
        let file = directory.join("config.yml");
        fs::write(&file, config).unwrap();
        command
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(error) => {
                let why = format!("docker-registry: {error}");
                leave_out(WITHOUT, "an engine whose disk is full", &why);
                return None;
            }
        };
        let stderr = process.stderr.take().unwrap();
        let (found, address) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let address = rest.split([',', '"']).next().unwrap_or_default();
                    // Nobody may wait any more.
                    let _ = found.send(address.to_owned());
                }
            }
        });
        let mut registry = Self {
            process,
            address: String::new(),
        };
        registry.address = address.recv_timeout(BOUND).unwrap();
        Some(registry)
    }

    /// Puts an image of one file into it, and leaves none in the machine's engine.
    fn add(&self, name: &str, content: &mut dyn Read) {
        let image = Unpushed(format!("{}/{name}", self.address));
        let layer = tempfile::tempdir().unwrap();
        let mut file = File::create(layer.path().join("content")).unwrap();
        io::copy(content, &mut file).unwrap();
        let archive = layer.path().join("layer.tar");
        let made = Command::new("tar")
            .arg("--create")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(layer.path())
            .arg("content")
            .status();
        assert!(made.unwrap().success());
        engine(&["import", archive.to_str().unwrap(), &image.0]).unwrap();
        engine(&["push", "--quiet", &image.0]).unwrap();
    }
}

/// An image in the machine's engine, which is gone with this.
struct Unpushed(String);

impl Drop for Unpushed {
    fn drop(&mut self) {
        // It may not have come to be.
        let _ = engine(&["image", "rm", "--force", &self.0]);
    }
}

async fn refused(dock: &Dock, config: Value) -> Error {
    let created = tokio::time::timeout(BOUND, dock.create(config)).await;
    let Err(CreateError::Backend { source, .. }) = created.expect("it takes too long") else {
        panic!("a sandbox was made on a full disk");
    };
    source
}

async fn works(dock: &Dock) {
    let sandbox = dock.sandbox(json!({})).await;
    let result = run(&sandbox, &["echo", "works"]).await.unwrap();
    assert_eq!(result.stdout_text(), "works\n");
    dock.delete(&sandbox).await;
    dock.is_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_leaves_nothing_and_passes() {
    let Some(small) = Private::small(DISK) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let filled = Registry::start(Command::new("docker-registry"), directory.path());
    let Some(filled) = filled else { return };
    // One that cannot even be fetched, and one that is small until it is unpacked.
    let names = ["boxyard-test-large:1", "boxyard-test-zeros:1"];
    let mut random = File::open("/dev/urandom").unwrap().take(DISK + DISK / 8);
    filled.add(names[0], &mut random);
    filled.add(names[1], &mut io::repeat(0).take(2 * DISK));
    drop(filled);
    // The same again, where the engine finds it.
    let registry = Registry::start(small.beside("docker-registry"), directory.path());
    let Some(registry) = registry else { return };
    let images = names.map(|name| format!("{}/{name}", registry.address));
    bounded(async {
        let dock = Dock::on(&small).start().await;
        for image in &images {
            let error = refused(&dock, json!({ "image": image })).await;
            assert_eq!(error.code(), ErrorCode::RESOURCE_EXHAUSTED, "{error}");
            for named in [&**image, "the engine's disk is full"] {
                assert!(error.message().contains(named), "{error}");
            }
            dock.is_clean();
            assert!(dock.ask(&["image", "inspect", image]).is_err());
            works(&dock).await;
        }
        // To the last byte.
        let rest = small.disk().join("rest");
        let filled = io::copy(&mut io::repeat(1), &mut File::create(&rest).unwrap());
        let filled = filled.unwrap_err();
        assert_eq!(filled.kind(), io::ErrorKind::StorageFull);
        let error = refused(&dock, json!({})).await;
        assert_eq!(error.code(), ErrorCode::RESOURCE_EXHAUSTED, "{error}");
        for named in [IMAGE, "the engine's disk is full"] {
            assert!(error.message().contains(named), "{error}");
        }
        dock.is_clean();
        fs::remove_file(rest).unwrap();
        works(&dock).await;
        dock.end().await;
    })
    .await;
}
