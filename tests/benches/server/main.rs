//! What a command costs over HTTP, beside the library, a spawn on the host and ms-enclave's own server
//! on the same engine, in one run with one client.
//!
//! `cargo measure` runs it. Rows with ms-enclave need `BOXYARD_MS_ENCLAVE_PYTHON`, a Python that has it,
//! which `cargo measure` makes. Nothing here fails: the last column says whether the budget is kept.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a benchmark talks to people and stops where it cannot measure"
)]

mod client;
#[path = "../common/mod.rs"]
mod common;
mod ping;
#[path = "../common/process.rs"]
mod process;
mod servers;

use std::{
    env,
    process::Command as Process,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use boxyard_conformance::{Library, Yard};
use boxyard_host::{Command, CreateRequest, Host};
use serde_json::{Value, json};

use crate::{
    client::Client,
    common::{Budget, built, compare, head, row, verdict},
    ping::Ping,
    process::{Spawner, status},
    servers::Server,
};

/// What every container is made from.
const IMAGE: &str = "python:3.11-slim";
const SHELL: &str = "shell_executor";
const PYTHON: &str = "python_executor";
const MILLISECOND: Duration = Duration::from_millis(1);

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let after = |name| {
        let at = arguments.iter().position(|it| it == name)?;
        Some(arguments[at + 1].as_str())
    };
    if let Some(at_once) = after(process::ARGUMENT) {
        return process::serve(at_once);
    }
    if arguments.iter().any(|it| it == ping::ARGUMENT) {
        return ping::serve();
    }
    let yard = Yard::new().unwrap();
    for plugin in ["docker", "local_process"] {
        let library = built(&format!("libboxyard_plugin_{plugin}.so"));
        let library = Library::read(&library).unwrap();
        yard.put(&format!("{plugin}.so"), &library).unwrap();
    }
    head("floor");
    idle(&yard);
    let boxyard = Server::boxyard(&yard);
    local_process(&yard, &boxyard);
    if !has_image() {
        println!("SKIPPED, what needs a docker engine that has {IMAGE}");
        return;
    }
    pool(&boxyard);
    health(&boxyard);
    match Server::ms_enclave() {
        Ok(enclave) => {
            beside(&boxyard, &enclave);
            ends(boxyard, enclave);
        }
        Err(why) => println!("SKIPPED, what stands beside ms-enclave: {why}"),
    }
}

fn has_image() -> bool {
    let mut docker = Process::new("docker");
    let asked = docker.args(["image", "inspect", IMAGE]).output();
    asked.is_ok_and(|output| output.status.success())
}

/// What a server takes that does nothing, and what a sandbox adds that does nothing.
fn idle(yard: &Yard) {
    const SANDBOXES: u64 = 200;
    let boxyard = Server::boxyard(yard);
    let client = boxyard.client();
    assert_eq!(client.get("/health")["healthy"], true);
    let before = status(&boxyard.pid(), "VmRSS");
    let is_kept = before <= 15 << 10;
    memory(
        "`boxyard serve`, idle, two plugins",
        before,
        "15 MiB",
        is_kept,
    );
    let ids: Vec<_> = (0..SANDBOXES)
        .map(|_| client.create("local_process", &json!({})))
        .collect();
    let each = (status(&boxyard.pid(), "VmRSS") - before) / SANDBOXES;
    memory("each idle sandbox more", each, "100 KiB", each <= 100);
    for id in ids {
        client.delete(&id);
    }
    boxyard.end();
}

fn memory(work: &str, kibibytes: u64, budget: &str, is_kept: bool) {
    let amount = if kibibytes < 1 << 10 {
        format!("{kibibytes} KiB")
    } else {
        format!("{:.1} MiB", kibibytes as f64 / 1024.0)
    };
    println!(
        "{work:<46} {:>11} {amount:>11} {:>7}  <= {budget} ({})",
        "",
        "",
        verdict(is_kept)
    );
}

/// Commands without a container: beside the library, and beside a program that only spawns.
fn local_process(yard: &Yard, boxyard: &Server) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (host, sandbox) = runtime.block_on(async {
        let host = Host::start(yard.config.clone()).await.unwrap();
        let request = CreateRequest::new("local-process");
        let sandbox = host.manager().create(request).await.unwrap();
        (host, sandbox)
    });
    let in_library = || {
        let result = runtime.block_on(sandbox.run(Command::shell("echo hi"), None));
        assert_eq!(result.unwrap().stdout, b"hi\n");
    };
    let client = boxyard.client();
    let id = client.create("local_process", &json!({ "tools_config": [SHELL] }));
    let mut one = Spawner::new(1);
    let (mut floor, mut library, mut cost) = (Vec::new(), Vec::new(), Vec::new());
    // In turns that are long enough for each to be in the processors' caches, as its users are.
    for _ in 0..20 {
        floor.extend((0..20).map(|_| one.spawn()));
        library.extend((0..20).map(|_| timed(in_library).1));
        cost.extend((0..20).map(|_| timed(|| client.echo(&id)).1));
    }
    one.end();
    let work = "`echo hi` over HTTP, local-process / a spawn";
    compare(work, floor, cost.clone(), 2.0);
    let added = Budget {
        times: 1.0,
        more: MILLISECOND / 2,
    };
    compare("the same / the library's call", library, cost, added);
    runtime.block_on(host.shutdown());

    let mut many = Spawner::new(50);
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        floor.push(many.spawn());
        cost.push(at_once(50, &client, &id));
    }
    many.end();
    let work = "50 commands at once / 50 spawns";
    compare(work, floor, cost, 2.0);
    client.delete(&id);
}

/// Runs so many commands at once, each on a connection that is kept.
fn at_once(count: usize, client: &Client, id: &str) -> Duration {
    let ((), took) = timed(|| {
        thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| client.echo(id));
            }
        });
    });
    took
}

/// How long after a request a command of a pool runs, beside one of a sandbox that is at hand: it says
/// when it is.
fn pool(boxyard: &Server) {
    let client = boxyard.client();
    client.initialize_pool(2, &config());
    let id = client.create("docker", &config());
    let since = |began: SystemTime, now: String| {
        let now = UNIX_EPOCH + Duration::from_nanos(now.trim().parse().unwrap());
        now.duration_since(began).unwrap_or_default()
    };
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        floor.extend((0..20).map(|_| since(SystemTime::now(), client.now(&id))));
        cost.extend((0..20).map(|_| since(SystemTime::now(), client.now_in_pool())));
    }
    let work = "a command runs, of a warm pool / of a sandbox";
    compare(work, floor, cost, MILLISECOND * 2);
    client.delete(&id);
}

/// How long a look at a busy server takes, beside a server that only echoes.
fn health(boxyard: &Server) {
    const SANDBOXES: usize = 200;
    let client = boxyard.client();
    let mut ping = Ping::start();
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let creates: Vec<_> = (0..SANDBOXES)
            .map(|_| scope.spawn(|| boxyard.client().create("docker", &config())))
            .collect();
        while !creates.iter().all(|create| create.is_finished()) {
            floor.push(timed(|| ping.echo()).1);
            cost.push(timed(|| client.get("/health")).1);
            thread::sleep(MILLISECOND * 5);
        }
    });
    ping.end();
    let count = cost.len();
    row(
        &format!("p99 of {count} `/health` in {SANDBOXES} creates / of pings"),
        percentile(floor, 99),
        percentile(cost, 99),
        3.0,
    );
    for id in client.sandboxes() {
        client.delete(&id);
    }
}

/// Returns the sample that so many of a hundred are below.
fn percentile(mut samples: Vec<Duration>, percent: usize) -> Duration {
    samples.sort();
    samples[samples.len() * percent / 100]
}

/// The same requests to both servers, by the same client.
fn beside(boxyard: &Server, enclave: &Server) {
    println!();
    head("ms-enclave");
    let [theirs, ours] = [enclave, boxyard].map(|server| {
        let client = server.client();
        let id = client.create("docker", &config());
        (client, id)
    });
    let each = |work, rounds, most, measure: fn(&Client, &str) -> Duration| {
        let (mut floor, mut cost) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            floor.push(measure(&theirs.0, &theirs.1));
            // The engine goes on tidying up after an exec, which delays whatever is next.
            cost.extend((0..10).map(|_| measure(&ours.0, &ours.1)));
        }
        compare(work, floor, cost, most);
    };
    each(
        "`echo hi` in a docker sandbox",
        100,
        1.0 / 25.0,
        |client, id| timed(|| client.echo(id)).1,
    );
    each("50 commands at once in one", 5, 1.0 / 25.0, |client, id| {
        at_once(50, client, id)
    });
    each("`print(1)` by python_executor", 20, 1.0, |client, id| {
        let code = json!({ "code": "print(1)" });
        timed(|| client.run(id, PYTHON, &code, "1\n")).1
    });
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    let (mut floor_end, mut cost_end) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        for (client, made, ended) in [
            (&theirs.0, &mut floor, &mut floor_end),
            (&ours.0, &mut cost, &mut cost_end),
        ] {
            let (id, took) = timed(|| client.create("docker", &config()));
            made.push(took);
            ended.push(timed(|| client.delete(&id)).1);
        }
    }
    compare("a docker sandbox is made", floor, cost, 1.05);
    compare("and deleted", floor_end, cost_end, 1.0 / 25.0);
}

/// Ends both servers, each with so many sandboxes.
fn ends(boxyard: Server, enclave: Server) {
    const SANDBOXES: usize = 3;
    let end = |server: Server| {
        let client = server.client();
        for _ in client.sandboxes().len()..SANDBOXES {
            client.create("docker", &config());
        }
        server.end()
    };
    let (floor, cost) = (end(enclave), end(boxyard));
    let work = "SIGTERM with 3 docker sandboxes";
    row(work, floor, cost, Duration::from_secs(1));
}

/// Returns how a sandbox of either server is made.
fn config() -> Value {
    json!({ "image": IMAGE, "tools_config": [SHELL, PYTHON] })
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let value = work();
    (value, began.elapsed())
}
