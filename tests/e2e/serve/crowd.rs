//! More connections than anyone has use for.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use rustix::process::{Resource, getrlimit, setrlimit};

use super::{Home, Served, wait_until};
use crate::skip;

const CROWD: usize = 10_000;

fn descriptors(served: &Served) -> usize {
    let directory = format!("/proc/{}/fd", served.pid().as_raw_nonzero());
    fs::read_dir(directory).unwrap().count()
}

fn is_answered(stream: &mut TcpStream) -> bool {
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut answer = [0; 12];
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_exact(&mut answer).is_ok() && answer == *b"HTTP/1.1 200"
}

#[test]
fn ten_thousand_connections_are_held_and_answered() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let enough = limit.maximum.is_none_or(|most| most > CROWD as u64 + 1000);
    if !enough || setrlimit(Resource::Nofile, limit).is_err() {
        let why = format!("a process may have {:?} files", limit.maximum);
        return skip("ten thousand connections", &why).unwrap();
    }
    let home = Home::new("");
    let served = home.serve();
    let before = descriptors(&served);
    let mut crowd: Vec<_> = (0..CROWD).map(|_| served.connect()).collect();
    wait_until("all are let in", || descriptors(&served) >= before + CROWD);
    let id = served.create("local_process", serde_json::json!({}));
    for stream in crowd.iter_mut().step_by(97) {
        assert!(is_answered(stream));
    }
    assert_eq!(
        served.ask("DELETE", &format!("/sandbox/{id}"), None).status,
        200
    );
    drop(crowd);
    wait_until("all are forgotten", || descriptors(&served) <= before + 8);
    served.end();
}

#[test]
fn whoever_comes_when_all_places_are_taken_waits_for_one() {
    let home = Home::new("[http]\nmax_connections = 4\nread_timeout = \"1s\"");
    let served = home.serve();
    let idle: Vec<_> = (0..4).map(|_| served.connect()).collect();
    let mut next = served.connect();
    // Those that say nothing lose their places in time.
    assert!(is_answered(&mut next));
    drop(idle);
    served.end();
}
