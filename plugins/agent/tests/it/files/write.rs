//! Writing: a file is whole, old or new, whatever happens meanwhile.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, symlink},
};

use boxyard_plugin_api::{ByteSource, CallController, ErrorCode, WriteFile, pipe};

use super::{in_root, make_pipe, mode_of, names_in, one_file_tar, set_mode};
use crate::harness::*;

#[tokio::test]
async fn a_reader_sees_the_old_file_or_the_new() {
    const LENGTH: usize = 1 << 20;
    let (agent, root) = in_root().await;
    let path = root.path().join("file");
    fs::write(&path, vec![b'a'; LENGTH]).unwrap();
    let reader = Meanwhile::repeat(move || {
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len(), LENGTH);
        let first = content[0];
        assert!(content.iter().all(|byte| *byte == first));
    });
    for round in 0..30 {
        let byte = if round % 2 == 0 { b'b' } else { b'a' };
        agent.write("file", vec![byte; LENGTH]).await.unwrap();
    }
    drop(reader);
    assert_eq!(names_in(root.path()), BTreeSet::from(["file".into()]));
    agent.stop().await;
}

/// More than fits anywhere between a source and a file.
const PAST_ALL_BUFFERS: usize = 4 << 20;

#[tokio::test]
async fn a_source_that_breaks_off_leaves_the_old_file_and_nothing_else() {
    let (agent, root) = in_root().await;
    fs::write(root.path().join("file"), "old").unwrap();
    for length in [0, 10, PAST_ALL_BUFFERS] {
        for name in ["file", "new"] {
            let (sink, source) = pipe();
            let request = new_file(name);
            let breaking = async {
                sink.write(vec![b'x'; length]).await.unwrap();
                drop(sink);
            };
            let (written, ()) = tokio::join!(agent.write_from(&request, source), breaking);
            assert_eq!(code(written), ErrorCode::ABORTED, "{name} {length}");
        }
    }
    assert_eq!(names_in(root.path()), BTreeSet::from(["file".into()]));
    assert_eq!(fs::read(root.path().join("file")).unwrap(), b"old");
    agent.stop().await;
}

#[tokio::test]
async fn a_write_that_is_cancelled_or_dropped_leaves_the_old_file_and_nothing_else() {
    let (agent, root) = in_root().await;
    fs::write(root.path().join("file"), "old").unwrap();
    let (sink, source) = pipe();
    let controller = CallController::new(0);
    let cancelled = controller.call();
    let request = new_file("file");
    let cancelling = async {
        sink.write(vec![b'x'; PAST_ALL_BUFFERS]).await.unwrap();
        controller.cancel();
    };
    let writing = agent.client.write_file(&request, source, &cancelled);
    let (written, ()) = within(async { tokio::join!(writing, cancelling) }).await;
    assert_eq!(code(written), ErrorCode::CANCELLED);
    // What was begun is undone before the caller hears of it.
    assert_eq!(names_in(root.path()), BTreeSet::from(["file".into()]));

    let (sink, source) = pipe();
    let uncancelled = call();
    let writing = agent.client.write_file(&request, source, &uncancelled);
    let feeding = sink.write(vec![b'x'; PAST_ALL_BUFFERS]);
    within(async {
        tokio::select! {
            biased;
            written = writing => panic!("it has no end: {written:?}"),
            fed = feeding => fed.unwrap(),
        }
    })
    .await;
    eventually("the new file is gone", || names_in(root.path()).len() == 1).await;
    assert_eq!(fs::read(root.path().join("file")).unwrap(), b"old");
    agent.stop().await;
}

#[tokio::test]
async fn a_new_file_has_the_mode_asked_for_and_a_replaced_one_keeps_its_own() {
    let (agent, root) = in_root().await;
    let root = root.path();
    for (mode, expected) in [
        (None, 0o644),
        (Some(0o600), 0o600),
        (Some(0o777), 0o777),
        (Some(0o4711), 0o4711),
        (Some(0), 0),
        // Only permission bits are the caller's to choose.
        (Some(0o100_640), 0o640),
    ] {
        let request = WriteFile::new("new").mode(mode);
        agent
            .write_from(&request, ByteSource::from_bytes("x"))
            .await
            .unwrap();
        assert_eq!(mode_of(root.join("new")), expected, "{mode:?}");
        fs::remove_file(root.join("new")).unwrap();
    }
    fs::write(root.join("old"), "old").unwrap();
    set_mode(root.join("old"), 0o750);
    let request = WriteFile::new("old").mode(0o600);
    agent
        .write_from(&request, ByteSource::from_bytes("new"))
        .await
        .unwrap();
    assert_eq!(mode_of(root.join("old")), 0o750);
    assert_eq!(fs::read(root.join("old")).unwrap(), b"new");
    agent.stop().await;
}

#[tokio::test]
async fn a_replaced_file_keeps_its_owner() {
    if !is_root("a replaced file keeps its owner") {
        return;
    }
    let (agent, root) = in_root().await;
    let path = root.path().join("file");
    fs::write(&path, "old").unwrap();
    std::os::unix::fs::chown(&path, Some(4711), Some(4712)).unwrap();
    agent.write("file", "new").await.unwrap();
    let found = fs::metadata(&path).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((found.uid(), found.gid()), (4711, 4712));
    agent.stop().await;
}

#[tokio::test]
async fn parents_are_made_where_that_is_asked_and_only_there() {
    let (agent, root) = in_root().await;
    let root = root.path();
    fs::write(root.join("file"), "").unwrap();
    let request = |path: &str, make_parents| WriteFile::new(path).make_parents(make_parents);
    let write = async |path: &str, make_parents| {
        let source = ByteSource::from_bytes("x");
        agent.write_from(&request(path, make_parents), source).await
    };
    assert_eq!(code(write("a/b/c", false).await), ErrorCode::NOT_FOUND);
    assert!(!root.join("a").exists());
    write("a/b/c", true).await.unwrap();
    write("a/b/d", true).await.unwrap();
    write("e", true).await.unwrap();
    let absolute = root.join("f/g");
    write(absolute.to_str().unwrap(), true).await.unwrap();
    assert_eq!(mode_of(root.join("a/b")), 0o755);
    for path in ["a/b/c", "a/b/d", "e", "f/g"] {
        assert_eq!(fs::read(root.join(path)).unwrap(), b"x", "{path}");
    }
    let error = code(write("file/x", true).await);
    assert_eq!(error, ErrorCode::FAILED_PRECONDITION);
    agent.stop().await;
}

#[tokio::test]
async fn only_a_file_or_a_link_is_replaced() {
    let (agent, root) = in_root().await;
    let root = root.path();
    fs::create_dir(root.join("directory")).unwrap();
    make_pipe(root.join("pipe"));
    fs::write(root.join("target"), "kept").unwrap();
    symlink("target", root.join("link")).unwrap();
    for (path, expected) in [
        ("directory", ErrorCode::FAILED_PRECONDITION),
        ("pipe", ErrorCode::FAILED_PRECONDITION),
        ("", ErrorCode::INVALID_ARGUMENT),
        ("/", ErrorCode::INVALID_ARGUMENT),
        (".", ErrorCode::INVALID_ARGUMENT),
        ("..", ErrorCode::INVALID_ARGUMENT),
        ("directory/..", ErrorCode::INVALID_ARGUMENT),
        (&"x".repeat(256), ErrorCode::INVALID_ARGUMENT),
    ] {
        assert_eq!(code(agent.write(path, "x").await), expected, "`{path}`");
    }
    let pipe = fs::symlink_metadata(root.join("pipe")).unwrap();
    assert!(pipe.file_type().is_fifo());
    agent.write("link", "new").await.unwrap();
    assert!(root.join("link").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read(root.join("target")).unwrap(), b"kept");
    let names = ["directory", "link", "pipe", "target"].map(String::from);
    assert_eq!(names_in(root), BTreeSet::from(names));
    // The last name that a file system takes is taken, whatever is beside it meanwhile.
    agent.write(&"x".repeat(255), "x").await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn a_full_disk_is_no_file() {
    if !is_root("a full disk is no file") {
        return;
    }
    let (agent, root) = in_root().await;
    let disk = Mount::tmpfs(root.path().join("disk"), "size=1m");
    agent.write("disk/old", "old").await.unwrap();
    for name in ["disk/old", "disk/new"] {
        let written = agent.write(name, vec![b'x'; 3 << 20]).await;
        assert_eq!(code(written), ErrorCode::RESOURCE_EXHAUSTED);
    }
    assert_eq!(names_in(&disk.0), BTreeSet::from(["old".into()]));
    assert_eq!(agent.read("disk/old").await.unwrap(), b"old");
    agent.write("disk/old", vec![b'x'; 1 << 19]).await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn a_disk_that_is_read_only_is_left_as_it_is() {
    if !is_root("a disk that is read-only is left as it is") {
        return;
    }
    let (agent, root) = in_root().await;
    let disk = Mount::tmpfs(root.path().join("disk"), "size=1m");
    fs::write(disk.0.join("file"), "x").unwrap();
    disk.make_read_only();
    for result in [
        agent.write("disk/file", "y").await,
        agent.write("disk/new", "y").await,
        agent.remove("disk/file", false).await,
        agent.remove("disk/file", true).await,
        agent.mkdir("disk/directory", None, false).await,
        agent.mkdir("disk/a/b", None, true).await,
        agent.put("disk", one_file_tar()).await,
        agent.put("disk/directory", one_file_tar()).await,
    ] {
        assert_eq!(code(result), ErrorCode::PERMISSION_DENIED);
    }
    assert_eq!(agent.read("disk/file").await.unwrap(), b"x");
    // What is mounted is not removed from under its users.
    assert_eq!(
        code(agent.remove("disk", false).await),
        ErrorCode::FAILED_PRECONDITION
    );
    agent.stop().await;
}

#[tokio::test]
async fn many_writers_of_one_file_leave_one_whole_file() {
    let (agent, root) = in_root().await;
    let agent = &agent;
    let write = |number: u8| agent.write("file", vec![number; 100_000]);
    for result in futures_util::future::join_all((0..40).map(write)).await {
        result.unwrap();
    }
    let content = fs::read(root.path().join("file")).unwrap();
    assert_eq!(content, vec![content[0]; 100_000]);
    assert_eq!(names_in(root.path()), BTreeSet::from(["file".into()]));
}
