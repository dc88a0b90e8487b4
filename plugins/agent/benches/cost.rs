//! What commands cost through agent and client, beside their floor, in one run.
//!
//! `cargo measure` runs it. Each pair is interleaved, so that a noisy machine disturbs both
//! sides alike. Nothing here fails: the last column says whether the budget is kept.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark talks to people and stops where it cannot measure"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command as Process, Stdio},
    time::{Duration, Instant},
};

use boxyard_agent::{Client, Program, protocol::Setup};
use boxyard_plugin_api::{ByteSource, CallController, Command, CommandIo, Controls, pipe};

/// The benchmark runs itself with this argument to be the small program beside.
const FLOOR: &str = "--floor";
const GIB: u64 = 1 << 30;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == FLOOR) {
        return floor(&arguments[at + 1]);
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("boxyard-agent");
    let bytes = Program::for_this_machine(Path::new("/nonexistent")).unwrap();
    fs::write(&program, bytes.bytes()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    println!("agent: {} KiB", bytes.bytes().len() / 1024);
    runtime.block_on(async {
        echo(&program, 1, 400, 1.25).await;
        echo(&program, 50, 40, 1.0 / 0.6).await;
        stream(&program).await;
        idle(&program).await;
    });
}

struct Agent {
    client: Client,
    child: Child,
}

async fn start(program: &Path) -> Agent {
    let command = Process::new(program);
    let (child, line) = boxyard_agent::spawn(command).await.unwrap();
    let setup = Setup {
        env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        working_dir: "/".into(),
        ..Setup::default()
    };
    let (client, work) = Client::connect(line, setup).await.unwrap();
    tokio::spawn(work);
    Agent { client, child }
}

impl Agent {
    async fn run(&self, line: &str) -> Vec<u8> {
        let (sink, source) = pipe();
        let io = CommandIo {
            stdin: ByteSource::empty(),
            stdout: sink,
            stderr: boxyard_plugin_api::ByteSink::null(),
            controls: Controls::none(),
        };
        let (command, call) = (Command::shell(line), CallController::new(0).call());
        let (exit, bytes) = tokio::join!(
            self.client.execute_command(&command, io, &call),
            source.read_to_end(1 << 20)
        );
        assert_eq!(exit.unwrap().exit_code, 0);
        bytes.unwrap()
    }

    async fn stop(mut self) {
        self.client
            .shut_down(Duration::from_secs(10))
            .await
            .unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

/// The small program: each line that it reads has it spawn as many shells at once, drain them
/// and wait for them; it answers with the nanoseconds.
fn floor(at_once: &str) {
    let at_once: usize = at_once.parse().unwrap();
    for _ in std::io::stdin().lock().lines() {
        let began = Instant::now();
        let spawn = |_| {
            // By `posix_spawn`: nothing here asks for more than that can do.
            Process::new("/bin/sh")
                .args(["-c", "echo hi"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let children: Vec<Child> = (0..at_once).map(spawn).collect();
        for mut child in children {
            let mut text = Vec::new();
            child.stdout.take().unwrap().read_to_end(&mut text).unwrap();
            assert_eq!(text, b"hi\n");
            assert!(child.wait().unwrap().success());
        }
        println!("{}", began.elapsed().as_nanos());
    }
}

async fn echo(program: &Path, at_once: usize, rounds: usize, most: f64) {
    let mut small = Process::new(std::env::current_exe().unwrap())
        .args([FLOOR, &at_once.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ask = small.stdin.take().unwrap();
    let mut answers = BufReader::new(small.stdout.take().unwrap()).lines();
    let agent = start(program).await;
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    for round in 0..rounds + 5 {
        ask.write_all(b"\n").unwrap();
        let theirs = answers.next().unwrap().unwrap().parse().unwrap();
        let began = Instant::now();
        let all = (0..at_once).map(|_| agent.run("echo hi"));
        for output in futures_util::future::join_all(all).await {
            assert_eq!(output, b"hi\n");
        }
        let ours = began.elapsed();
        if round >= 5 {
            floor.push(Duration::from_nanos(theirs));
            cost.push(ours);
        }
    }
    drop(ask);
    small.wait().unwrap();
    agent.stop().await;
    let (floor, cost) = (median(floor), median(cost));
    let ratio = cost.as_secs_f64() / floor.as_secs_f64();
    println!(
        "`echo hi`, {at_once} at once: floor {floor:.1?}, agent {cost:.1?}, ratio {ratio:.2}, \
         budget {most:.2} ({})",
        verdict(ratio <= most)
    );
}

/// A gibibyte of output, beside the same through a pipe.
async fn stream(program: &Path) {
    let agent = start(program).await;
    let (mut floor, mut cost) = (Vec::new(), Vec::new());
    let before = (resident("self"), resident_of(&agent));
    for _ in 0..3 {
        let began = Instant::now();
        let mut head = Process::new("head")
            .args(["-c", &GIB.to_string(), "/dev/zero"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let mut pipe = head.stdout.take().unwrap();
        while pipe.read(&mut buffer).unwrap() > 0 {}
        head.wait().unwrap();
        floor.push(began.elapsed());

        let began = Instant::now();
        let (sink, source) = boxyard_plugin_api::pipe();
        let io = CommandIo {
            stdin: ByteSource::empty(),
            stdout: sink,
            stderr: boxyard_plugin_api::ByteSink::null(),
            controls: Controls::none(),
        };
        let command = Command::argv(["head", "-c", &GIB.to_string(), "/dev/zero"]);
        let call = CallController::new(0).call();
        let count = async {
            let mut count = 0;
            while let Some(bytes) = source.read(1 << 20).await.unwrap() {
                count += bytes.len() as u64;
            }
            count
        };
        let (exit, count) = tokio::join!(agent.client.execute_command(&command, io, &call), count);
        assert_eq!((exit.unwrap().exit_code, count), (0, GIB));
        cost.push(began.elapsed());
    }
    let after = (resident("self"), resident_of(&agent));
    agent.stop().await;
    let rate = |time: Duration| 1024.0 / time.as_secs_f64();
    let (floor, cost) = (rate(median(floor)), rate(median(cost)));
    println!(
        "1 GiB of output: pipe {floor:.0} MiB/s, agent {cost:.0} MiB/s, ratio {:.2}, budget 0.25 \
         and 600 MiB/s ({})",
        cost / floor,
        verdict(cost >= 0.25 * floor && cost >= 600.0)
    );
    let growth = (
        after.0.saturating_sub(before.0),
        after.1.saturating_sub(before.1),
    );
    println!(
        "its memory: the host grew by {} KiB, the agent by {} KiB, budget 16 MiB ({})",
        growth.0,
        growth.1,
        verdict(growth.0 + growth.1 <= 16 * 1024)
    );
}

/// A thousand agents that do nothing.
async fn idle(program: &Path) {
    const AGENTS: u64 = 1000;
    let before = resident("self");
    let mut agents = Vec::new();
    for _ in 0..AGENTS {
        agents.push(start(program).await);
    }
    let client = (resident("self") - before) / AGENTS;
    let agent = agents.iter().map(resident_of).sum::<u64>() / AGENTS;
    let one = resident(&agents[0].client.pid().to_string());
    for agent in agents {
        agent.stop().await;
    }
    println!(
        "{AGENTS} idle agents, each: {agent} KiB resident with its guard ({one} KiB itself, \
         budget 2 MiB), {client} KiB in the host, budget 2.5 MiB ({})",
        verdict(agent + client <= 2560 && one <= 2048)
    );
}

fn resident_of(agent: &Agent) -> u64 {
    resident(&agent.client.pid().to_string()) + resident(&agent.child.id().to_string())
}

/// Resident memory of a process in KiB, what it shares with others included.
fn resident(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_ascii_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort();
    samples[samples.len() / 2]
}

fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "MISSED" }
}
