//! Writes what the fuzzers start from: conversations as they should be, and their pieces.
//!
//! `cargo run --example seeds`, in `plugins/agent/fuzz`; run it again when the protocol changes.

use std::{fs, path::Path};

use boxyard_agent::protocol::{
    FromAgent, FromHost, Goodbye, Hello, Setup, Stream, VERSION, WINDOW,
};

fn main() {
    let from_host: Vec<Vec<u8>> = from_host().iter().map(encode_from_host).collect();
    let from_agent: Vec<(&str, Vec<u8>)> = conversations()
        .into_iter()
        .map(|(name, said)| (name, said.iter().flat_map(encode_from_agent).collect()))
        .collect();
    let all: Vec<u8> = from_host.concat();
    write("frames", "from-host", &[7], &all);
    for (number, message) in from_host.iter().enumerate() {
        write("frames", &format!("from-host-{number}"), &[255], message);
    }
    for (name, said) in &from_agent {
        write("frames", name, &[3], said);
        write("client", name, &[255, 0], said);
        write("client", &format!("{name}-given-up"), &[11, 1], said);
    }
}

fn write(target: &str, name: &str, head: &[u8], bytes: &[u8]) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(name), [head, bytes].concat()).unwrap();
}

fn encode_from_host(message: &FromHost<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    bytes
}

fn encode_from_agent(message: &FromAgent<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    bytes
}

fn from_host() -> Vec<FromHost<'static>> {
    let (channel, stream) = (1, Stream::Stdout);
    vec![
        FromHost::Setup(Setup {
            protocol: VERSION,
            env: [("A".to_owned(), "b".to_owned())].into(),
            working_dir: "/w".into(),
            user: Some("u".into()),
            root: Some("/r".into()),
            oom_score_adj: Some(1),
            secret: Some("s".into()),
            linger_ms: 1,
        }),
        FromHost::Open {
            channel,
            request: br#"{"execute_command":{"program":{"shell":"x"}}}"#,
        },
        FromHost::Data {
            channel,
            bytes: b"bytes",
        },
        FromHost::End { channel },
        FromHost::Credit {
            channel,
            stream,
            bytes: WINDOW,
        },
        FromHost::Close { channel, stream },
        FromHost::Signal {
            channel,
            number: 15,
        },
        FromHost::Resize {
            channel,
            columns: 80,
            rows: 24,
        },
        FromHost::Cancel { channel },
        FromHost::Shutdown,
    ]
}

/// What an agent says to the calls of the target `client`, whose channels are 1 to 7.
fn conversations() -> Vec<(&'static str, Vec<FromAgent<'static>>)> {
    let reply = |channel, document| FromAgent::Reply { channel, document };
    let ends =
        |channel| [Stream::Stdout, Stream::Stderr].map(|stream| FromAgent::End { channel, stream });
    let data = |channel, stream, bytes| FromAgent::Data {
        channel,
        stream,
        bytes,
    };
    let command = |channel| {
        let mut said = vec![
            data(channel, Stream::Stdout, b"out"),
            data(channel, Stream::Stderr, b"err"),
            FromAgent::Credit {
                channel,
                bytes: WINDOW,
            },
            FromAgent::Close { channel },
            reply(
                channel,
                br#"{"ok":{"exit_code":0,"timed_out":false,"out_of_memory":false,"killed":1,"duration_ms":3}}"#,
            ),
        ];
        said.extend(ends(channel));
        said
    };
    let file = |channel, content, answer| {
        let mut said = vec![
            data(channel, Stream::Stdout, content),
            reply(channel, answer),
        ];
        said.extend(ends(channel));
        said
    };
    let entry = br#"{"name":"n","kind":"symlink","size":1,"mode":420,"modified_ms":5,"target":"t"}
"#;
    let processes = br#"{"ok":[{"pid":1,"parent":2,"name":"n","cpu_us":3,"memory_bytes":4,"left_behind":true}]}"#;
    let many = br#"{"ok":[{"pid":1,"parent":2,"name":"","cpu_us":18446744073709551615,"memory_bytes":1,"left_behind":true},{"pid":1,"parent":2,"name":"","cpu_us":1,"memory_bytes":18446744073709551615,"left_behind":true}]}"#;
    let null = br#"{"ok":null}"#;
    let whole: Vec<_> = [
        command(1),
        command(2),
        file(3, b"content", null),
        file(4, b"", null),
        file(5, entry, null),
        file(
            6,
            b"",
            br#"{"ok":{"name":"n","kind":"file","size":1,"mode":420,"modified_ms":5}}"#,
        ),
        file(7, b"", processes),
        vec![FromAgent::Goodbye(Goodbye { error: None })],
    ]
    .concat();
    vec![
        ("whole", whole),
        ("command", command(1)),
        ("typed-command", command(2)),
        ("read", file(3, b"content", null)),
        ("listing", file(5, entry, null)),
        (
            "failures",
            [
                file(3, b"", br#"{"error":{"errno":2,"message":"`x`"}}"#),
                file(
                    4,
                    b"",
                    br#"{"error":{"code":8,"message":"m","retryable":true}}"#,
                ),
                file(6, b"", br#"{"error":{"message":"m"}}"#),
            ]
            .concat(),
        ),
        ("large-numbers", file(7, b"", many)),
        (
            "refusal",
            vec![FromAgent::Goodbye(Goodbye {
                error: Some("why".into()),
            })],
        ),
        (
            "hello-twice",
            vec![FromAgent::Hello(Hello {
                protocol: VERSION,
                pid: 1,
                secret: Some("s".into()),
            })],
        ),
        (
            "too-much-credit",
            vec![FromAgent::Credit {
                channel: 2,
                bytes: u32::MAX,
            }],
        ),
        (
            "timed-out",
            vec![reply(
                1,
                br#"{"ok":{"exit_code":124,"timed_out":true,"duration_ms":18446744073709551615}}"#,
            )],
        ),
    ]
}
