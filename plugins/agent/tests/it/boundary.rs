//! The agent where it is meant to be: as process 1, in an image with nothing else in it.

use std::{fs, path::Path, process::Command as HostCommand, time::Duration};

use boxyard_plugin_api::{ByteSource, Command, Controls, ErrorCode};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{
    TestAgent, agent_started_by, call, eventually, io, is_root, open_directory, program_in, setup,
    within,
};

/// Starts an agent as process 1 of a namespace, in a root of its own where one is given.
async fn contained(root: Option<&Path>) -> TestAgent {
    let home = open_directory();
    let mut unshare = HostCommand::new("unshare");
    unshare.args(["--mount", "--pid", "--fork"]);
    match root {
        None => {
            let program = program_in(home.path());
            unshare.arg("--mount-proc").arg(program.get_program());
        }
        Some(root) => {
            program_in(root);
            fs::create_dir(root.join("proc")).unwrap();
            let script = "mount -t proc proc \"$0/proc\" && exec chroot \"$0\" \"$@\"";
            unshare.args(["sh", "-c", script]);
            unshare.arg(root).arg("/boxyard-agent");
        }
    }
    let mut agent = agent_started_by(unshare, setup()).await;
    agent.home = home;
    agent
}

#[tokio::test]
async fn process_1_reaps_what_comes_to_it_and_everything_ends_with_it() {
    if !is_root("an agent that is process 1") {
        return;
    }
    let agent = contained(None).await;
    assert_eq!(agent.client.pid(), 1);
    assert_eq!(
        agent
            .sh("echo $PPID; cat /proc/1/comm")
            .await
            .lines()
            .last(),
        Some("boxyard-agent")
    );
    // Orphans of every kind are reaped.
    agent
        .sh("for i in 1 2 3 4 5; do (setsid sleep 0.01 &); done")
        .await;
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    while agent.sh(zombies).await.trim() != "0" {}
    // A command cannot kill process 1, but everything that stands between.
    let error = agent
        .try_run(Command::shell(
            "sleep 1000 & kill -KILL 1; kill -KILL -1; sleep 1000",
        ))
        .await;
    let gone = match error {
        Err(error) => error.code() == ErrorCode::INTERNAL,
        Ok(output) => output.exit.exit_code == 137,
    };
    assert!(gone);
    assert_eq!(agent.sh("echo on").await, "on\n");
    eventually_alone(&agent).await;
    agent.stop().await;
}

/// Waits until nothing runs but the agent, its runners and the command that looks.
async fn eventually_alone(agent: &TestAgent) {
    loop {
        let names = agent.sh("cat /proc/[0-9]*/comm 2>/dev/null; true").await;
        if names
            .lines()
            .all(|name| matches!(name, "boxyard-agent" | "sh" | "cat"))
        {
            return;
        }
    }
}

#[tokio::test]
async fn process_1_that_is_killed_takes_everything_along() {
    if !is_root("an agent that is process 1") {
        return;
    }
    let mut agent = contained(None).await;
    let (io, stdout, _stderr) = io(ByteSource::empty(), Controls::none());
    let (command, call) = (Command::shell("setsid sleep 1234 & echo up; wait"), call());
    let running = agent.client.execute_command(&command, io, &call);
    let unshare = agent.child.id();
    let killing = async {
        assert_eq!(&*stdout.read(10).await.unwrap().unwrap(), b"up\n");
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        let pid = fs::read_to_string(children)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        pid
    };
    let (ended, first) = within(async { tokio::join!(running, killing) }).await;
    assert_eq!(ended.unwrap_err().code(), ErrorCode::UNAVAILABLE);
    agent.child.wait().unwrap();
    // The namespace is empty when its process 1 is reaped.
    eventually("it is gone", || {
        !Path::new(&format!("/proc/{first}")).exists()
    })
    .await;
}

#[tokio::test]
async fn an_empty_image_is_enough() {
    if !is_root("an agent in an empty image") {
        return;
    }
    let image = open_directory();
    let agent = contained(Some(image.path())).await;
    let missing = agent.run(Command::shell("echo hi")).await;
    assert_eq!(
        (missing.exit.exit_code, missing.err()),
        (127, "sh: sh: not found\n")
    );
    // The only program there is: its own.
    let own = Command::argv(["/boxyard-agent"]).timeout(Duration::from_secs(30));
    let output = agent.run(own).await;
    assert_eq!(output.exit.exit_code, 2, "{output:?}");
    assert!(output.err().contains("usage: boxyard-agent"), "{output:?}");
    agent.write("/file", "content").await.unwrap();
    assert_eq!(agent.read("/file").await.unwrap(), b"content");
    let mut nobody = Command::argv(["/boxyard-agent"]);
    nobody.user = Some("4711:4712".into());
    assert_eq!(agent.run(nobody).await.exit.exit_code, 2);
    agent.stop().await;
}
