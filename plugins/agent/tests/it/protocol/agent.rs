//! An agent that says what no agent says.

use std::time::Duration;

use boxyard_agent::{
    Client,
    protocol::{Decoder, FromAgent, FromHost, Header, Hello, MAX_DATA, Stream, VERSION, WINDOW},
};
use boxyard_plugin_api::{ByteSource, Command, CommandExit, Controls, Error, ErrorCode, Result};
use tokio::{io::AsyncWriteExt, net::UnixStream};

use super::header;
use crate::harness::{call, io, setup, within};

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
async fn answered_with(bytes: &[u8]) -> Result<CommandExit> {
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
