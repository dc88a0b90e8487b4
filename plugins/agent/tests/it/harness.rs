//! An agent of one's own, what is asked of it, and bounded waits.

mod machine;
mod start;

use std::{
    process::Child,
    time::{Duration, Instant},
};

use boxyard_agent::Client;
use boxyard_plugin_api::{
    ByteSink, ByteSource, Call, CallController, Command, CommandExit, CommandIo, Controls,
    ErrorCode, GetArchive, MakeDirectory, PutArchive, ReadFile, RemovePath, Result, WriteFile,
    pipe,
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

pub(crate) use self::{
    machine::{Meanwhile, Mount, is_root},
    start::{
        Way, agent, agent_as, agent_by, agent_started_by, agent_with_files, open_directory,
        program_in, rooted, setup, spawn,
    },
};

/// How long anything may take that must happen.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
/// A user that owns nothing.
pub(crate) const NOBODY: u32 = 65534;

/// An agent that was started, and the client that speaks to it.
///
/// Dropped, it ends by the end of its connection; [`TestAgent::stop`] sees to it that it does.
#[derive(Debug)]
pub(crate) struct TestAgent {
    pub(crate) client: Client,
    /// The process that was started, which is the guard above the agent.
    pub(crate) child: Child,
    /// Where its program is, and its socket where it has one.
    pub(crate) home: TempDir,
}

/// A call that nobody cancels.
pub(crate) fn call() -> Call {
    CallController::new(0).call()
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) exit: CommandExit,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub(crate) fn out(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Standard error as text.
    pub(crate) fn err(&self) -> &str {
        std::str::from_utf8(&self.stderr).unwrap()
    }
}

/// The streams of a command: what the command has, its output and its errors.
pub(crate) fn io(stdin: ByteSource, controls: Controls) -> (CommandIo, ByteSource, ByteSource) {
    let (stdout_sink, stdout) = pipe();
    let (stderr_sink, stderr) = pipe();
    let io = CommandIo {
        stdin,
        stdout: stdout_sink,
        stderr: stderr_sink,
        controls,
    };
    (io, stdout, stderr)
}

/// Commands.
impl TestAgent {
    /// Runs a command that can be tried.
    pub(crate) async fn run(&self, command: Command) -> Output {
        self.try_run(command).await.unwrap()
    }

    /// Runs a line that succeeds; returns what it printed.
    pub(crate) async fn sh(&self, line: &str) -> String {
        let output = self.run(Command::shell(line)).await;
        assert_eq!(output.exit.exit_code, 0, "`{line}`: {output:?}");
        output.out().to_owned()
    }

    /// Runs a command without input.
    pub(crate) async fn try_run(&self, command: Command) -> Result<Output> {
        self.run_with(command, ByteSource::empty(), Controls::none())
            .await
    }

    /// Runs a command with an input and controls.
    pub(crate) async fn run_with(
        &self,
        command: Command,
        stdin: ByteSource,
        controls: Controls,
    ) -> Result<Output> {
        let (io, stdout, stderr) = io(stdin, controls);
        let call = call();
        let all = async {
            tokio::join!(
                self.client.execute_command(&command, io, &call),
                stdout.read_to_end(usize::MAX),
                stderr.read_to_end(usize::MAX),
            )
        };
        let (exit, stdout, stderr) = within(all).await;
        // Its own error first: streams break off where there is one.
        let (exit, stdout, stderr) = (exit?, stdout?, stderr?);
        Ok(Output {
            exit,
            stdout,
            stderr,
        })
    }

    /// Ends the agent, which must go in peace.
    pub(crate) async fn stop(mut self) {
        within(self.client.shut_down(BOUND)).await.unwrap();
        let mut status = None;
        eventually("the agent's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(status.unwrap().success(), "{status:?}");
    }
}

/// Files, by the shortest way to say it.
impl TestAgent {
    /// Reads a whole file.
    pub(crate) async fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.read_part(path, 0, None).await
    }

    /// Reads a part of a file.
    pub(crate) async fn read_part(
        &self,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Vec<u8>> {
        let request = ReadFile::new(path).offset(offset).length(length);
        let call = call();
        collect(|to| self.client.read_file(&request, to, &call)).await
    }

    /// Writes a file, with the mode that a new one has by itself.
    pub(crate) async fn write(&self, path: &str, content: impl Into<Vec<u8>>) -> Result<()> {
        let source = ByteSource::from_bytes(content.into());
        self.write_from(&new_file(path), source).await
    }

    /// Writes a file from a source.
    pub(crate) async fn write_from(&self, request: &WriteFile, from: ByteSource) -> Result<()> {
        within(self.client.write_file(request, from, &call())).await
    }

    /// Removes a path.
    pub(crate) async fn remove(&self, path: &str, recursive: bool) -> Result<()> {
        let request = RemovePath::new(path).recursive(recursive);
        within(self.client.remove(&request, &call())).await
    }

    /// Makes a directory.
    pub(crate) async fn mkdir(&self, path: &str, mode: Option<u32>, parents: bool) -> Result<()> {
        let request = MakeDirectory::new(path).mode(mode).parents(parents);
        within(self.client.make_directory(&request, &call())).await
    }

    /// Unpacks an archive.
    pub(crate) async fn put(&self, directory: &str, archive: impl Into<Vec<u8>>) -> Result<()> {
        let source = ByteSource::from_bytes(archive.into());
        let request = PutArchive::new(directory);
        within(self.client.put_archive(&request, source, &call())).await
    }

    /// Packs a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let request = GetArchive::new(path);
        let call = call();
        collect(|to| self.client.get_archive(&request, to, &call)).await
    }
}

/// A file that is new.
pub(crate) fn new_file(path: &str) -> WriteFile {
    WriteFile::new(path)
}

/// Collects what a call writes.
pub(crate) async fn collect<F: Future<Output = Result<()>>>(
    work: impl FnOnce(ByteSink) -> F,
) -> Result<Vec<u8>> {
    let (sink, source) = pipe();
    let (done, bytes) =
        within(async { tokio::join!(work(sink), source.read_to_end(usize::MAX)) }).await;
    done?;
    bytes
}

/// Returns the code of the error that must be one.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T>) -> ErrorCode {
    result.unwrap_err().code()
}

/// Waits for something that must happen in time.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(BOUND, work).await.expect("it takes too long")
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < BOUND, "never: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
