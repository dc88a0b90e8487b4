//! Whatever ends a command, nothing that it started lives on.
//!
//! `BOXYARD_REPEAT` says how often each is tried.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command as HostCommand,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use boxyard_agent::{Process, protocol::Setup};
use boxyard_plugin_api::{ByteSource, CallController, Command, Controls, Error, ErrorCode};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    cgroup::Cgroup,
    harness::{
        TestAgent, agent, agent_started_by, call, eventually, io, program_in, setup, within,
    },
};

/// Commands that are hard to kill. Each makes the file `ready` once it is.
const HARD: &[(&str, &str)] = &[
    ("a child", "sleep 1000 & touch ready; wait"),
    (
        "a grandchild",
        "sh -c 'sleep 1000 & touch ready; wait' & wait",
    ),
    (
        "a session of its own",
        "setsid sh -c 'touch ready; sleep 1000' & wait",
    ),
    (
        "a daemon that forked twice",
        "(setsid sh -c 'sleep 1000 & touch ready; exec sleep 1000' </dev/null >/dev/null 2>&1 &); \
         sleep 1000",
    ),
    (
        "deaf to signals",
        "trap '' HUP INT QUIT TERM USR1 USR2; touch ready; while :; do sleep 1000; done",
    ),
    (
        "a child that is stopped",
        "sleep 1000 & kill -STOP $!; touch ready; wait",
    ),
    ("itself stopped", "touch ready; kill -STOP $$; sleep 1000"),
    (
        "nohup",
        "nohup sleep 1000 >/dev/null 2>&1 & touch ready; wait",
    ),
    (
        "closed streams",
        "exec <&- >&- 2>&-; touch ready; sleep 1000",
    ),
    (
        "a tree",
        "t() { [ $1 = 0 ] || { t $(($1 - 1)) & t $(($1 - 1)) & }; sleep 1000; }; t 4 & \
         touch ready; wait",
    ),
];

/// Commands that fork while they are killed. Run only where the number of processes is bounded.
const FORKING: &[(&str, &str)] = &[
    (
        "a fork in every process",
        "touch ready; exec perl -e 'fork while 1'",
    ),
    (
        "a child that goes on and a parent that goes",
        "perl -e 'while (1) { my $pid = fork; exit if $pid }' & touch ready; sleep 1000",
    ),
    (
        "sessions all the way down",
        "touch ready; exec perl -MPOSIX -e 'while (1) { fork; POSIX::setsid() }'",
    ),
];

/// What ends a command.
#[derive(Clone, Copy, Debug)]
enum End {
    Timeout,
    Cancel,
    Drop,
    Shutdown,
    Disconnect,
    AgentKilled,
    GuardKilled,
    GuardTerminated,
}

const ENDS: [End; 8] = [
    End::Timeout,
    End::Cancel,
    End::Drop,
    End::Shutdown,
    End::Disconnect,
    End::AgentKilled,
    End::GuardKilled,
    End::GuardTerminated,
];

fn repeats() -> usize {
    let text = std::env::var("BOXYARD_REPEAT").ok();
    text.map_or(1, |text| text.parse().unwrap())
}

/// What marks the processes of one agent in their environment.
struct Mark(String);

impl Mark {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("BOXYARD_TEST_MARK={}-{number}", std::process::id()))
    }

    fn setup(&self, directory: &Path) -> Setup {
        let (name, value) = self.0.split_once('=').unwrap();
        let mut setup = setup();
        setup.env.insert(name.into(), value.into());
        setup.working_dir = directory.to_str().unwrap().into();
        setup
    }

    /// Whether nothing has it, however often one looks: what forks and goes in turn is never
    /// where it was looked for a moment ago.
    fn is_gone(&self) -> bool {
        (0..20).all(|_| self.processes().is_empty())
    }

    /// The processes that have it and are no zombies.
    fn processes(&self) -> Vec<i32> {
        let has_mark = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == self.0.as_bytes())
        };
        let mut found: Vec<i32> = process_table().into_iter().filter(has_mark).collect();
        found.sort_unstable();
        found
    }
}

fn process_table() -> BTreeSet<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.filter_map(pid).collect()
}

fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Runs a command until it is ready, ends it, and sees what is left of it.
async fn ends(agent: TestAgent, mark: &Mark, what: &str, line: &str, end: End) {
    let ready = Path::new(&agent.home.path().join("ready")).to_owned();
    let (io, _stdout, _stderr) = io(ByteSource::empty(), Controls::none());
    let mut command = Command::shell(line);
    if let End::Timeout = end {
        // Long enough to be ready in, on a machine that is busy.
        command.timeout = Some(Duration::from_millis(400));
    }
    let controller = CallController::new(0);
    let call = controller.call();
    let guard = agent.child.id();
    let mut running = Box::pin(agent.client.execute_command(&command, io, &call));
    tokio::select! {
        () = eventually("the command is ready", || ready.exists()) => {}
        exit = &mut running => panic!("{what} ended before it was ready: {exit:?}"),
    }
    match end {
        End::Timeout => {
            let exit = within(running).await.unwrap();
            assert!(exit.timed_out, "{what}: {exit:?}");
            assert_eq!((exit.exit_code, exit.signal), (124, None), "{what}");
            assert!(exit.killed.unwrap() >= 1, "{what}: {exit:?}");
        }
        End::Cancel => {
            controller.cancel();
            let error = within(running).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::CANCELLED, "{what}: {error}");
        }
        End::Drop => {
            drop(running);
            eventually("what was dropped is gone", || mark.is_gone()).await;
        }
        End::Shutdown => {
            let (exit, stopped) = within(async {
                tokio::join!(running, agent.client.shut_down(Duration::from_secs(30)))
            })
            .await;
            stopped.unwrap();
            let exit = exit.unwrap();
            assert_eq!((exit.exit_code, exit.signal), (137, Some(9)), "{what}");
        }
        End::Disconnect => {
            drop(running);
            let TestAgent {
                client,
                mut child,
                home: _home,
            } = agent;
            drop(client);
            within(async { tokio::task::spawn_blocking(move || child.wait()).await })
                .await
                .unwrap()
                .unwrap();
            assert!(mark.is_gone(), "{what} after {end:?}");
            return;
        }
        End::AgentKilled | End::GuardKilled | End::GuardTerminated => {
            let (victim, signal) = match end {
                End::AgentKilled => (agent.client.pid(), Signal::KILL),
                End::GuardKilled => (guard, Signal::KILL),
                _ => (guard, Signal::TERM),
            };
            kill_process(raw(victim), signal).unwrap();
            // A guard that ends takes the agent with it in peace, and that is the host's no more.
            let error: Error = within(running).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::UNAVAILABLE, "{what}: {error}");
            eventually("what it ran is gone", || mark.is_gone()).await;
            let mut agent = agent;
            agent.child.wait().unwrap();
            return;
        }
    }
    assert!(
        mark.is_gone(),
        "{what} after {end:?}: {:?}",
        mark.processes()
    );
    match end {
        End::Shutdown => {
            let mut agent = agent;
            within(async {
                tokio::task::spawn_blocking(move || agent.child.wait().unwrap()).await
            })
            .await
            .unwrap();
        }
        _ => {
            assert_eq!(
                agent.sh("echo on").await,
                "on\n",
                "{what}: the next command"
            );
            agent.stop().await;
        }
    }
}

#[tokio::test]
async fn nothing_outlives_a_command_however_it_ends() {
    for _ in 0..repeats() {
        for end in ENDS {
            for (what, line) in HARD {
                let mark = Mark::new();
                let directory = crate::harness::open_directory();
                let mut agent = agent(mark.setup(directory.path())).await;
                agent.home = directory;
                ends(agent, &mark, what, line, end).await;
            }
        }
    }
}

#[tokio::test]
async fn nothing_outlives_a_command_that_forks_while_it_is_killed() {
    let Some(_) = Cgroup::new("pids", "probe") else {
        return;
    };
    for _ in 0..repeats() {
        for end in ENDS {
            for (what, line) in FORKING {
                let mark = Mark::new();
                let directory = crate::harness::open_directory();
                let cgroup = Cgroup::new("pids", "forks").unwrap();
                cgroup.set("pids.max", "48");
                let program = cgroup.enter(&program_in(directory.path()));
                let mut agent = agent_started_by(program, mark.setup(directory.path())).await;
                agent.home = directory;
                ends(agent, &mark, what, line, end).await;
                cgroup.remove().await;
            }
        }
    }
}

#[tokio::test]
async fn a_runner_that_is_killed_costs_its_command_and_no_other() {
    for _ in 0..repeats() {
        let mark = Mark::new();
        let directory = crate::harness::open_directory();
        let mut agent = agent(mark.setup(directory.path())).await;
        agent.home = directory;
        let (first_io, _out, _err) = io(ByteSource::empty(), Controls::none());
        let (other_io, other_out, _other_err) = io(ByteSource::empty(), Controls::none());
        // Its parent is its runner, and it is the same user.
        let line = "setsid sleep 1000 & kill -KILL $PPID; sleep 1000";
        let (first, other) = (
            Command::shell(line),
            Command::shell("while [ ! -e go ]; do sleep 0.01; done; echo fine"),
        );
        let (first_call, other_call) = (call(), call());
        let run = async {
            let killed = agent
                .client
                .execute_command(&first, first_io, &first_call)
                .await;
            fs::write(agent.home.path().join("go"), "").unwrap();
            killed
        };
        let (killed, exit, text) = within(async {
            tokio::join!(
                run,
                agent.client.execute_command(&other, other_io, &other_call),
                other_out.read_to_end(100)
            )
        })
        .await;
        let error = killed.unwrap_err();
        assert_eq!(error.code(), ErrorCode::INTERNAL, "{error}");
        assert!(error.message().contains("was killed"), "{error}");
        assert_eq!(exit.unwrap().exit_code, 0);
        assert_eq!(text.unwrap(), b"fine\n");
        eventually("its children are gone", || mark.is_gone()).await;
        agent.stop().await;
    }
}

#[tokio::test]
async fn what_a_command_leaves_behind_lives_until_stop_and_is_listed() {
    let mark = Mark::new();
    let directory = crate::harness::open_directory();
    let mut agent = agent(mark.setup(directory.path())).await;
    agent.home = directory;
    let line = "setsid sh -c 'while :; do echo noise; sleep 0.01; done' & sleep 1000 & echo done";
    // Its noise may come before and after.
    assert!(agent.sh(line).await.lines().any(|line| line == "done"));
    let listed = || async { agent.client.processes(&call()).await.unwrap() };
    let has_sleep = |left: &[Process]| left.iter().any(|process| process.name == "sleep");
    let mut left = listed().await;
    // They become what they are to be in their own time.
    while !has_sleep(&left) || left.len() < 2 {
        left = listed().await;
    }
    assert!(left.iter().all(|process| process.left_behind), "{left:?}");
    // It is no command's any more: a timeout of another does not touch it.
    let timeout = Command::argv(["sleep", "1000"]).timeout(Duration::from_millis(20));
    let exit = agent.run(timeout).await.exit;
    assert_eq!((exit.timed_out, exit.killed), (true, Some(1)));
    assert!(has_sleep(&listed().await));
    let stats = agent.client.stats(&call()).await.unwrap();
    assert!(stats.processes.unwrap() >= 2, "{stats:?}");
    agent.stop().await;
    assert_eq!(mark.processes(), Vec::<i32>::new());
}

#[tokio::test]
async fn a_stopped_agent_is_killed_by_its_host_and_takes_everything_along() {
    let mark = Mark::new();
    let directory = crate::harness::open_directory();
    let mut agent = agent(mark.setup(directory.path())).await;
    agent.home = directory;
    agent.sh("sleep 1000 >/dev/null 2>&1 &").await;
    let pid = raw(agent.client.pid());
    kill_process(pid, Signal::STOP).unwrap();
    let error = agent.client.shut_down(Duration::from_millis(100)).await;
    assert_eq!(error.unwrap_err().code(), ErrorCode::DEADLINE_EXCEEDED);
    kill_process(pid, Signal::KILL).unwrap();
    within(async { tokio::task::spawn_blocking(move || agent.child.wait()).await })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(mark.processes(), Vec::<i32>::new());
}

#[tokio::test]
async fn no_zombie_is_left_by_commands_or_by_what_they_leave_behind() {
    let agent = agent(setup()).await;
    for _ in 0..20 {
        agent.sh("(sleep 0.01 &) ; true").await;
    }
    eventually("no process of it is left", || {
        let tree = HostCommand::new("ps")
            .args(["-o", "stat=", "--ppid", &agent.client.pid().to_string()])
            .output()
            .unwrap();
        let text = String::from_utf8(tree.stdout).unwrap();
        !text.lines().any(|state| state.starts_with('Z'))
    })
    .await;
    eventually("nothing is left behind", || {
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.client.pid()))
            .unwrap()
            .split_whitespace()
            .all(|runner| {
                let children = format!("/proc/{runner}/task/{runner}/children");
                fs::read_to_string(children).unwrap_or_default().is_empty()
            })
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_command_that_the_kernel_kills_for_memory_says_so_and_the_agent_lives() {
    let Some(cgroup) = Cgroup::new("memory", "oom") else {
        return;
    };
    cgroup.limit_memory(64 << 20);
    let directory = crate::harness::open_directory();
    let program = cgroup.enter(&program_in(directory.path()));
    let setup = Setup {
        oom_score_adj: Some(500),
        ..setup()
    };
    let agent = agent_started_by(program, setup).await;
    let hog = "perl -e 'my $x = \"x\" x 300_000_000; print length $x'";
    for line in [format!("exec {hog}"), format!("{hog}; exit $?")] {
        let output = agent.run(Command::shell(&line)).await;
        assert_eq!(output.exit.exit_code, 137, "{line}: {output:?}");
        assert!(output.exit.out_of_memory, "{line}: {output:?}");
        assert!(!output.exit.timed_out);
    }
    let output = agent.run(Command::shell("kill -KILL $$")).await;
    assert_eq!(output.exit.signal, Some(9));
    assert!(!output.exit.out_of_memory, "{output:?}");
    agent.stop().await;
    cgroup.remove().await;
}
