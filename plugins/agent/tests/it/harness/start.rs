//! Agents that are started, in each of the ways that there are.

use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use boxyard_agent::{Client, Program, protocol::Setup};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixListener, unix::pipe},
};

use super::{BOUND, TestAgent, within};

/// How an agent is told where its host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Descriptor,
    Stdio,
    Connect,
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
pub(crate) async fn agent_started_by(program: Command, setup: Setup) -> TestAgent {
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
    let mut unshared = Command::new("unshare");
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

async fn start(way: Way, home: TempDir, mut program: Command, setup: Setup) -> TestAgent {
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
            let output = pipe::Receiver::from_owned_fd(output).unwrap();
            let input = pipe::Sender::from_owned_fd(input).unwrap();
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
pub(crate) fn program_in(directory: &Path) -> Command {
    let path = directory.join("boxyard-agent");
    let program = Program::for_this_machine(Path::new("/nonexistent")).unwrap();
    program.write_to(&path).unwrap();
    Command::new(path)
}

/// Starts a program that was just written: what another test forks meanwhile may hold it open
/// for writing until it is another program.
pub(crate) fn spawn(command: &mut Command) -> Child {
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
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (client, work) = Client::connect(stream, setup).await.unwrap();
    tokio::spawn(work);
    client
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
