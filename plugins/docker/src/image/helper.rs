//! Docker's credential helpers: programs that are asked for a login.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use boxyard_plugin_api::prelude::*;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::timeout;

/// How long a helper may take; one that asks a person takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of its answer is read.
const MAX_ANSWER: u64 = 64 * 1024;

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) secret: String,
}

/// Asks a helper for the login of a server; `None` where it has none.
pub(super) async fn get(program: &OsStr, server: &str) -> Result<Option<Login>> {
    let doing = || format!("credential helper `{}`", program.display());
    let answer = ask(program, server, PATIENCE).await;
    let answer = answer.map_err(|error| error.context(doing()))?;
    if let Ok(login) = serde_json::from_str(&answer) {
        return Ok(Some(login));
    }
    if answer.contains("credentials not found") {
        return Ok(None);
    }
    Err(Error::failed_precondition(format_args!("it says {:?}", answer.trim())).context(doing()))
}

/// Runs a helper and returns what it prints. With threads instead of tokio's own processes, which
/// would handle signals, and those are the host's.
async fn ask(program: &OsStr, server: &str, patience: Duration) -> Result<String> {
    let mut child = Command::new(program)
        .arg("get")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::from)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let server = server.to_owned();
    // Killed and waited for on every way out, a dropped future included.
    let _helper = Helper(child);
    let talk = tokio::task::spawn_blocking(move || {
        if let Some(mut stdin) = stdin {
            // One that reads nothing may still answer.
            let _ = writeln!(stdin, "{server}");
        }
        let mut answer = String::new();
        match stdout {
            Some(stdout) => stdout.take(MAX_ANSWER).read_to_string(&mut answer),
            None => Ok(0),
        }
        .map(|_| answer)
    });
    match timeout(patience, talk).await {
        Ok(Ok(answer)) => Ok(answer?),
        Ok(Err(broken)) => Err(Error::internal(broken)),
        Err(_) => Err(Error::deadline_exceeded(format_args!(
            "it did not answer within {} s",
            patience.as_secs()
        ))),
    }
}

/// A helper that runs, in a process group of its own.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        // It was not waited for yet: the number is its own. That it is gone is no error.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Instant};

    use super::*;

    /// Written by another process: a file that this one has open while a test beside it forks
    /// cannot be executed.
    fn script(directory: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = directory.path().join("helper");
        let write = r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#;
        let mut shell = Command::new("/bin/sh");
        let written = shell.args(["-c", write, "sh"]).arg(&path).arg(text);
        assert!(written.status().unwrap().success());
        path
    }

    #[tokio::test]
    async fn a_helper_is_asked_and_answers() {
        let directory = tempfile::tempdir().unwrap();
        let answers = script(
            &directory,
            r#"[ "$1" = get ] && read server && echo "{\"ServerURL\":\"$server\",\"Username\":\"me\",\"Secret\":\"at $server\"}""#,
        );
        let login = get(answers.as_ref(), "host:5000").await.unwrap().unwrap();
        assert_eq!(
            (login.username.as_str(), login.secret.as_str()),
            ("me", "at host:5000")
        );
        let knows_none = script(
            &directory,
            "echo credentials not found in native keychain; exit 1",
        );
        assert!(get(knows_none.as_ref(), "host").await.unwrap().is_none());
        let fails = script(&directory, "echo locked; exit 1");
        let error = get(fails.as_ref(), "host").await.err().unwrap();
        assert!(error.message().contains("locked"), "{error}");
    }

    #[tokio::test]
    async fn a_helper_that_hangs_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let hangs = script(&directory, "sleep 1000 & sleep 1000");
        let began = Instant::now();
        let error = ask(hangs.as_ref(), "host", Duration::from_millis(200)).await;
        let error = error.unwrap_err();
        assert_eq!(error.code(), ErrorCode::DEADLINE_EXCEEDED);
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
