//! Descriptors that run out and a connection that is lost, which an agent survives.

use std::time::Duration;

use boxyard_agent::{Client, protocol::Setup};
use boxyard_plugin_api::{ByteSource, Command, Controls, ErrorCode};

use crate::harness::{
    BOUND, agent_started_by, call, eventually, io, open_directory, program_in, setup, spawn, within,
};

#[tokio::test]
async fn descriptors_that_run_out_cost_a_request_and_not_the_agent() {
    let home = open_directory();
    let mut limited = std::process::Command::new("/bin/sh");
    limited
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(program_in(home.path()).get_program());
    let agent = agent_started_by(limited, setup()).await;
    let go = home.path().join("go");
    let line = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; echo done",
        go.display()
    );
    let all = (0..40).map(|_| agent.try_run(Command::shell(&line)));
    let open = async {
        // Those that were refused are answered before the others can end.
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::write(&go, "").unwrap();
    };
    let (results, ()) = tokio::join!(futures_util::future::join_all(all), open);
    let (done, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert!(done.len() >= 5, "{} ran", done.len());
    assert!(!refused.is_empty(), "all ran");
    for result in refused {
        let error = result.unwrap_err();
        assert_eq!(error.code(), ErrorCode::RESOURCE_EXHAUSTED, "{error}");
        assert!(error.is_retryable(), "{error}");
    }
    assert_eq!(agent.sh("echo again").await, "again\n");
    agent.stop().await;
}

#[tokio::test]
async fn a_lost_connection_is_taken_up_again_with_its_secret() {
    use std::os::unix::fs::PermissionsExt;
    let home = open_directory();
    let socket = home.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut child = spawn(program_in(home.path()).arg("--connect").arg(&socket));
    let lingering = Setup {
        secret: Some("told once".into()),
        linger_ms: 60_000,
        ..setup()
    };
    let (stream, _) = within(listener.accept()).await.unwrap();
    let (client, work) = Client::connect(stream, lingering.clone()).await.unwrap();
    tokio::spawn(work);
    let marks = home.path().to_str().unwrap().to_owned();
    let (first_io, _out, _err) = io(ByteSource::empty(), Controls::none());
    let line = format!("sleep 1000 >/dev/null 2>&1 & echo $! > {marks}/left");
    let command = Command::shell(line);
    client
        .execute_command(&command, first_io, &call())
        .await
        .unwrap();
    let (second_io, _out, _err) = io(ByteSource::empty(), Controls::none());
    let line = format!("echo $$ > {marks}/running; sleep 1000");
    let (command, second_call) = (Command::shell(line), call());
    let pid_in =
        |name: &str| std::fs::read_to_string(format!("{marks}/{name}")).unwrap_or_default();
    {
        let running = client.execute_command(&command, second_io, &second_call);
        tokio::select! {
            exit = running => panic!("it ended: {exit:?}"),
            () = eventually("it runs", || pid_in("running").ends_with('\n')) => {}
        }
    }
    let (left, running) = (pid_in("left"), pid_in("running"));
    let lives = |pid: &str| std::path::Path::new("/proc").join(pid.trim()).exists();
    drop(client);
    let (stream, _) = within(listener.accept()).await.unwrap();
    // Another host does not know the secret, and is none the wiser.
    let stranger = Client::connect(stream, setup()).await;
    assert_eq!(stranger.err().unwrap().code(), ErrorCode::UNAUTHENTICATED);
    let (stream, _) = within(listener.accept()).await.unwrap();
    let (client, work) = Client::reconnect(stream, lingering).await.unwrap();
    tokio::spawn(work);
    eventually("what ran was killed", || !lives(&running)).await;
    assert!(lives(&left), "what was left behind lives on");
    // What it had just started itself may take a moment longer.
    let only_the_rest = async {
        loop {
            let listed = client.processes(&call()).await.unwrap();
            if listed.len() == 1 {
                break listed;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let listed = within(only_the_rest).await;
    assert!(listed[0].left_behind);
    within(client.shut_down(BOUND)).await.unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!lives(&left));
}
