//! Writing: a file is whole, old or new, whatever happens meanwhile, and is the one that is meant.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, symlink},
        net::UnixListener,
    },
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
async fn only_a_file_is_written() {
    let (agent, root) = in_root().await;
    let root = root.path();
    fs::create_dir(root.join("directory")).unwrap();
    make_pipe(root.join("pipe"));
    symlink("pipe", root.join("to pipe")).unwrap();
    symlink("..", root.join("to directory")).unwrap();
    symlink("to itself", root.join("to itself")).unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    for (path, expected) in [
        ("directory", ErrorCode::FAILED_PRECONDITION),
        ("pipe", ErrorCode::FAILED_PRECONDITION),
        ("socket", ErrorCode::FAILED_PRECONDITION),
        ("to pipe", ErrorCode::FAILED_PRECONDITION),
        ("to directory", ErrorCode::FAILED_PRECONDITION),
        ("to itself", ErrorCode::FAILED_PRECONDITION),
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
    let names = [
        "directory",
        "pipe",
        "socket",
        "to directory",
        "to itself",
        "to pipe",
    ];
    assert_eq!(names_in(root), names.map(String::from).into());
    // The last name that a file system takes is taken, whatever is beside it meanwhile.
    agent.write(&"x".repeat(255), "x").await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn a_link_is_written_through() {
    let (agent, root) = in_root().await;
    let root = root.path();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/file"), "old").unwrap();
    set_mode(root.join("a/file"), 0o640);
    let own_path = root.join("a/file");
    let links = [
        ("link", "a/file"),
        ("absolute", "/a/file"),
        ("own path", own_path.to_str().unwrap()),
        ("a/b/up", "../file"),
        ("above", "../../a/file"),
        ("first", "directory/up"),
        ("directory", "a/b"),
    ];
    for (link, target) in links {
        symlink(target, root.join(link)).unwrap();
    }
    for (link, target) in links.iter().take(6) {
        let inode = fs::metadata(root.join("a/file")).unwrap().ino();
        agent.write(link, *link).await.unwrap();
        let metadata = fs::metadata(root.join("a/file")).unwrap();
        assert_eq!(fs::read(root.join("a/file")).unwrap(), link.as_bytes());
        assert_eq!(mode_of(root.join("a/file")), 0o640, "{link}");
        // Where it is, it is replaced.
        assert_ne!(metadata.ino(), inode, "{link}");
        let kept = fs::read_link(root.join(link)).unwrap();
        assert_eq!(kept.to_str(), Some(*target));
    }
    for (link, target, made) in [
        ("new", "a/new", Some("a/new")),
        // Above the root is the root.
        ("outer", "../../outside", Some("outside")),
        ("nowhere", "no/such/directory", None),
    ] {
        symlink(target, root.join(link)).unwrap();
        let request = WriteFile::new(link).mode(0o600);
        let source = ByteSource::from_bytes("x");
        let written = agent.write_from(&request, source).await;
        match made {
            None => assert_eq!(code(written), ErrorCode::NOT_FOUND, "{link}"),
            Some(made) => {
                written.unwrap();
                assert_eq!(fs::read(root.join(made)).unwrap(), b"x", "{link}");
                assert_eq!(mode_of(root.join(made)), 0o600, "{link}");
            }
        }
        assert!(root.join(link).is_symlink(), "{link}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_source_that_breaks_off_leaves_what_a_link_leads_to_and_a_file_of_two_names() {
    let (agent, root) = in_root().await;
    let root = root.path();
    fs::write(root.join("file"), "old").unwrap();
    fs::write(root.join("one"), "old").unwrap();
    fs::hard_link(root.join("one"), root.join("two")).unwrap();
    symlink("file", root.join("link")).unwrap();
    let names = names_in(root);
    for name in ["link", "one"] {
        let (sink, source) = pipe();
        let request = new_file(name);
        let breaking = async {
            sink.write(vec![b'x'; PAST_ALL_BUFFERS]).await.unwrap();
            drop(sink);
        };
        let (written, ()) = tokio::join!(agent.write_from(&request, source), breaking);
        assert_eq!(code(written), ErrorCode::ABORTED, "{name}");
    }
    assert_eq!(names_in(root), names);
    for name in ["file", "one", "two"] {
        assert_eq!(fs::read(root.join(name)).unwrap(), b"old", "{name}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_file_of_two_names_keeps_both() {
    let (agent, root) = in_root().await;
    let root = root.path();
    fs::write(root.join("one"), "what is longer than the new").unwrap();
    set_mode(root.join("one"), 0o640);
    fs::hard_link(root.join("one"), root.join("two")).unwrap();
    symlink("two", root.join("link")).unwrap();
    for name in ["one", "two", "link"] {
        agent.write(name, name).await.unwrap();
        for other in ["one", "two"] {
            assert_eq!(fs::read(root.join(other)).unwrap(), name.as_bytes());
        }
        let metadata = fs::metadata(root.join("one")).unwrap();
        assert_eq!((metadata.nlink(), mode_of(root.join("one"))), (2, 0o640));
    }
    let names = ["link", "one", "two"].map(String::from);
    assert_eq!(names_in(root), names.into());
    agent.stop().await;
}

#[tokio::test]
async fn a_file_that_is_mounted_is_written_where_it_is() {
    if !is_root("a file that is mounted is written where it is") {
        return;
    }
    let (agent, root) = in_root().await;
    let place = open_directory();
    let outer = place.path().join("outer");
    fs::write(&outer, "old").unwrap();
    let disk = Mount::tmpfs(root.path().join("disk"), "size=1m");
    let _file = Mount::file(&outer, disk.0.join("file"));
    agent.write("disk/file", "new").await.unwrap();
    assert_eq!(fs::read(&outer).unwrap(), b"new");
    // Also where nothing can be made beside it.
    disk.make_read_only();
    agent.write("disk/file", "newer").await.unwrap();
    assert_eq!(fs::read(&outer).unwrap(), b"newer");
    assert_eq!(names_in(&disk.0), BTreeSet::from(["file".into()]));
    agent.stop().await;
}

#[tokio::test]
async fn a_file_in_a_directory_of_another_is_written_where_it_is() {
    if !is_root("a file in a directory of another is written where it is") {
        return;
    }
    let place = open_directory();
    let place = place.path();
    for (directory, mode) in [("closed", 0o755), ("sticky", 0o1777)] {
        fs::create_dir(place.join(directory)).unwrap();
        set_mode(place.join(directory), mode);
        for (name, mode) in [("open", 0o666), ("read-only", 0o644)] {
            fs::write(place.join(directory).join(name), "old").unwrap();
            set_mode(place.join(directory).join(name), mode);
        }
    }
    let agent = agent_as(NOBODY, rooted(place)).await;
    for directory in ["closed", "sticky"] {
        let path = |name: &str| format!("{directory}/{name}");
        agent.write(&path("open"), "new").await.unwrap();
        let refused = agent.write(&path("read-only"), "new").await;
        assert_eq!(code(refused), ErrorCode::PERMISSION_DENIED, "{directory}");
        assert_eq!(agent.read(&path("open")).await.unwrap(), b"new");
        assert_eq!(agent.read(&path("read-only")).await.unwrap(), b"old");
        assert_eq!(names_in(place.join(directory)).len(), 2, "{directory}");
    }
    let closed = agent.write("closed/new", "new").await;
    assert_eq!(code(closed), ErrorCode::PERMISSION_DENIED);
    agent.stop().await;
}

#[tokio::test]
async fn what_processes_have_open_is_not_replaced() {
    let place = open_directory();
    let stdout = place.path().join("stdout");
    symlink("/proc/self/fd/1", &stdout).unwrap();
    let agent = agent(setup()).await;
    for path in [
        stdout.to_str().unwrap(),
        "/proc/self/fd/1",
        "/proc/self/exe",
        "/dev/null",
    ] {
        let refused = agent.write(path, "x").await;
        assert_eq!(code(refused), ErrorCode::FAILED_PRECONDITION, "{path}");
    }
    assert!(stdout.is_symlink());
    assert_eq!(
        agent.sh(&format!("echo on > {}", stdout.display())).await,
        "on\n"
    );
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
