//! A host that says what no host says.

use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use boxyard_agent::protocol::{
    Decoder, FromAgent, FromHost, Goodbye, Header, MAX_DATA, MAX_DOCUMENT, Setup, VERSION, WINDOW,
};

use super::header;
use crate::harness::{BOUND, open_directory, program_in, setup, spawn};

/// A real agent, spoken to by hand.
struct Raw {
    line: UnixStream,
    decoder: Decoder,
    child: std::process::Child,
    _home: tempfile::TempDir,
}

impl Raw {
    fn start() -> Self {
        let home = open_directory();
        let (ours, theirs) = UnixStream::pair().unwrap();
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
