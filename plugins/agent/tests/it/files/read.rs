//! Reading: what a file, a pipe and a device give, and what cannot be read.

use std::{
    fs::{self, File},
    os::unix::{fs::symlink, net::UnixListener},
};

use boxyard_plugin_api::{CallController, ErrorCode, ReadFile, pipe};

use super::{in_root, make_pipe};
use crate::harness::*;

#[tokio::test]
async fn a_file_is_read_whole_or_in_part() {
    let (agent, root) = in_root().await;
    fs::write(root.path().join("file"), "0123456789").unwrap();
    fs::write(root.path().join("empty"), "").unwrap();
    symlink("file", root.path().join("link")).unwrap();
    for (path, offset, length, expected) in [
        ("file", 0, None, "0123456789"),
        ("file", 3, None, "3456789"),
        ("file", 3, Some(4), "3456"),
        ("file", 8, Some(u64::MAX), "89"),
        ("file", 0, Some(0), ""),
        ("file", 10, None, ""),
        ("file", 1 << 40, Some(1), ""),
        ("empty", 0, None, ""),
        ("link", 1, Some(1), "1"),
    ] {
        let read = agent.read_part(path, offset, length).await.unwrap();
        let read = String::from_utf8(read).unwrap();
        assert_eq!(read, expected, "{path} {offset} {length:?}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_large_file_comes_and_goes_whole() {
    let (agent, root) = in_root().await;
    let content: Vec<u8> = (0..50_u32 << 18).flat_map(u32::to_le_bytes).collect();
    agent.write("large", content.clone()).await.unwrap();
    assert!(fs::read(root.path().join("large")).unwrap() == content);
    assert!(agent.read("large").await.unwrap() == content);
    agent.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_says_why() {
    let (agent, root) = in_root().await;
    fs::write(root.path().join("file"), "").unwrap();
    fs::create_dir(root.path().join("directory")).unwrap();
    symlink("loop", root.path().join("loop")).unwrap();
    let _listener = UnixListener::bind(root.path().join("socket")).unwrap();
    for (path, offset, expected) in [
        ("missing", 0, ErrorCode::NOT_FOUND),
        ("missing/file", 0, ErrorCode::NOT_FOUND),
        ("directory", 0, ErrorCode::FAILED_PRECONDITION),
        ("file/below", 0, ErrorCode::FAILED_PRECONDITION),
        ("loop", 0, ErrorCode::FAILED_PRECONDITION),
        ("socket", 0, ErrorCode::NOT_FOUND),
        ("", 0, ErrorCode::INVALID_ARGUMENT),
        ("a\0b", 0, ErrorCode::INVALID_ARGUMENT),
        (&"x".repeat(256), 0, ErrorCode::INVALID_ARGUMENT),
        ("file", u64::MAX, ErrorCode::INVALID_ARGUMENT),
    ] {
        let error = agent.read_part(path, offset, None).await.unwrap_err();
        assert_eq!(error.code(), expected, "{path}: {error}");
        assert!(path.is_empty() || error.message().contains(path), "{error}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_pipe_holds_no_reader() {
    let (agent, root) = in_root().await;
    let path = root.path().join("pipe");
    make_pipe(path.clone());
    assert_eq!(agent.read("pipe").await.unwrap(), b"");
    // With a writer that says nothing.
    let _writer = File::options().read(true).write(true).open(path).unwrap();
    assert_eq!(
        code(agent.read("pipe").await),
        ErrorCode::FAILED_PRECONDITION
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_device_without_end_is_read_as_far_as_asked_and_until_it_is_cancelled() {
    let agent = agent(setup()).await;
    let zeros = agent.read_part("/dev/zero", 0, Some(3 << 20)).await;
    assert!(zeros.unwrap() == vec![0; 3 << 20]);
    let controller = CallController::new(0);
    let cancelled = controller.call();
    let request = ReadFile::new("/dev/zero");
    let (sink, source) = pipe();
    let reading = async {
        source.read(1).await.unwrap().unwrap();
        controller.cancel();
    };
    let all = async { tokio::join!(agent.client.read_file(&request, sink, &cancelled), reading) };
    assert_eq!(code(within(all).await.0), ErrorCode::CANCELLED);
    // A reader that goes away ends it, too.
    let (sink, source) = pipe();
    let reading = async {
        source.read(1).await.unwrap().unwrap();
        drop(source);
    };
    let uncancelled = call();
    let all = async {
        tokio::join!(
            agent.client.read_file(&request, sink, &uncancelled),
            reading
        )
    };
    assert_eq!(code(within(all).await.0), ErrorCode::CLOSED);
    agent.stop().await;
}

/// More than the connection holds: each read stops and goes on many times, and often while the
/// host has yet to take what others sent.
#[tokio::test]
async fn many_large_reads_at_once_all_come_to_their_end() {
    const LENGTH: u64 = 8 << 20;
    for way in [Way::Descriptor, Way::Stdio] {
        let agent = agent_by(way, setup(), None).await;
        let read = |_| agent.read_part("/dev/zero", 0, Some(LENGTH));
        for result in futures_util::future::join_all((0..24).map(read)).await {
            assert_eq!(result.unwrap().len() as u64, LENGTH);
        }
        agent.stop().await;
    }
}
