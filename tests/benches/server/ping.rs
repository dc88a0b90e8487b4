//! The floor of an answer: a bare socket over which a process gives back each line.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

/// The benchmark runs itself with this argument to be that process.
pub(crate) const ARGUMENT: &str = "--ping";

/// The process, and a connection to it.
pub(crate) struct Ping {
    child: Child,
    connection: BufReader<TcpStream>,
}

impl Ping {
    pub(crate) fn start() -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        let command = command.arg(ARGUMENT).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut address = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut address).unwrap();
        let stream = TcpStream::connect(address.trim_end()).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            child,
            connection: BufReader::new(stream),
        }
    }

    /// Sends a line and waits until it is back.
    pub(crate) fn echo(&mut self) {
        self.connection.get_mut().write_all(b"ping\n").unwrap();
        let mut line = String::new();
        self.connection.read_line(&mut line).unwrap();
        assert_eq!(line, "ping\n");
    }

    /// Ends it, by the end of the connection.
    pub(crate) fn end(mut self) {
        drop(self.connection);
        assert!(self.child.wait().unwrap().success());
    }
}

/// Is the process, for one connection.
pub(crate) fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        stream.write_all(line.as_bytes()).unwrap();
        line.clear();
    }
}
