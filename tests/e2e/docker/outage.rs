//! An engine that stops while sandboxes are there: what goes on, what ends, and what is left of it
//! once it is back.

use std::{
    fs,
    io::{BufRead, BufReader},
    sync::Arc,
    time::{Duration, Instant},
};

use boxyard_host::{
    Command, CommandResult, CreateError, EndError, Error, ErrorCode, Sandbox, Status,
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};

use super::{
    Dock, container, ended,
    private::{Private, kill},
};
use crate::world::{bounded, eventually, run};

/// How long anything may take that must come, on a machine that does other things.
const BOUND: Duration = Duration::from_secs(30);

/// How long a sandbox may take to be an error once its commands failed: a second on a machine that
/// does nothing else, and as long again as an engine that hangs is given.
const SOON: Duration = Duration::from_secs(10);

/// The signals that end an engine: it is told to, and it dies.
const ENDS: [Signal; 2] = [Signal::TERM, Signal::KILL];

/// A command that runs, and waits to be let go.
struct Waiting {
    sandbox: Arc<Sandbox>,
    result: JoinHandle<Result<CommandResult, Error>>,
}

impl Waiting {
    /// Starts one, and waits until it runs.
    async fn start(sandbox: &Arc<Sandbox>) -> Self {
        let line = "touch /tmp/runs; until [ -e /tmp/go ]; do sleep 0.05; done; echo went on";
        let running = Arc::clone(sandbox);
        let result = tokio::spawn(async move { running.run(Command::shell(line), None).await });
        let runs = Command::shell("until [ -e /tmp/runs ]; do sleep 0.05; done");
        within(sandbox.run(runs, None)).await.unwrap();
        Self {
            sandbox: Arc::clone(sandbox),
            result,
        }
    }

    /// Lets it go on to its end, which it comes to.
    async fn goes_on(self) {
        assert!(!self.result.is_finished());
        run(&self.sandbox, &["touch", "/tmp/go"]).await.unwrap();
        let result = within(self.result).await.unwrap().unwrap();
        assert_eq!(result.stdout_text(), "went on\n");
    }

    /// Waits until it fails, and the sandbox with it; returns what both say.
    async fn fails(self) -> String {
        let error = within(self.result).await.unwrap().unwrap_err();
        assert_eq!(error.code(), ErrorCode::UNAVAILABLE, "{error}");
        let began = Instant::now();
        let what = format!("error of {}", self.sandbox.id());
        eventually(&what, || self.sandbox.status() == Status::Error).await;
        let took = began.elapsed();
        assert!(took < SOON, "it took {took:?}");
        let cause = cause(&self.sandbox).await;
        assert!(
            !cause.is_empty() && error.message().contains(&cause),
            "{error}"
        );
        cause
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(BOUND, work).await.expect("it takes too long")
}

async fn cause(sandbox: &Arc<Sandbox>) -> String {
    let info = sandbox.info().await;
    let error = info.metadata.get("error").and_then(Value::as_str);
    error.unwrap_or_default().to_owned()
}

fn names_the_engine(text: &str) {
    for named in ["the engine does not answer", "systemctl start docker"] {
        assert!(text.contains(named), "no {named:?} in {text:?}");
    }
}

/// Checks that stopping and deleting a sandbox fail, and that the engine is to blame.
async fn cannot_be_deleted(dock: &Dock, sandbox: &Sandbox) {
    let manager = dock.host().manager();
    for answer in [
        within(manager.stop(sandbox.id())).await,
        within(manager.delete(sandbox.id())).await,
    ] {
        let Err(EndError::Backend { source, .. }) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(source.code(), ErrorCode::UNAVAILABLE, "{source}");
        assert!(source.is_retryable(), "{source}");
        assert!(source.message().contains(&container(sandbox)), "{source}");
        names_the_engine(source.message());
    }
    assert_eq!(sandbox.status(), Status::Error);
}

/// Checks that no sandbox is made, and that the engine is to blame.
async fn cannot_be_made(dock: &Dock) {
    let Err(CreateError::Backend { source, .. }) = within(dock.create(json!({}))).await else {
        panic!("a sandbox was made without an engine");
    };
    assert_eq!(source.code(), ErrorCode::UNAVAILABLE, "{source}");
    names_the_engine(source.message());
}

/// Checks that sandboxes can be made and used.
async fn works(dock: &Dock) {
    let sandbox = within(dock.sandbox(json!({}))).await;
    let result = within(run(&sandbox, &["echo", "works"])).await.unwrap();
    assert_eq!(result.stdout_text(), "works\n");
    within(dock.delete(&sandbox)).await;
}

fn attached() -> Value {
    json!({ "transport": "attach" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_goes_on_without_the_engine_that_leaves_it_alone() {
    let Some(mut engine) = Private::start(&["--live-restore"]) else {
        return;
    };
    bounded(async {
        let dock = Dock::on(&engine).start().await;
        let sandbox = dock.sandbox(json!({})).await;
        for signal in ENDS {
            let unwanted = dock.sandbox(json!({})).await;
            let attached = dock.sandbox(attached()).await;
            let waiting = Waiting::start(&sandbox).await;
            let heard = Waiting::start(&attached).await;
            engine.stop(signal);
            // It was spoken to through the engine.
            names_the_engine(&heard.fails().await);
            run(&attached, &["true"]).await.unwrap_err();
            let next = within(run(&sandbox, &["echo", "next"])).await.unwrap();
            assert_eq!(next.stdout_text(), "next\n");
            waiting.goes_on().await;
            within(run(&sandbox, &["rm", "/tmp/go", "/tmp/runs"]))
                .await
                .unwrap();
            cannot_be_made(&dock).await;
            cannot_be_deleted(&dock, &unwanted).await;
            cannot_be_deleted(&dock, &attached).await;
            engine.start_again();
            let next = within(run(&sandbox, &["echo", "still"])).await.unwrap();
            assert_eq!(next.stdout_text(), "still\n");
            assert_eq!(sandbox.status(), Status::Running);
            within(dock.delete(&unwanted)).await;
            within(dock.delete(&attached)).await;
            assert_eq!(dock.containers().len(), 1);
            works(&dock).await;
        }
        within(dock.delete(&sandbox)).await;
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_engine_takes_with_it_is_an_error_and_deleted_when_it_is_back() {
    let Some(mut engine) = Private::start(&[]) else {
        return;
    };
    bounded(async {
        let dock = Dock::on(&engine).start().await;
        for signal in ENDS {
            let sandboxes = [
                dock.sandbox(json!({})).await,
                dock.sandbox(attached()).await,
                dock.sandbox(json!({ "remove_on_exit": false })).await,
            ];
            let [socket, attach, _] = &sandboxes;
            let (over_socket, over_attach) =
                (Waiting::start(socket).await, Waiting::start(attach).await);
            engine.stop(signal);
            over_attach.fails().await;
            if signal == Signal::KILL {
                // It could not take anything with it, and does that when it is back.
                run(socket, &["true"]).await.unwrap();
                engine.start_again();
                let cause = over_socket.fails().await;
                assert!(cause.contains("the container"), "{cause}");
            } else {
                over_socket.fails().await;
                cannot_be_deleted(&dock, socket).await;
                cannot_be_deleted(&dock, attach).await;
                engine.start_again();
            }
            for sandbox in &sandboxes {
                within(dock.delete(sandbox)).await;
            }
            let kept = dock.containers();
            assert_eq!(kept.len(), 1, "{kept:?}");
            dock.ask(&["rm", "-f", &kept[0]]).unwrap();
            dock.is_clean();
            works(&dock).await;
        }
        dock.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_removed_without_the_engine_is_swept_once_it_is_back() {
    let Some(mut engine) = Private::start(&["--live-restore"]) else {
        return;
    };
    bounded(async {
        // A host that ends, one that dies, and one whose engine takes its sandbox along.
        let mut dock = Dock::on(&engine).start().await;
        dock.sandbox(json!({})).await;
        dock.sandbox(attached()).await;
        let mut dead = dock
            .run(&["--shell", "echo up; sleep 600"])
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(dead.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        let attach = ["-c", "transport=attach", "--shell", "echo up; sleep 600"];
        let mut lost = dock.run(&attach).spawn().unwrap();
        line.clear();
        let mut stdout = BufReader::new(lost.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        assert_eq!(dock.containers().len(), 4);
        engine.stop(Signal::KILL);
        dead.kill().unwrap();
        dead.wait().unwrap();
        let lost = ended(&lost.wait_with_output().unwrap());
        assert!(lost.0.is_some_and(|code| code != 0), "{lost:?}");
        within(dock.host.take().unwrap().shutdown()).await;
        let leases = dock.yard.root().join("state/boxyard/leases");
        assert_eq!(fs::read_dir(leases).unwrap().count(), 3);
        // One that finds no engine sweeps nothing, and forgets nothing.
        let refused = ended(&dock.run(&["--", "true"]).output().unwrap());
        assert_ne!(refused.0, Some(0), "{refused:?}");
        engine.start_again();
        dock.next_run_sweeps();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_hangs_holds_no_news_up() {
    let Some(mut engine) = Private::start(&[]) else {
        return;
    };
    bounded(async {
        let dock = Dock::on(&engine).start().await;
        let sandbox = dock.sandbox(json!({})).await;
        let pid = sandbox.info().await.backend["pid"].as_u64().unwrap();
        let waiting = Waiting::start(&sandbox).await;
        engine.signal(Signal::STOP);
        let next = within(run(&sandbox, &["echo", "next"])).await.unwrap();
        assert_eq!(next.stdout_text(), "next\n");
        kill(u32::try_from(pid).unwrap());
        let cause = waiting.fails().await;
        assert!(
            cause.contains("the engine did not answer within"),
            "{cause}"
        );
        engine.signal(Signal::CONT);
        within(dock.delete(&sandbox)).await;
        works(&dock).await;
        dock.end().await;
        // And no test is held up by its end.
        engine.stop(Signal::KILL);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_being_made_when_the_engine_died_goes_once_it_is_back() {
    let Some(mut engine) = Private::start(&[]) else {
        return;
    };
    bounded(async {
        let mut dock = Dock::on(&engine).start().await;
        for is_back_in_time in [true, false] {
            let creations = (0..6).map(|_| dock.create(json!({})));
            let creations = within(async {
                let creations = join_all(creations);
                tokio::pin!(creations);
                let began = async {
                    while dock.list().unwrap_or_default().is_empty() {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    created = &mut creations => panic!("no engine died: {created:?}"),
                    () = began => {}
                }
                engine.stop(Signal::KILL);
                creations.await
            })
            .await;
            let failed = creations.iter().filter(|made| made.is_err()).count();
            assert!(failed > 0, "all of them were made");
            if is_back_in_time {
                engine.start_again();
                for sandbox in dock.host().manager().list() {
                    within(dock.delete(&sandbox)).await;
                }
                eventually("nothing is left", || dock.containers().is_empty()).await;
                dock.is_clean();
            } else {
                within(dock.host.take().unwrap().shutdown()).await;
                engine.start_again();
                dock.next_run_sweeps();
            }
        }
    })
    .await;
}
