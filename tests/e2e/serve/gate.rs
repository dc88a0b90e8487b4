//! Who is let in.

use serde_json::json;

use super::{Home, Served, boxyard, log_of};

/// Makes a request by hand; returns the status of the answer.
fn status(served: &Served, head: &str, body: &str) -> u16 {
    let length = body.len();
    let request = format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let answer = served.raw(request.as_bytes());
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    status.unwrap_or_else(|| panic!("{request:?}: {answer:?}"))
}

#[test]
fn a_web_page_cannot_use_a_loopback_server() {
    let home = Home::new("[http]\nhosts = ['box.example']\norigins = ['https://page.example']");
    let served = home.serve();
    let own = served.address;
    let create = "POST /sandbox/create?sandbox_type=local_process HTTP/1.1\r\n";
    let json = "Content-Type: application/json";
    for (head, body, expected) in [
        (format!("GET /health HTTP/1.1\r\nHost: {own}"), "", 200),
        ("GET /health HTTP/1.1\r\nHost: localhost:1".into(), "", 200),
        ("GET /health HTTP/1.1\r\nHost: [::1]:8000".into(), "", 200),
        ("GET /health HTTP/1.1\r\nHost: box.example".into(), "", 200),
        ("GET /health HTTP/1.1\r\nHost: evil.example".into(), "", 421),
        (
            "GET /health HTTP/1.1\r\nHost: 127.0.0.1.evil.example".into(),
            "",
            421,
        ),
        (
            format!("GET /health HTTP/1.1\r\nHost: {own}\r\nOrigin: http://{own}"),
            "",
            200,
        ),
        (
            format!("GET /health HTTP/1.1\r\nHost: {own}\r\nOrigin: https://page.example"),
            "",
            200,
        ),
        (
            format!("GET /health HTTP/1.1\r\nHost: {own}\r\nOrigin: https://evil.example"),
            "",
            403,
        ),
        (
            format!("GET /health HTTP/1.1\r\nHost: {own}\r\nOrigin: null"),
            "",
            403,
        ),
        (
            format!("{create}Host: {own}\r\nOrigin: http://evil.example"),
            "",
            403,
        ),
        (
            format!("{create}Host: {own}\r\nContent-Type: text/plain"),
            "{}",
            415,
        ),
        (
            format!("{create}Host: {own}\r\nContent-Type: application/x-www-form-urlencoded"),
            "{}",
            415,
        ),
        (format!("{create}Host: {own}"), "{}", 415),
        (
            format!("{create}Host: {own}\r\n{json}; charset=utf-8"),
            "{}",
            200,
        ),
        (format!("{create}Host: {own}"), "", 200),
    ] {
        assert_eq!(status(&served, &head, body), expected, "{head}");
    }
    let preflight = |origin: &str| {
        let head = format!(
            "OPTIONS /sandboxes HTTP/1.1\r\nHost: {own}\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: GET\r\nConnection: close\r\n\r\n"
        );
        served.raw(head.as_bytes()).to_lowercase()
    };
    assert!(
        preflight("https://page.example")
            .contains("access-control-allow-origin: https://page.example")
    );
    assert!(!preflight("https://evil.example").contains("access-control-allow-origin"));
    served.end();
}

#[test]
fn a_key_is_asked_for_everywhere_and_shown_nowhere() {
    let home = Home::new("");
    let made = boxyard(&home.yard, &["key", "new", "ci"]);
    let made = { made }.output().unwrap();
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let said = String::from_utf8(made.stderr).unwrap();
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.starts_with("[http") || line.starts_with("ci"))
        .collect();
    assert!(!said.contains(&key), "{said}");
    let home = Home::new(&format!("log = 'trace'\n{}", lines.join("\n")));
    let served = home.serve();
    for path in ["/health", "/stats", "/sandboxes", "/v1/sandboxes"] {
        for header in [
            "",
            "\r\nX-API-Key: ",
            "\r\nX-API-Key: byk_wrong",
            "\r\nAuthorization: Basic eDp5",
        ] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: localhost{header}");
            assert_eq!(status(&served, &head, ""), 401, "{head}");
        }
        for header in [
            format!("X-API-Key: {key}"),
            format!("Authorization: Bearer {key}"),
            format!("Authorization: bearer {key}"),
            format!("Authorization: Bearer other\r\nX-API-Key: {key}"),
        ] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}");
            assert_eq!(status(&served, &head, ""), 200, "{head}");
        }
    }
    let ps = |arguments: &[&str]| {
        let url = served.url();
        let arguments = [&["ps", "--url", &url], arguments].concat();
        boxyard(&home.yard, &arguments).output().unwrap()
    };
    let refused = ps(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("BOXYARD_API_KEY"));
    assert!(ps(&["--api-key", &key]).status.success());
    served.end();
    let log = log_of(&home.yard);
    assert!(log.contains("authorized") && !log.contains(&key), "{log}");
}

#[test]
fn what_is_not_safe_is_not_served() {
    let home = Home::new("");
    let serve = |arguments: &[&str]| {
        let arguments = [&["serve"], arguments].concat();
        let output = boxyard(&home.yard, &arguments).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = serve(&["--listen", "0.0.0.0:0"]);
    assert!(
        code == Some(1) && said.contains("boxyard key new"),
        "{said}"
    );
    let served = Served::start(&home.yard, &[]);
    let refused = served.post("/sandbox/create?sandbox_type=local_process", json!({}));
    assert_eq!(refused.status, 400);
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("isolation `none`") && detail.contains("--allow-isolation none"),
        "{detail}"
    );
    let other = Home::new("");
    let output = boxyard(
        &other.yard,
        &["serve", "--listen", &served.address.to_string()],
    );
    let said = String::from_utf8({ output }.output().unwrap().stderr).unwrap();
    assert!(
        said.contains("cannot listen on") && said.contains("--listen"),
        "{said}"
    );
    served.end();
}

#[test]
fn secrets_are_in_no_listing_and_no_log() {
    let home = Home::new("log = 'debug'");
    let served = home.serve();
    let id = served.create(
        "local_process",
        json!({ "env": { "TOKEN": "hunter2" }, "tools_config": ["shell_executor"] }),
    );
    let run = served.tool(&id, "shell_executor", json!({ "command": "echo $TOKEN" }));
    assert_eq!(run.body["output"], "hunter2\n");
    for path in [
        "/sandboxes".into(),
        format!("/sandbox/{id}"),
        "/v1/sandboxes".into(),
        format!("/v1/sandboxes/{id}"),
        "/stats".into(),
    ] {
        let answer = served.get(&path);
        assert_eq!(answer.status, 200);
        assert!(!answer.body.to_string().contains("hunter2"), "{path}");
    }
    served.end();
    let log = log_of(&home.yard);
    assert!(log.contains("DEBUG") && !log.contains("hunter2"), "{log}");
}
