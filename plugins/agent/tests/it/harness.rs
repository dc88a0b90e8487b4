//! An agent of one's own, what is asked of it, and bounded waits.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command as HostCommand, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use boxyard_agent::{Client, Program, protocol::Setup};
use boxyard_plugin_api::{
    ByteSink, ByteSource, Call, CallController, Command, CommandExit, CommandIo, Controls,
    ErrorCode, GetArchive, MakeDirectory, PutArchive, ReadFile, RemovePath, Result, WriteFile,
    pipe,
};
use tempfile::TempDir;
use tokio::{
    net::{UnixListener, unix::pipe as unix_pipe},
    time::{sleep, timeout},
};

/// How long anything may take that must happen.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
/// A user that owns nothing.
pub(crate) const NOBODY: u32 = 65534;

/// How an agent is told where its host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Descriptor,
    Stdio,
    Connect,
}

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

/// What the commands of a test start from; paths of files are the machine's own.
pub(crate) fn setup() -> Setup {
    Setup {
        env: [(
            "PATH".to_owned(),
            "/usr/bin:/bin:/usr/sbin:/sbin".to_owned(),
        )]
        .into(),
        working_dir: "/".into(),
        ..Setup::default()
    }
}

/// The same, with a directory that nothing leaves and that relative paths start at.
pub(crate) fn rooted(root: &Path) -> Setup {
    let root = root.to_str().unwrap().to_owned();
    Setup {
        working_dir: root.clone(),
        root: Some(root),
        ..setup()
    }
}

/// Starts an agent on one end of a socket pair.
pub(crate) async fn agent(setup: Setup) -> TestAgent {
    agent_by(Way::Descriptor, setup, None).await
}

/// Starts an agent that is not root; only root can.
pub(crate) async fn agent_as(user: u32, setup: Setup) -> TestAgent {
    agent_by(Way::Descriptor, setup, Some(user)).await
}

/// Starts an agent by a program that becomes it.
pub(crate) async fn agent_started_by(program: HostCommand, setup: Setup) -> TestAgent {
    start(Way::Descriptor, open_directory(), program, setup).await
}

/// Starts an agent in one of its ways, as another user where one is given.
pub(crate) async fn agent_by(way: Way, setup: Setup, user: Option<u32>) -> TestAgent {
    let home = open_directory();
    let mut program = program_in(home.path());
    if let Some(user) = user {
        program.uid(user).gid(user);
    }
    start(way, home, program, setup).await
}

/// Starts an agent for which the machine has other files than for everybody else; only root can.
pub(crate) async fn agent_with_files(files: &[(&str, &str)], setup: Setup) -> TestAgent {
    let home = open_directory();
    let program = program_in(home.path());
    let mut unshared = HostCommand::new("unshare");
    unshared.args(["--mount", "sh", "-ec"]);
    unshared.arg("while [ $1 != exec ]; do mount --bind $1 $2; shift 2; done; shift; exec \"$@\"");
    unshared.arg("sh");
    for (number, (path, content)) in files.iter().enumerate() {
        let file = home.path().join(format!("file-{number}"));
        fs::write(&file, content).unwrap();
        unshared.arg(file).arg(path);
    }
    unshared.arg("exec").arg(program.get_program());
    start(Way::Descriptor, home, unshared, setup).await
}

async fn start(way: Way, home: TempDir, mut program: HostCommand, setup: Setup) -> TestAgent {
    let (child, client) = match way {
        Way::Descriptor => {
            let (child, line) = boxyard_agent::spawn(program).await.unwrap();
            (child, connect(line, setup).await)
        }
        Way::Stdio => {
            let program = program.arg("--stdio").stdin(Stdio::piped());
            let mut child = spawn(program.stdout(Stdio::piped()));
            let output = OwnedFd::from(child.stdout.take().unwrap());
            let input = OwnedFd::from(child.stdin.take().unwrap());
            let output = unix_pipe::Receiver::from_owned_fd(output).unwrap();
            let input = unix_pipe::Sender::from_owned_fd(input).unwrap();
            (child, connect(tokio::io::join(output, input), setup).await)
        }
        Way::Connect => {
            let socket = home.path().join("socket");
            let listener = UnixListener::bind(&socket).unwrap();
            fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
            let child = spawn(program.arg("--connect").arg(&socket));
            let (stream, _) = within(listener.accept()).await.unwrap();
            (child, connect(stream, setup).await)
        }
    };
    TestAgent {
        client,
        child,
        home,
    }
}

/// A temporary directory that every user may enter.
pub(crate) fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

/// Puts the agent's program into a directory, ready to be started.
pub(crate) fn program_in(directory: &Path) -> HostCommand {
    let path = directory.join("boxyard-agent");
    let program = Program::for_this_machine(Path::new("/nonexistent")).unwrap();
    fs::write(&path, program.bytes()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    HostCommand::new(path)
}

/// Starts a program that was just written: what another test forks meanwhile may hold it open
/// for writing until it is another program.
pub(crate) fn spawn(command: &mut HostCommand) -> Child {
    let start = Instant::now();
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                assert!(start.elapsed() < BOUND, "{command:?} stays busy");
                std::thread::yield_now();
            }
            result => return result.unwrap(),
        }
    }
}

async fn connect<S>(stream: S, setup: Setup) -> Client
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (client, work) = Client::connect(stream, setup).await.unwrap();
    tokio::spawn(work);
    client
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
        let request = ReadFile {
            path: path.into(),
            offset,
            length,
        };
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
        let path = path.into();
        let request = RemovePath { path, recursive };
        within(self.client.remove(&request, &call())).await
    }

    /// Makes a directory.
    pub(crate) async fn mkdir(&self, path: &str, mode: Option<u32>, parents: bool) -> Result<()> {
        let path = path.into();
        let request = MakeDirectory {
            path,
            mode,
            parents,
        };
        within(self.client.make_directory(&request, &call())).await
    }

    /// Unpacks an archive.
    pub(crate) async fn put(&self, directory: &str, archive: impl Into<Vec<u8>>) -> Result<()> {
        let directory = directory.into();
        let source = ByteSource::from_bytes(archive.into());
        let request = PutArchive { directory };
        within(self.client.put_archive(&request, source, &call())).await
    }

    /// Packs a path.
    pub(crate) async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let request = GetArchive { path: path.into() };
        let call = call();
        collect(|to| self.client.get_archive(&request, to, &call)).await
    }
}

/// A file that is new.
pub(crate) fn new_file(path: &str) -> WriteFile {
    WriteFile {
        path: path.into(),
        mode: None,
        make_parents: false,
    }
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

/// A file system of its own, gone with this.
#[derive(Debug)]
pub(crate) struct Mount(pub(crate) PathBuf);

impl Mount {
    /// Mounts a small one in memory on a directory that it makes; only root can.
    pub(crate) fn tmpfs(on: PathBuf, options: &str) -> Self {
        fs::create_dir(&on).unwrap();
        run_on_host("mount", &["-t", "tmpfs", "-o", options, "none"], &on);
        Self(on)
    }

    /// Makes it read-only.
    pub(crate) fn make_read_only(&self) {
        run_on_host("mount", &["-o", "remount,ro"], &self.0);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run_on_host("umount", &["-l"], &self.0);
    }
}

fn run_on_host(program: &str, arguments: &[&str], path: &Path) {
    let status = HostCommand::new(program).args(arguments).arg(path).status();
    assert!(status.unwrap().success(), "{program} {}", path.display());
}

/// A thread of the test that does something over and over until this is gone.
#[derive(Debug)]
pub(crate) struct Meanwhile {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Meanwhile {
    pub(crate) fn repeat(mut work: impl FnMut() + Send + 'static) -> Self {
        let done = Arc::<AtomicBool>::default();
        let is_done = done.clone();
        let thread = std::thread::spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                work();
            }
        });
        Self {
            done,
            thread: Some(thread),
        }
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        // A test that panics already says more.
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
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

/// Whether we are root; where not, says which promise is not looked at.
pub(crate) fn is_root(promise: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("BOXYARD_REQUIRE_ALL").is_none_or(|value| value != "1"),
            "needs root: {promise}"
        );
        // Past the capture of the test harness; nobody is left to tell if this fails.
        let _ = writeln!(io::stderr(), "SKIPPED {promise}: it needs root");
    }
    root
}

#[tokio::test]
async fn an_agent_works_whichever_way_it_finds_its_host() {
    for way in [Way::Descriptor, Way::Stdio, Way::Connect] {
        let agent = agent_by(way, setup(), None).await;
        assert_eq!(agent.sh("echo hi").await, "hi\n", "{way:?}");
        let bytes = vec![7; 1 << 20];
        let file = agent.home.path().join("file");
        agent
            .write(file.to_str().unwrap(), bytes.clone())
            .await
            .unwrap();
        assert!(agent.read(file.to_str().unwrap()).await.unwrap() == bytes);
        agent.stop().await;
    }
}
