//! What a docker sandbox costs beside the engine's own API and a spawn on the host, in one run.
//!
//! `cargo measure` runs it. Each pair is interleaved, so that a noisy machine disturbs both
//! sides alike. Nothing here fails: the last column says whether the budget is kept. With
//! `BOXYARD_CREATES=200` that many sandboxes are made at once, too.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a benchmark talks to people and stops where it cannot measure"
)]

#[path = "../common/mod.rs"]
mod common;
mod engine;
#[path = "../common/process.rs"]
mod process;

use std::{
    env, fs,
    sync::Arc,
    time::{Duration, Instant},
};

use boxyard_conformance::{Library, Yard};
use boxyard_host::{
    ByteSink, ByteSource, Command, CommandIo, Config, CreateRequest, Host, Sandbox, pipe,
};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    common::{built, compare, head, median, verdict},
    engine::Engine,
    process::{Spawner, status},
};

/// What every container is made from; it needs a shell, `dd` and `sleep`.
const IMAGE: &str = "boxyard/busybox";
const GIB: u64 = 1 << 30;
/// How much goes through the engine's attach, which is slow.
const SLOW: u64 = 128 << 20;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let Some(at) = arguments.iter().position(|it| it == process::ARGUMENT) {
        return process::serve(&arguments[at + 1]);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match Engine::find(IMAGE).await {
            Ok(engine) => measure(engine).await,
            Err(why) => println!("SKIPPED, nothing of docker is measured: {why}"),
        }
    });
}

async fn measure(engine: Engine) {
    let yard = Yard::new().unwrap();
    yard.put(
        "docker.so",
        &Library::read(&built("libboxyard_plugin_docker.so")).unwrap(),
    )
    .unwrap();
    let host = Host::start(Config {
        trust_plugin_dirs: false,
        ..yard.config.clone()
    });
    let bench = Bench {
        host: host.await.unwrap(),
        engine,
    };
    head("floor");
    bench.lives("bridge", json!({})).await;
    bench
        .lives("no network", json!({"network_enabled": false}))
        .await;
    bench.commands().await;
    bench.output().await;
    if let Ok(count) = env::var("BOXYARD_CREATES") {
        bench.crowd(count.parse().unwrap()).await;
    }
    bench.host.shutdown().await;
}

struct Bench {
    host: Host,
    engine: Engine,
}

impl Bench {
    async fn create(&self, config: &Value) -> Arc<Sandbox> {
        let mut config = config.as_object().cloned().unwrap_or_default();
        config.insert("image".into(), IMAGE.into());
        config.insert("working_dir".into(), "/".into());
        let request = CreateRequest::new("docker").config(config);
        self.host.manager().create(request).await.unwrap()
    }

    async fn delete(&self, sandbox: &Sandbox) {
        self.host.manager().delete(sandbox.id()).await.unwrap();
    }

    /// From nothing to a sandbox that runs, and back.
    async fn lives(&self, name: &str, config: Value) {
        let model = self.create(&config).await;
        let like = self.engine.like(&container(&model).await).await;
        self.delete(&model).await;
        let (mut floor, mut cost) = (Vec::new(), Vec::new());
        let (mut floor_end, mut cost_end) = (Vec::new(), Vec::new());
        for round in 0..44 {
            // What comes second finds the engine warm, or busy with what the first left behind.
            for ours in [round % 2 == 0, round % 2 != 0] {
                if ours {
                    let (sandbox, took) = timed(self.create(&config)).await;
                    let ((), ended) = timed(self.delete(&sandbox)).await;
                    cost.push(took);
                    cost_end.push(ended);
                } else {
                    let (id, took) = timed(self.engine.start(&like)).await;
                    let ((), ended) = timed(self.engine.end(&id)).await;
                    floor.push(took);
                    floor_end.push(ended);
                }
            }
        }
        for samples in [&mut floor, &mut cost, &mut floor_end, &mut cost_end] {
            samples.drain(..4);
        }
        let name = |what| format!("{what}, {name}");
        compare(&name("create + start / raw"), floor, cost, 1.05);
        compare(
            &name("stop + delete / raw kill + remove"),
            floor_end,
            cost_end,
            1.1,
        );
    }

    /// Commands, one after the other and many at once.
    async fn commands(&self) {
        let sandbox = self.create(&json!({})).await;
        let mut one = Spawner::new(1);
        let (mut floor, mut cost) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            floor.push(one.spawn());
            cost.push(timed(echo(&sandbox)).await.1);
        }
        one.end();
        let ours = cost.clone();
        compare("`echo hi` / posix_spawn on the host", floor, cost, 1.6);

        let id = container(&sandbox).await;
        let (mut floor, mut cost) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            floor.push(timed(self.engine.exec(&id, "echo hi")).await.1);
            // The engine goes on tidying up after an exec, which delays whatever is next.
            for _ in 0..10 {
                cost.push(timed(echo(&sandbox)).await.1);
            }
        }
        compare("`echo hi` / the engine's exec", floor, cost, 1.0 / 30.0);

        let mut many = Spawner::new(50);
        let (mut floor, mut cost) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            floor.push(many.spawn());
            cost.push(timed(join_all((0..50).map(|_| echo(&sandbox)))).await.1);
        }
        many.end();
        compare("50 commands at once / 50 spawns", floor, cost, 1.0 / 0.6);
        self.delete(&sandbox).await;

        let attached = self.create(&json!({"transport": "attach"})).await;
        let mut cost = Vec::new();
        for _ in 0..400 {
            cost.push(timed(echo(&attached)).await.1);
        }
        compare(
            "`echo hi` over attach / over the socket",
            ours,
            cost,
            Duration::from_millis(3),
        );
        self.delete(&attached).await;
    }

    /// A gibibyte of output, and what it does to the host's memory.
    async fn output(&self) {
        let sandbox = self.create(&json!({})).await;
        let like = self.engine.like(&container(&sandbox).await).await;
        drain(&sandbox, 64 << 20).await;
        let before = status("self", "VmRSS");
        // From here on the peak counts.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let mut cost = Vec::new();
        for _ in 0..3 {
            cost.push(timed(drain(&sandbox, GIB)).await.1);
        }
        let grown = status("self", "VmHWM").saturating_sub(before);
        let (mut floor, mut unlogged) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let argv = writer(SLOW);
            floor.push(self.engine.attach(&like, None, &argv, SLOW).await);
            unlogged.push(self.engine.attach(&like, Some("none"), &argv, SLOW).await);
            cost.push(timed(drain(&sandbox, GIB)).await.1);
        }
        self.delete(&sandbox).await;
        let mebibytes = |bytes: u64, time: Duration| (bytes >> 20) as f64 / time.as_secs_f64();
        let ours = mebibytes(GIB, median(cost));
        let rate = |work, floor, least: Option<f64>| {
            let floor = mebibytes(SLOW, median(floor));
            let ratio = ours / floor;
            let budget = least.map_or_else(String::new, |least| {
                let verdict = verdict(ratio >= least && ours >= 500.0);
                format!("  >= {least} x and 500 MiB/s ({verdict})")
            });
            println!(
                "{work:<46} {:>11} {:>11} {ratio:>7.2}{budget}",
                format!("{floor:.0} MiB/s"),
                format!("{ours:.0} MiB/s"),
            );
        };
        rate(
            "1 GiB of output / through the engine's attach",
            floor,
            Some(6.0),
        );
        rate("the same, the engine told to log nothing", unlogged, None);
        println!(
            "{:<46} {:>11} {:>11} {:>7}  <= 32 MiB ({})",
            "its peak of memory in the host",
            "",
            format!("{:.1} MiB", grown as f64 / 1024.0),
            "",
            verdict(grown <= 32 << 10)
        );
    }

    /// Many sandboxes at once.
    async fn crowd(&self, count: usize) {
        let model = self.create(&json!({})).await;
        let like = self.engine.like(&container(&model).await).await;
        self.delete(&model).await;
        let (mut floor, mut cost) = (Vec::new(), Vec::new());
        let (mut floor_end, mut cost_end) = (Vec::new(), Vec::new());
        for ours in [true, false, false, true] {
            if ours {
                let config = json!({});
                let all = (0..count).map(|_| self.create(&config));
                let (all, took) = timed(join_all(all)).await;
                let ends = all.iter().map(|sandbox| self.delete(sandbox));
                cost.push(took);
                cost_end.push(timed(join_all(ends)).await.1);
            } else {
                let all = (0..count).map(|_| self.engine.start(&like));
                let (all, took) = timed(join_all(all)).await;
                let ends = all.iter().map(|id| self.engine.end(id));
                floor.push(took);
                floor_end.push(timed(join_all(ends)).await.1);
            }
        }
        let name = |what| format!("{count} {what}");
        compare(&name("creates at once / raw"), floor, cost, 1.1);
        compare(&name("deletes at once / raw"), floor_end, cost_end, 1.1);
    }
}

/// Returns the id of a sandbox's container.
async fn container(sandbox: &Arc<Sandbox>) -> String {
    let id = sandbox.info().await.backend["container_id"].clone();
    id.as_str().unwrap().into()
}

async fn echo(sandbox: &Arc<Sandbox>) {
    let result = sandbox.run(Command::shell("echo hi"), None).await.unwrap();
    assert_eq!(result.stdout, b"hi\n");
}

/// Has a sandbox write so many bytes, and reads them.
async fn drain(sandbox: &Arc<Sandbox>, bytes: u64) {
    let (sink, source) = pipe();
    let io = CommandIo {
        stdin: ByteSource::empty(),
        stdout: sink,
        stderr: ByteSink::null(),
        controls: boxyard_host::Controls::none(),
    };
    let command = Command::argv(writer(bytes));
    let count = async {
        let mut count = 0;
        while let Some(bytes) = source.read(1 << 20).await.unwrap() {
            count += bytes.len() as u64;
        }
        count
    };
    let (exit, count) = tokio::join!(sandbox.execute_command(&command, io), count);
    assert_eq!((exit.unwrap().exit_code, count), (0, bytes));
}

/// Returns what writes so many bytes, in large pieces: busybox's `head` takes longer over them
/// than any of what they go through.
fn writer(bytes: u64) -> [String; 4] {
    let count = format!("count={}", bytes >> 16);
    ["dd".into(), "if=/dev/zero".into(), "bs=64k".into(), count]
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let value = work.await;
    (value, began.elapsed())
}
