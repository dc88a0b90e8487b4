//! Ends that do not keep to the protocol: a host that says what no host says, and an agent
//! that says what no agent says.

use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    time::Duration,
};

use boxyard_agent::{
    Client,
    protocol::{
        Decoder, FromAgent, FromHost, Goodbye, Header, Hello, MAX_DATA, MAX_DOCUMENT, Setup,
        Stream, VERSION, WINDOW,
    },
};
use boxyard_plugin_api::{ByteSource, Command, Controls, Error, ErrorCode, Result};
use tokio::{io::AsyncWriteExt, net::UnixStream};

use crate::harness::{
    BOUND, call, eventually, io, open_directory, program_in, setup, spawn, within,
};

/// A real agent, spoken to by hand.
struct Raw {
    line: StdUnixStream,
    decoder: Decoder,
    child: std::process::Child,
    _home: tempfile::TempDir,
}

impl Raw {
    fn start() -> Self {
        let home = open_directory();
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        let mut program = program_in(home.path());
        let child = spawn(program.args(["--fd", "0"]).stdin(OwnedFd::from(theirs)));
        ours.set_read_timeout(Some(BOUND)).unwrap();
        let mut raw = Self {
            line: ours,
            decoder: Decoder::new(),
            child,
            _home: home,
        };
        raw.until(|message| matches!(message, FromAgent::Hello(_)));
        raw
    }

    fn greeted() -> Self {
        let mut raw = Self::start();
        raw.say(&FromHost::Setup(Setup {
            protocol: VERSION,
            ..setup()
        }));
        raw
    }

    fn say(&mut self, message: &FromHost<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        self.send(&bytes);
    }

    fn send(&mut self, bytes: &[u8]) {
        // An agent that had enough reads no more.
        let _ = self.line.write_all(bytes);
    }

    fn open(&mut self, channel: u32, request: &str) {
        let request = request.as_bytes();
        self.say(&FromHost::Open { channel, request });
    }

    /// Reads messages until one is as wanted; `false` where the line ends before.
    fn until(&mut self, mut wanted: impl FnMut(&FromAgent<'_>) -> bool) -> bool {
        loop {
            while let Some(frame) = self.decoder.next_frame().unwrap() {
                if wanted(&FromAgent::parse(frame).unwrap()) {
                    return true;
                }
            }
            let mut bytes = [0; 4096];
            match self.line.read(&mut bytes) {
                Ok(0) | Err(_) => return false,
                Ok(read) => self.decoder.buffer().extend_from_slice(&bytes[..read]),
            }
        }
    }

    /// Expects the agent to say why it ends, and to end.
    fn refused(mut self, expected: &str) {
        let mut said = None;
        self.until(|message| {
            if let FromAgent::Goodbye(goodbye) = message {
                said.clone_from(&goodbye.error);
            }
            false
        });
        let said = said.unwrap_or_default();
        assert!(
            said.contains(expected),
            "expected {expected:?}, found {said:?}"
        );
        self.child.wait().unwrap();
    }
}

fn header(kind: u8, channel: u32, stream: u8, length: usize) -> Vec<u8> {
    let header = Header {
        length: u32::try_from(length).unwrap(),
        channel,
        kind,
        stream,
    };
    header.to_bytes().to_vec()
}

#[test]
fn a_host_that_breaks_the_protocol_is_told_and_everything_ends() {
    let data_for_nobody = [header(Header::DATA, 0, 0, 1), b"x".to_vec()].concat();
    for (bytes, expected) in [
        (vec![0xff; 64], "announces"),
        (header(Header::DATA, 1, 0, MAX_DATA + 1), "announces"),
        (header(2, 1, 0, MAX_DOCUMENT + 1), "announces"),
        (header(77, 1, 0, 0), "kind 77"),
        (header(11, 1, 0, 0), "kind 11"),
        (data_for_nobody, "channel 0"),
        (header(Header::DATA, 1, 2, 0), "stream 2"),
        ([header(5, 1, 1, 2), vec![0; 2]].concat(), "malformed"),
        ([header(1, 0, 0, 1), b"{".to_vec()].concat(), "malformed"),
    ] {
        let mut raw = Raw::greeted();
        raw.open(
            9,
            r#"{"execute_command":{"program":{"shell":"sleep 1000"}}}"#,
        );
        raw.send(&bytes);
        raw.refused(expected);
    }
}

#[test]
fn what_comes_before_the_setup_is_refused_and_so_is_another_protocol() {
    let mut raw = Raw::start();
    raw.open(1, r#"{"processes":{}}"#);
    raw.refused("setup first");
    let mut raw = Raw::start();
    raw.say(&FromHost::Setup(Setup {
        protocol: 99,
        ..setup()
    }));
    raw.refused("protocol 99, expected 1");
}

#[test]
fn a_channel_is_opened_once_and_input_keeps_to_its_window() {
    let cat = r#"{"execute_command":{"program":{"argv":["sleep","1000"]},"stdin":true}}"#;
    let mut raw = Raw::greeted();
    raw.open(1, cat);
    raw.open(1, cat);
    raw.refused("open already");
    let mut raw = Raw::greeted();
    raw.open(1, cat);
    let bytes = vec![0; MAX_DATA];
    // What the pipe takes is given back; what nobody reads is not.
    let mut sent = 0;
    while sent <= 2 * WINDOW as usize {
        raw.say(&FromHost::Data {
            channel: 1,
            bytes: &bytes,
        });
        sent += bytes.len();
    }
    raw.refused("more input");
}

#[test]
fn a_request_that_is_none_is_answered_and_the_next_is_served() {
    let mut raw = Raw::greeted();
    for (channel, request) in [
        (1, "not json"),
        (2, "{}"),
        (3, r#"{"no_such_request":{}}"#),
        (4, r#"{"execute_command":{"program":{"argv":[1]}}}"#),
        (
            5,
            r#"{"execute_command":{"program":{"argv":["a\u0000b"]}}}"#,
        ),
        (
            6,
            r#"{"execute_command":{"program":{"shell":""},"limits":{"x":1}}}"#,
        ),
        (7, r#"{"stat":{"path":""}}"#),
    ] {
        raw.open(channel, request);
        let mut reply = String::new();
        raw.until(|message| match message {
            FromAgent::Reply {
                channel: of,
                document,
            } => {
                assert_eq!(*of, channel);
                reply = String::from_utf8(document.to_vec()).unwrap();
                true
            }
            _ => false,
        });
        assert!(
            reply.contains(r#""error":{"code":3,"#),
            "{request}: {reply}"
        );
    }
    // Messages about requests that are not open are late, and no more than that.
    raw.say(&FromHost::Cancel { channel: 44 });
    raw.say(&FromHost::End { channel: 44 });
    raw.say(&FromHost::Signal {
        channel: 44,
        number: 9,
    });
    raw.open(8, r#"{"processes":{}}"#);
    assert!(raw.until(|message| matches!(message, FromAgent::Reply { channel: 8, .. })));
    raw.say(&FromHost::Shutdown);
    assert!(raw.until(|message| *message == FromAgent::Goodbye(Goodbye { error: None })));
    assert!(raw.child.wait().unwrap().success());
}

#[test]
fn a_connection_that_ends_within_a_frame_ends_the_agent() {
    let mut raw = Raw::greeted();
    raw.open(
        1,
        r#"{"execute_command":{"program":{"shell":"sleep 1000"}}}"#,
    );
    raw.send(&header(Header::DATA, 1, 0, 100)[..7]);
    let Raw {
        line, mut child, ..
    } = raw;
    drop(line);
    assert!(child.wait().unwrap().success());
}

/// An agent that is none, and the client that takes it for one.
async fn fake() -> (UnixStream, Client) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut fake = ours;
    say(
        &mut fake,
        &FromAgent::Hello(Hello {
            protocol: VERSION,
            pid: 1,
            secret: None,
        }),
    )
    .await;
    let (client, work) = Client::connect(theirs, setup()).await.unwrap();
    tokio::spawn(work);
    (fake, client)
}

async fn say(fake: &mut UnixStream, message: &FromAgent<'_>) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    // A client that had enough reads no more.
    let _ = fake.write_all(&bytes).await;
}

/// Runs a command against an agent that answers with these bytes.
async fn answered_with(bytes: &[u8]) -> Result<boxyard_plugin_api::CommandExit> {
    let (mut fake, client) = fake().await;
    let (io, _stdout, _stderr) = io(ByteSource::empty(), Controls::none());
    let (command, call) = (Command::shell("x"), call());
    let answering = async {
        // A frame on a channel that is not open yet would be wrong for another reason.
        fake.readable().await.unwrap();
        let mut seen = vec![0; 1 << 16];
        let mut decoder = Decoder::new();
        loop {
            fake.readable().await.unwrap();
            match fake.try_read(&mut seen) {
                Ok(read) => decoder.buffer().extend_from_slice(&seen[..read]),
                Err(_) => continue,
            }
            let mut opened = false;
            while let Some(frame) = decoder.next_frame().unwrap() {
                opened |= matches!(FromHost::parse(frame).unwrap(), FromHost::Open { .. });
            }
            if opened {
                break;
            }
        }
        let _ = fake.write_all(bytes).await;
        fake
    };
    let running = client.execute_command(&command, io, &call);
    let (exit, _fake) = within(async { tokio::join!(running, answering) }).await;
    exit
}

fn encoded(messages: &[FromAgent<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        message.encode(&mut bytes).unwrap();
    }
    bytes
}

#[tokio::test]
async fn an_agent_that_breaks_the_protocol_costs_its_requests_an_error() {
    let (channel, stream) = (1, Stream::Stdout);
    let data = vec![7; MAX_DATA];
    let flood = FromAgent::Data {
        channel,
        stream,
        bytes: &data,
    };
    // Beside its window, what the pipe to the caller takes is given back.
    let windows = (WINDOW as usize + (1 << 20)) / MAX_DATA + 1;
    let reply = FromAgent::Reply {
        channel,
        document: br#"{"ok":{"exit_code":0}}"#,
    };
    let end = FromAgent::End { channel, stream };
    let of_nobody = FromAgent::End { channel: 2, stream };
    let more_input = FromAgent::Credit { channel, bytes: 1 };
    for (what, bytes) in [
        ("noise", vec![0xff; 100]),
        ("a long frame", header(Header::DATA, 1, 1, MAX_DATA + 1)),
        ("an unknown kind", header(99, 1, 0, 0)),
        ("a host's message", header(9, 1, 0, 0)),
        (
            "a second hello",
            encoded(&[FromAgent::Hello(Hello {
                protocol: VERSION,
                pid: 1,
                secret: None,
            })]),
        ),
        (
            "more than its window",
            encoded(&vec![flood.clone(); windows + 1]),
        ),
        ("two ends", encoded(&[end.clone(), end.clone()])),
        ("output after its end", encoded(&[end.clone(), flood])),
        ("two replies", encoded(&[reply.clone(), reply])),
        ("another's channel", encoded(&[of_nobody])),
        ("more input than it may", encoded(&[more_input])),
    ] {
        let result = within(answered_with(&bytes)).await;
        match result {
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::ABORTED, "{what}: {error}");
                assert!(error.message().contains("broke the protocol"), "{error}");
            }
            // Its answer was there already, and a client may have gone on with that.
            Ok(exit) => assert_eq!((what, exit.exit_code), ("two replies", 0)),
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_malformed_is_an_error_and_never_a_panic() {
    for document in [
        &b""[..],
        b"{",
        b"null",
        b"[]",
        br#"{"ok":null}"#,
        br#"{"ok":{"exit_code":"0"}}"#,
        br#"{"error":{}}"#,
        br#"{"ok":{},"error":{}}"#,
        b"\xff\xfe",
    ] {
        let ends = [Stream::Stdout, Stream::Stderr];
        let ends = ends.map(|stream| FromAgent::End { channel: 1, stream });
        let reply = FromAgent::Reply {
            channel: 1,
            document,
        };
        let [stdout, stderr] = ends;
        let error: Error = answered_with(&encoded(&[stdout, stderr, reply]))
            .await
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::INTERNAL, "{error}");
        assert!(error.message().contains("malformed"), "{error}");
    }
}

#[tokio::test]
async fn an_agent_that_goes_within_a_frame_is_gone() {
    let half = &header(Header::DATA, 1, 1, 100)[..9];
    let (mut fake, client) = fake().await;
    fake.write_all(half).await.unwrap();
    // What nobody read would make the end a reset.
    fake.readable().await.unwrap();
    fake.try_read(&mut [0; 4096]).unwrap();
    drop(fake);
    let error = within(client.closed()).await;
    assert_eq!(error.code(), ErrorCode::UNAVAILABLE);
    assert!(error.message().contains("middle of a frame"), "{error}");
}

#[tokio::test]
async fn what_is_no_agent_is_refused_in_time() {
    let greet = async |bytes: &[u8]| {
        let (mut fake, theirs) = UnixStream::pair().unwrap();
        fake.write_all(bytes).await.unwrap();
        fake.shutdown().await.unwrap();
        match within(Client::connect(theirs, setup())).await {
            Ok(_) => panic!("it was taken for an agent"),
            Err(error) => error,
        }
    };
    let hello = |protocol, secret: Option<&str>| {
        encoded(&[FromAgent::Hello(Hello {
            protocol,
            pid: 1,
            secret: secret.map(Into::into),
        })])
    };
    assert_eq!(greet(b"").await.code(), ErrorCode::UNAVAILABLE);
    assert_eq!(
        greet(b"HTTP/1.1 200 OK\r\n\r\n").await.code(),
        ErrorCode::UNAVAILABLE
    );
    assert_eq!(
        greet(&header(4, 1, 1, 0)).await.code(),
        ErrorCode::UNAVAILABLE
    );
    let error = greet(&hello(7, None)).await;
    assert!(
        error.message().contains("protocol 7, expected 1"),
        "{error}"
    );
    // One that lingered for somebody else.
    let error = greet(&hello(VERSION, Some("secret"))).await;
    assert_eq!(error.code(), ErrorCode::UNAUTHENTICATED, "{error}");
    let (_silent, theirs) = UnixStream::pair().unwrap();
    let error = tokio::time::timeout(Duration::from_secs(30), Client::connect(theirs, setup()));
    match error.await.unwrap() {
        Ok(_) => panic!("silence was taken for an agent"),
        Err(error) => assert!(error.message().contains("said nothing"), "{error}"),
    }
}

#[tokio::test]
async fn descriptors_that_run_out_cost_a_request_and_not_the_agent() {
    let home = open_directory();
    let mut limited = std::process::Command::new("/bin/sh");
    limited
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(program_in(home.path()).get_program());
    let agent = crate::harness::agent_started_by(limited, setup()).await;
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
    let listed = client.processes(&call()).await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(listed[0].left_behind);
    within(client.shut_down(BOUND)).await.unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!lives(&left));
}
