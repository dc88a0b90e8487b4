//! Terminals: commands that see one, type at one and leave one.

use std::time::{Duration, Instant};

use boxyard_plugin_api::{
    ByteSource, Command, CommandExit, Control, Controls, Result, TerminalSize, pipe,
};

use crate::harness::*;

const SIZE: TerminalSize = TerminalSize {
    columns: 91,
    rows: 17,
};

/// A command at a terminal.
fn at_terminal(line: &str) -> Command {
    let mut command = Command::shell(line);
    command.tty = Some(SIZE);
    command
}

/// The same, with somebody who types.
fn typed_at(line: &str) -> Command {
    let mut command = at_terminal(line);
    command.stdin = true;
    command
}

/// Whoever sits before a terminal.
struct Person {
    typing: boxyard_plugin_api::ByteSink,
    controls: boxyard_plugin_api::ByteSink,
    screen: ByteSource,
    shown: String,
}

impl Person {
    async fn types(&self, keys: &str) {
        self.typing.write(keys.as_bytes().to_vec()).await.unwrap();
    }

    async fn resizes(&self, columns: u16, rows: u16) {
        let size = TerminalSize { columns, rows };
        let line = Control::Resize(size).to_line();
        self.controls.write(line).await.unwrap();
    }

    /// Waits until the terminal shows something.
    async fn sees(&mut self, text: &str) {
        while !self.shown.contains(text) {
            let piece = self.screen.read(4096).await.unwrap();
            let piece = piece.unwrap_or_else(|| panic!("no `{text}` in {:?}", self.shown));
            self.shown.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// Reads to the end; returns all that was shown.
    async fn sees_the_end(mut self) -> String {
        let rest = self.screen.read_to_end(usize::MAX).await.unwrap();
        self.shown.push_str(std::str::from_utf8(&rest).unwrap());
        self.shown
    }
}

/// Runs a command while somebody sits before its terminal.
async fn with_person<T>(
    agent: &TestAgent,
    command: Command,
    sit: impl AsyncFnOnce(Person) -> T,
) -> (Result<CommandExit>, T) {
    let (typing, stdin) = pipe();
    let (controls, control_source) = pipe();
    let (io, screen, stderr) = io(stdin, Controls::from_source(control_source));
    let person = Person {
        typing,
        controls,
        screen,
        shown: String::new(),
    };
    let call = call();
    let running = agent.client.execute_command(&command, io, &call);
    let all = async { tokio::join!(running, sit(person), stderr.read_to_end(1)) };
    let (exit, sat, stderr) = within(all).await;
    // A terminal is one stream.
    assert_eq!(stderr.unwrap(), b"");
    (exit, sat)
}

#[tokio::test]
async fn a_terminal_is_there_where_one_is_asked_for_and_only_there() {
    let agent = agent(setup()).await;
    let line = "for fd in 0 1 2; do test -t $fd && echo $fd; done; tty <&1; stty size <&1; :";
    let plain = agent.run(Command::shell(line)).await;
    assert_eq!(plain.out(), "not a tty\n");
    let output = agent.run(at_terminal(line)).await;
    let (tests, rest) = output.out().split_once("/dev/pts/").unwrap();
    assert_eq!(tests, "0\r\n1\r\n2\r\n");
    assert!(rest.ends_with("\r\n17 91\r\n"), "{rest}");
    assert_eq!(output.err(), "");
    // Its own to control, and its own session.
    let line = "exec 3<>/dev/tty && ps -o pid=,sid=,tpgid= -p $$ >&3";
    let output = agent.run(at_terminal(line)).await;
    let numbers: Vec<&str> = output.out().split_ascii_whitespace().collect();
    assert_eq!(numbers.len(), 3, "{output:?}");
    assert_eq!(numbers[0], numbers[1]);
    assert_ne!(numbers[2], "-1");
    agent.stop().await;
}

#[tokio::test]
async fn errors_and_exit_codes_come_through_a_terminal() {
    let agent = agent(setup()).await;
    let output = agent.run(at_terminal("echo err >&2; exit 7")).await;
    assert_eq!((output.exit.exit_code, output.out()), (7, "err\r\n"));
    let mut missing = Command::argv(["no-such-program"]);
    missing.tty = Some(SIZE);
    let output = agent.run(missing).await;
    assert_eq!(output.exit.exit_code, CommandExit::NOT_FOUND);
    assert_eq!(output.out(), "sh: no-such-program: not found\r\n");
    agent.stop().await;
}

#[tokio::test]
async fn a_new_size_is_seen_and_signalled() {
    let agent = agent(setup()).await;
    let line = "trap 'stty size; exit 3' WINCH; echo ready; while :; do read x; done";
    let (exit, shown) = with_person(&agent, typed_at(line), async |mut person| {
        person.sees("ready").await;
        person.resizes(40, 20).await;
        person.sees("20 40").await;
        person.sees_the_end().await
    })
    .await;
    assert_eq!(exit.unwrap().exit_code, 3, "{shown}");
    agent.stop().await;
}

#[tokio::test]
async fn a_size_that_no_terminal_has_is_taken_as_it_is() {
    let agent = agent(setup()).await;
    for (columns, rows) in [(0, 0), (u16::MAX, u16::MAX)] {
        let mut command = at_terminal("stty size");
        command.tty = Some(TerminalSize { columns, rows });
        let output = agent.run(command).await;
        assert_eq!(output.out(), format!("{rows} {columns}\r\n"));
    }
    agent.stop().await;
}

#[tokio::test]
async fn what_is_typed_is_read_and_control_c_interrupts() {
    let agent = agent(setup()).await;
    let line = "echo ready; read line; echo \"got $line\"; exec sleep 1000";
    let (exit, shown) = with_person(&agent, typed_at(line), async |mut person| {
        person.sees("ready").await;
        person.types("hello\n").await;
        person.sees("got hello").await;
        person.types("\x03").await;
        person.sees_the_end().await
    })
    .await;
    let exit = exit.unwrap();
    assert_eq!((exit.exit_code, exit.signal), (130, Some(2)), "{shown}");
    assert!(shown.contains("^C"), "{shown:?}");
    agent.stop().await;
}

#[tokio::test]
async fn the_end_of_input_is_control_d() {
    let agent = agent(setup()).await;
    // Between lines, in the middle of one, and before anything.
    for (typed, expected) in [("a\nb\n", "a\nb\n"), ("a\nb", "a\nb"), ("", "")] {
        let line = "stty -echo -onlcr; echo ready; cat; echo end";
        let (exit, shown) = with_person(&agent, typed_at(line), async |mut person| {
            person.sees("ready\n").await;
            person.types(typed).await;
            person.typing.finish().await.unwrap();
            person.sees_the_end().await
        })
        .await;
        assert_eq!(exit.unwrap().exit_code, 0);
        assert_eq!(shown, format!("ready\n{expected}end\n"));
    }
    // Nobody types: it reads its end at once, and the connection is as good as before.
    for _ in 0..3 {
        let output = agent.run(at_terminal("cat; echo end")).await;
        assert_eq!(output.out(), "end\r\n");
    }
    agent.stop().await;
}

#[tokio::test]
async fn much_that_is_typed_arrives() {
    let agent = agent(setup()).await;
    let line = "stty raw -echo; echo ready; head -c 1000000 | cksum";
    let expected = agent.sh("yes 0123456789 | head -c 1000000 | cksum").await;
    let (exit, shown) = with_person(&agent, typed_at(line), async |mut person| {
        person.sees("ready").await;
        let keys = "0123456789\n".repeat(100_000);
        person.types(&keys[..1_000_000]).await;
        person.sees_the_end().await
    })
    .await;
    assert_eq!(exit.unwrap().exit_code, 0);
    assert_eq!(shown, format!("ready\n{expected}"));
    agent.stop().await;
}

#[tokio::test]
async fn what_a_command_shows_last_is_not_lost() {
    let agent = agent(setup()).await;
    let line = "stty -onlcr; head -c 200000 /dev/zero | tr '\\0' x; printf END";
    for round in 0..50 {
        let output = agent.run(at_terminal(line)).await;
        let shown = output.out();
        assert_eq!(shown.len(), 200_003, "round {round}");
        assert!(shown.ends_with("xEND"));
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_reader_that_takes_its_time_loses_nothing() {
    let agent = agent(setup()).await;
    // More than the windows on the way hold, so that the command waits for the reader, by less
    // than the kernel keeps for a terminal, so that it has ended when the reader comes back.
    let window = 256 * 1024;
    let length = window + 3000;
    let line = format!(
        "stty -onlcr; head -c {length} /dev/zero | tr '\\0' x; printf END; echo > \"$ended\""
    );
    for round in 0..10 {
        let ended = agent.home.path().join(format!("ended-{round}"));
        let command = at_terminal(&line).env("ended", ended.to_str().unwrap());
        let (io, stdout, _stderr) = io(ByteSource::empty(), Controls::none());
        // One that holds nothing: the pipe's own room would hide what is meant.
        let (slow, gate) = Gate::before(io.stdout);
        let io = boxyard_plugin_api::CommandIo { stdout: slow, ..io };
        let uncancelled = call();
        let running = agent.client.execute_command(&command, io, &uncancelled);
        let reading = async {
            eventually("the command's end", || ended.exists()).await;
            // No time is too long, be the terminal as quiet as it may.
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(300) {
                agent.client.processes(&uncancelled).await.unwrap();
            }
            gate.open();
            stdout.read_to_end(usize::MAX).await
        };
        let (exit, shown) = within(async { tokio::join!(running, reading) }).await;
        assert_eq!(exit.unwrap().exit_code, 0);
        let shown = shown.unwrap();
        assert_eq!(shown.len(), length + 3, "round {round}");
        assert!(shown.ends_with(b"xEND"));
    }
    agent.stop().await;
}

/// Lets nothing pass until it is opened.
struct Gate(tokio::sync::watch::Sender<bool>);

struct Gated {
    sink: boxyard_plugin_api::ByteSink,
    is_open: tokio::sync::watch::Receiver<bool>,
}

impl Gate {
    fn before(sink: boxyard_plugin_api::ByteSink) -> (boxyard_plugin_api::ByteSink, Self) {
        let (gate, is_open) = tokio::sync::watch::channel(false);
        let gated = boxyard_plugin_api::ByteSink::new(Gated { sink, is_open });
        (gated, Self(gate))
    }

    fn open(&self) {
        self.0.send_replace(true);
    }
}

impl boxyard_plugin_api::Sink for Gated {
    async fn write(&self, chunk: boxyard_plugin_api::Chunk) -> Result<()> {
        self.is_open.clone().wait_for(|open| *open).await.unwrap();
        self.sink.write(chunk).await
    }

    async fn finish(&self) -> Result<()> {
        self.sink.finish().await
    }
}

#[tokio::test]
async fn a_child_that_keeps_the_terminal_does_not_hold_the_call() {
    let agent = agent(setup()).await;
    for (line, expected) in [
        ("trap '' HUP; sleep 1000 & echo done", "done\r\n"),
        ("trap '' HUP; setsid sleep 1000 & echo done", "done\r\n"),
        // One that goes on showing things shows them to nobody.
        ("trap '' HUP; yes & echo done", "done\r\n"),
        ("trap '' HUP; setsid yes & echo done", "done\r\n"),
    ] {
        let output = agent.run(at_terminal(line)).await;
        let shown = output.out();
        assert!(shown.contains(expected), "{line}: {shown:.100}");
        assert!(shown.len() < 1 << 20, "{line}: {}", shown.len());
    }
    let left = within(agent.client.processes(&call())).await.unwrap();
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left.iter().all(|process| process.left_behind));
    agent.stop().await;
}

#[tokio::test]
async fn a_command_that_times_out_at_a_terminal_has_shown_what_it_showed() {
    let agent = agent(setup()).await;
    let command = at_terminal("echo shown; sleep 1000").timeout(Duration::from_secs(3));
    let output = agent.run(command).await;
    assert!(output.exit.timed_out);
    assert_eq!(output.out(), "shown\r\n");
    agent.stop().await;
}
