//! What things cost, beside their floor, in one run: medians and ratios, never absolutes alone.
//!
//! `cargo measure` runs it. Each pair is interleaved, so that a noisy machine disturbs both
//! sides alike. Nothing here fails: the last column says whether the budget is kept.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark talks to people and stops where it cannot measure"
)]

#[path = "common/mod.rs"]
mod common;

use std::{
    env,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command as Process, Stdio},
    time::{Duration, Instant},
};

use abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use boxyard_host::{Command, Config, CreateRequest, Host};
use boxyard_plugin_api::{
    CallController, SandboxIdentity, State,
    abi::{
        HostServices, HostServicesObject, InitRequest, PluginModuleRef, SandboxServices,
        SandboxServicesObject, SandboxTypeObject, Telemetry,
        layout::{Older, open_root_module},
    },
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{Budget, built, compare, head, median, row};

/// The benchmark runs itself with this argument for what can be measured once in a process.
const CHILD: &str = "--measure-once";

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == CHILD) {
        once(&arguments[at + 1..]);
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    head("floor");
    loading(scratch.path());
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let module = open(&built("libboxyard_plugin_local_process.so"));
    let local_process = init(module, scratch.path());
    vtable_call(module);
    threads.block_on(async_call(&local_process));
    threads.block_on(echo(scratch.path()));
    program(scratch.path());
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let value = work();
    (value, began.elapsed())
}

fn config(scratch: &Path, plugins: &Path) -> Config {
    Config {
        plugin_dirs: Some(vec![plugins.into()]),
        state_dir: Some(scratch.join("state")),
        cache_dir: Some(scratch.join("cache")),
        trust_plugin_dirs: false,
        ..Config::default()
    }
}

/// Makes a directory with one plugin in it.
fn directory(scratch: &Path, plugin: &str) -> PathBuf {
    let directory = scratch.join(plugin);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::copy(
        built(&format!("lib{plugin}.so")),
        directory.join("plugin.so"),
    )
    .unwrap();
    directory
}

/// A bare `dlopen` and `dlsym` beside everything that loading does, hashing apart; each in a new
/// process, with a warm page cache and the private copy in place.
fn loading(scratch: &Path) {
    let plugin = "boxyard_plugin_local_process";
    let (with, without) = (directory(scratch, plugin), scratch.join("empty"));
    std::fs::create_dir_all(&without).unwrap();
    let child = |what: &str, path: &Path| -> Duration {
        let output = Process::new(env::current_exe().unwrap())
            .args([CHILD, what])
            .arg(path)
            .arg(scratch)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        Duration::from_nanos(text.trim().parse().expect("the child prints nanoseconds"))
    };
    let library = with.join("plugin.so");
    child("start", &with);
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    for _ in 0..21 {
        floor.push(child("dlopen", &library));
        let (loaded, empty) = (child("start", &with), child("start", &without));
        cost.push(loaded.saturating_sub(empty));
    }
    let bytes = std::fs::read(&library).unwrap();
    let hash = median(
        (0..21)
            .map(|_| timed(|| black_box(Sha256::digest(&bytes))).1)
            .collect(),
    );
    let mebibytes = bytes.len() as f64 / f64::from(1 << 20);
    println!(
        "hashing {mebibytes:.1} MiB: {hash:.1?}, {:.2} ms/MiB (budget 1)",
        hash.as_secs_f64() * 1e3 / mebibytes
    );
    // Compared with its private copy: only a file that was never seen is hashed.
    compare(
        "load one plugin / dlopen + dlsym",
        floor,
        cost,
        Duration::from_millis(3),
    );
}

fn once(arguments: &[String]) {
    let [what, path, scratch] = arguments else {
        panic!("expected what, path, scratch")
    };
    let took = match what.as_str() {
        "dlopen" => timed(|| header(Path::new(path))).1,
        _ => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let config = config(Path::new(scratch), Path::new(path));
            let (host, took) = timed(|| runtime.block_on(Host::start(config)).unwrap());
            runtime.block_on(host.shutdown());
            took
        }
    };
    println!("{}", took.as_nanos());
}

#[expect(unsafe_code, reason = "the floor is a bare dlopen")]
#[expect(clippy::disallowed_types, reason = "the floor is a bare dlopen")]
fn header(path: &Path) -> AbiHeaderRef {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: the library is this workspace's own plugin.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.unwrap();
    // SAFETY: plugins export their header under this name.
    let symbol =
        unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let header = *symbol.unwrap();
    std::mem::forget(library);
    header
}

fn open(path: &Path) -> PluginModuleRef {
    open_root_module(header(path), Older::Host).unwrap()
}

struct Silent;

impl HostServices for Silent {
    fn telemetry(&self, _record: Telemetry) {}
}

fn init(module: PluginModuleRef, scratch: &Path) -> SandboxTypeObject {
    let request = InitRequest {
        data_dir: scratch.to_string_lossy().into_owned(),
        runtime_threads: 2,
        log_filter: "off".into(),
        ..InitRequest::default()
    };
    let request = serde_json::to_string(&request).unwrap();
    let services = HostServicesObject::from_services(Silent);
    module
        .call_init(request.as_str().into(), services)
        .into_result()
        .expect("the plugin initialises");
    module
        .call_sandbox_types()
        .into_iter()
        .next()
        .expect("local-process is a sandbox type")
}

/// A plain call through the function table beside a plain call.
fn vtable_call(module: PluginModuleRef) {
    const CALLS: u32 = 1_000_000;
    #[inline(never)]
    fn plain(id: &str) -> Option<usize> {
        black_box(id);
        None
    }
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    for _ in 0..21 {
        floor.push(
            timed(|| {
                (0..CALLS).for_each(|_| {
                    black_box(plain(black_box("x")));
                });
            })
            .1 / CALLS,
        );
        let calls = || {
            for _ in 0..CALLS {
                black_box(module.call_get_interface(black_box("x").into()));
            }
        };
        cost.push(timed(calls).1 / CALLS);
    }
    row(
        "plain call over the vtable / in the program",
        median(floor).max(Duration::from_nanos(1)),
        median(cost),
        Duration::from_nanos(10),
    );
}

/// A call that runs on the plugin's runtime beside a task on another runtime of this process.
async fn async_call(local_process: &SandboxTypeObject) {
    let other = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let services = SandboxServicesObject::from_services(Nobody);
    let created = local_process.create(&json!({}), services, CallController::new(0).call());
    let sandbox = created.await.expect("local-process needs no configuration");
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    for round in 0..8000 {
        let began = Instant::now();
        other.spawn(async { black_box(1) }).await.unwrap();
        let theirs = began.elapsed();
        let began = Instant::now();
        // The backend has nothing to say: what is left is the call.
        sandbox
            .execution_context(CallController::new(0).call())
            .await
            .unwrap();
        let ours = began.elapsed();
        if round >= 500 {
            floor.push(theirs);
            cost.push(ours);
        }
    }
    sandbox
        .cleanup(CallController::new(0).call())
        .await
        .unwrap();
    other.shutdown_background();
    compare(
        "call on the plugin's runtime / task elsewhere",
        floor,
        cost,
        1.5,
    );
}

/// A host that wants to know nothing of its sandbox.
struct Nobody;

impl SandboxServices for Nobody {
    fn identity(&self) -> SandboxIdentity {
        SandboxIdentity::new("measured", "host", "measure")
    }

    fn event(&self, _kind: String, _data: Value) {}

    fn set_metadata(&self, _key: String, _value: Value) {}

    fn exited(&self, _reason: String) {}

    async fn save_state(&self, _state: State) -> boxyard_plugin_api::Result<()> {
        Ok(())
    }
}

/// `echo hi` in a sandbox beside tokio's own spawn with piped output.
async fn echo(scratch: &Path) {
    let plugins = directory(scratch, "boxyard_plugin_local_process");
    let config = Config {
        cache_dir: Some(scratch.join("echo-cache")),
        ..config(scratch, &plugins)
    };
    let host = Host::start(config).await.unwrap();
    let sandbox = host
        .manager()
        .create(CreateRequest::new("local-process"))
        .await
        .unwrap();
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    for round in 0..420 {
        let began = Instant::now();
        let output = tokio::process::Command::new("sh")
            .args(["-c", "echo hi"])
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let theirs = began.elapsed();
        assert_eq!(output.stdout, b"hi\n");
        let began = Instant::now();
        let result = sandbox.run(Command::shell("echo hi"), None).await.unwrap();
        let ours = began.elapsed();
        assert_eq!(result.stdout, b"hi\n");
        if round >= 20 {
            floor.push(theirs);
            cost.push(ours);
        }
    }
    host.shutdown().await;
    compare(
        "`echo hi` in local-process / tokio's spawn",
        floor,
        cost,
        1.25,
    );
}

/// The whole program for one command beside a shell.
fn program(scratch: &Path) {
    let plugins = directory(scratch, "boxyard_plugin_local_process");
    let boxyard = built("boxyard");
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    for round in 0..44 {
        let mut shell = Process::new("sh");
        shell.args(["-c", "true"]);
        let theirs = timed(|| assert!(shell.status().unwrap().success())).1;
        let mut run = Process::new(&boxyard);
        run.args(["--log", "error", "run", "-t", "local-process", "--", "true"])
            .env("BOXYARD_PLUGIN_PATH", &plugins)
            .env("XDG_STATE_HOME", scratch)
            .env("XDG_CACHE_HOME", scratch)
            .stdin(Stdio::null());
        let ours = timed(|| assert!(run.status().unwrap().success())).1;
        if round == 1 {
            // What was written just now is compared at each start: a plugin is not.
            std::thread::sleep(Duration::from_secs(3));
        }
        if round >= 4 {
            floor.push(theirs);
            cost.push(ours);
        }
    }
    compare(
        "`boxyard run … -- true` / `sh -c true`",
        floor,
        cost,
        Budget {
            times: 1.0,
            more: Duration::from_millis(10),
        },
    );
}
