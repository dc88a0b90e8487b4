//! `ps` and `rm`, as the server hears them.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
    time::Duration,
};

use super::{Cli, code};

#[test]
fn rm_asks_for_the_sandbox_that_was_named_whatever_its_name_looks_like() {
    let cli = Cli::empty();
    for (id, path) in [
        ("a?b", "a%3Fb"),
        ("../pools", "%2E%2E%2Fpools"),
        ("a#b%20c d", "a%23b%2520c%20d"),
        ("abc234", "abc234"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(30)))
                .unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).unwrap();
            line
        });
        let output = cli.output(&["rm", "--url", &url, id]);
        assert_eq!(code(&output), 0, "{output:?}");
        let expected = format!("DELETE /v1/sandboxes/{path} HTTP/1.1\r\n");
        assert_eq!(heard.join().unwrap(), expected);
    }
}
