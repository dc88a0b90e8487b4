//! Files: what each operation does, what it answers, and what it leaves behind.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use boxyard_plugin_api::{
    ByteSource, CallController, ErrorCode, FileInfo, FileKind, ReadFile, WriteFile, pipe,
};

use crate::harness::*;

/// An agent, and the directory that its relative paths start at and no path leaves.
async fn in_root() -> (TestAgent, tempfile::TempDir) {
    let root = open_directory();
    let agent = agent(rooted(root.path())).await;
    (agent, root)
}

fn mode_of(path: impl AsRef<Path>) -> u32 {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.permissions().mode() & 0o7777
}

fn names_in(directory: impl AsRef<Path>) -> BTreeSet<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let names = fs::read_dir(directory).unwrap().map(name);
    names.map(|name| name.into_string().unwrap()).collect()
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn make_pipe(path: PathBuf) {
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

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
    let request = ReadFile {
        path: "/dev/zero".into(),
        offset: 0,
        length: None,
    };
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
        let path = "new".into();
        let request = WriteFile {
            path,
            mode,
            make_parents: false,
        };
        agent
            .write_from(&request, ByteSource::from_bytes("x"))
            .await
            .unwrap();
        assert_eq!(mode_of(root.join("new")), expected, "{mode:?}");
        fs::remove_file(root.join("new")).unwrap();
    }
    fs::write(root.join("old"), "old").unwrap();
    set_mode(root.join("old"), 0o750);
    let request = WriteFile {
        path: "old".into(),
        mode: Some(0o600),
        make_parents: false,
    };
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
    let request = |path: &str, make_parents| WriteFile {
        path: path.into(),
        mode: None,
        make_parents,
    };
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

fn one_file_tar() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o644);
    builder.append_data(&mut header, "name", &b"x"[..]).unwrap();
    builder.into_inner().unwrap()
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

async fn stat(agent: &TestAgent, path: &str) -> boxyard_plugin_api::Result<FileInfo> {
    within(agent.client.stat(path, &call())).await
}

async fn list(agent: &TestAgent, path: &str) -> boxyard_plugin_api::Result<Vec<FileInfo>> {
    within(agent.client.list(path, &call())).await
}

#[tokio::test]
async fn stat_shows_what_is_there_and_of_a_link_the_link() {
    let (agent, root) = in_root().await;
    let root = root.path();
    fs::write(root.join("file"), "12345").unwrap();
    set_mode(root.join("file"), 0o4640);
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567_890_123);
    let file = File::options().write(true).open(root.join("file")).unwrap();
    file.set_modified(time).unwrap();
    fs::create_dir(root.join("directory")).unwrap();
    symlink("no/such\u{e9}", root.join("link")).unwrap();
    make_pipe(root.join("pipe"));
    let found = stat(&agent, "./file").await.unwrap();
    let expected = FileInfo {
        name: "./file".into(),
        kind: FileKind::File,
        size: 5,
        mode: 0o4640,
        modified_ms: 1_234_567_890_123,
        target: None,
    };
    assert_eq!(found, expected);
    for (path, kind) in [
        ("directory", FileKind::Directory),
        ("link", FileKind::Symlink),
        ("pipe", FileKind::Other),
        (".", FileKind::Directory),
        ("/", FileKind::Directory),
    ] {
        let found = stat(&agent, path).await.unwrap();
        assert_eq!((found.kind, found.name.as_str()), (kind, path));
        let target = (path == "link").then(|| "no/such\u{e9}".to_owned());
        assert_eq!(found.target, target, "{path}");
    }
    for (path, expected) in [
        ("missing", ErrorCode::NOT_FOUND),
        ("file/below", ErrorCode::FAILED_PRECONDITION),
        ("", ErrorCode::INVALID_ARGUMENT),
    ] {
        assert_eq!(code(stat(&agent, path).await), expected, "`{path}`");
    }
    agent.stop().await;
}

#[tokio::test]
async fn times_beyond_reason_are_shown_as_near_as_can_be() {
    let (agent, root) = in_root().await;
    let path = root.path().join("file");
    let file = File::create(&path).unwrap();
    let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1_500);
    file.set_modified(before).unwrap();
    assert_eq!(stat(&agent, "file").await.unwrap().modified_ms, 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_listing_is_sorted_and_whole() {
    let (agent, root) = in_root().await;
    let root = root.path();
    let directory = root.join("directory");
    fs::create_dir(&directory).unwrap();
    assert_eq!(list(&agent, "directory").await.unwrap(), []);
    let mut expected: Vec<String> = (0..20_000).map(|number| format!("{number}")).collect();
    for name in &expected {
        File::create(directory.join(name)).unwrap();
    }
    expected.sort();
    let found = list(&agent, "directory").await.unwrap();
    let names: Vec<&str> = found.iter().map(|info| info.name.as_str()).collect();
    assert!(names == expected);
    fs::write(root.join("file"), "123").unwrap();
    symlink("directory", root.join("link")).unwrap();
    let found = list(&agent, ".").await.unwrap();
    let brief = |info: &FileInfo| (info.name.clone(), info.kind, info.target.clone());
    let found: Vec<_> = found.iter().map(brief).collect();
    let expected = [
        ("directory".into(), FileKind::Directory, None),
        ("file".into(), FileKind::File, None),
        ("link".into(), FileKind::Symlink, Some("directory".into())),
    ];
    assert_eq!(found, expected);
    assert_eq!(list(&agent, "link").await.unwrap().len(), 20_000);
    for (path, expected) in [
        ("missing", ErrorCode::NOT_FOUND),
        ("file", ErrorCode::FAILED_PRECONDITION),
        ("", ErrorCode::INVALID_ARGUMENT),
    ] {
        assert_eq!(code(list(&agent, path).await), expected, "`{path}`");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_name_that_is_no_text_is_listed_as_near_as_can_be() {
    let (agent, root) = in_root().await;
    let name = std::ffi::OsStr::from_bytes(b"a\xffb\n");
    use std::os::unix::ffi::OsStrExt;
    File::create(root.path().join(name)).unwrap();
    let found = list(&agent, "/").await.unwrap();
    assert_eq!(found[0].name, "a\u{fffd}b\n");
    agent.stop().await;
}

#[tokio::test]
async fn what_is_removed_is_gone_and_nothing_else() {
    let (agent, root) = in_root().await;
    let root = root.path();
    let make = || {
        fs::create_dir_all(root.join("full/inner/deep")).unwrap();
        fs::write(root.join("full/inner/file"), "").unwrap();
        symlink("../kept", root.join("full/link")).unwrap();
        set_mode(root.join("full/inner"), 0o500);
    };
    make();
    fs::create_dir(root.join("kept")).unwrap();
    fs::write(root.join("kept/file"), "kept").unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    symlink("kept", root.join("link")).unwrap();
    symlink("kept", root.join("link2")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    for (path, recursive, expected) in [
        ("full", false, Some(ErrorCode::FAILED_PRECONDITION)),
        ("full", true, None),
        ("full", true, Some(ErrorCode::NOT_FOUND)),
        ("full", false, Some(ErrorCode::NOT_FOUND)),
        ("empty", false, None),
        ("file/below", true, Some(ErrorCode::FAILED_PRECONDITION)),
        ("file", false, None),
        ("link", false, None),
        ("link2", true, None),
        ("dangling", true, None),
        ("missing/file", true, Some(ErrorCode::NOT_FOUND)),
        ("", true, Some(ErrorCode::INVALID_ARGUMENT)),
        ("/", true, Some(ErrorCode::INVALID_ARGUMENT)),
        ("/", false, Some(ErrorCode::INVALID_ARGUMENT)),
        (".", true, Some(ErrorCode::INVALID_ARGUMENT)),
        ("kept/..", true, Some(ErrorCode::INVALID_ARGUMENT)),
        ("kept/../..", true, Some(ErrorCode::INVALID_ARGUMENT)),
    ] {
        let removed = agent.remove(path, recursive).await;
        let found = removed.err().map(|error| error.code());
        assert_eq!(found, expected, "`{path}` {recursive}");
    }
    let own_path = root.to_str().unwrap();
    assert!(agent.remove(own_path, true).await.is_err());
    assert_eq!(names_in(root), BTreeSet::from(["kept".into()]));
    assert_eq!(fs::read(root.join("kept/file")).unwrap(), b"kept");
    make();
    let absolute = root.join("full");
    let absolute = absolute.to_str().unwrap();
    agent.remove(absolute, true).await.unwrap();
    assert!(!root.join("full").exists());
    agent.stop().await;
}

#[tokio::test]
async fn a_directory_is_made_with_its_mode_and_where_its_parent_is() {
    let (agent, root) = in_root().await;
    let root = root.path();
    fs::write(root.join("file"), "").unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    for (path, mode, parents, expected) in [
        ("new", None, false, None),
        ("new", None, false, Some(ErrorCode::ALREADY_EXISTS)),
        ("new", Some(0o700), true, None),
        ("file", None, false, Some(ErrorCode::ALREADY_EXISTS)),
        ("file", None, true, Some(ErrorCode::ALREADY_EXISTS)),
        ("dangling", None, false, Some(ErrorCode::ALREADY_EXISTS)),
        ("a/b", None, false, Some(ErrorCode::NOT_FOUND)),
        ("a/b/c", Some(0o1777), true, None),
        ("a/b/c", None, true, None),
        ("file/b", None, false, Some(ErrorCode::FAILED_PRECONDITION)),
        ("file/b", None, true, Some(ErrorCode::FAILED_PRECONDITION)),
        ("unlisted", Some(0o300), false, None),
        ("closed", Some(0o000), false, None),
        ("/", None, true, None),
        ("/", None, false, Some(ErrorCode::INVALID_ARGUMENT)),
        ("", None, true, Some(ErrorCode::INVALID_ARGUMENT)),
    ] {
        let made = agent.mkdir(path, mode, parents).await;
        let found = made.err().map(|error| error.code());
        assert_eq!(found, expected, "`{path}` {parents}");
    }
    for (path, mode) in [
        ("new", 0o755),
        ("a", 0o755),
        ("a/b", 0o755),
        ("a/b/c", 0o1777),
        ("unlisted", 0o300),
        ("closed", 0),
    ] {
        assert_eq!(mode_of(root.join(path)), mode, "{path}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_is_not_root_makes_what_it_cannot_read() {
    if !is_root("an agent that is not root makes what it cannot read") {
        return;
    }
    let place = open_directory();
    std::os::unix::fs::chown(place.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let agent = agent_as(NOBODY, rooted(place.path())).await;
    for mode in [0o300, 0o000, 0o500] {
        let name = format!("{mode:o}");
        agent.mkdir(&name, Some(mode), false).await.unwrap();
        assert_eq!(mode_of(place.path().join(&name)), mode);
        agent.remove(&name, true).await.unwrap();
    }
    let request = WriteFile {
        path: "secret".into(),
        mode: Some(0),
        make_parents: false,
    };
    agent
        .write_from(&request, ByteSource::from_bytes("x"))
        .await
        .unwrap();
    assert_eq!(
        code(agent.read("secret").await),
        ErrorCode::PERMISSION_DENIED
    );
    agent.stop().await;
}

#[tokio::test]
async fn what_may_not_be_removed_says_that_and_nothing_else() {
    if !is_root("what may not be removed says that and nothing else") {
        return;
    }
    let place = open_directory();
    let place = place.path();
    set_mode(place, 0o1777);
    fs::write(place.join("file"), "").unwrap();
    fs::create_dir(place.join("directory")).unwrap();
    fs::write(place.join("directory/file"), "").unwrap();
    let agent = agent_as(NOBODY, rooted(place)).await;
    for (path, recursive) in [
        ("file", false),
        ("file", true),
        ("directory", false),
        ("directory", true),
    ] {
        let removed = agent.remove(path, recursive).await;
        assert_eq!(code(removed), ErrorCode::PERMISSION_DENIED, "{path}");
    }
    assert!(place.join("directory/file").exists());
    agent.stop().await;
}

#[tokio::test]
async fn without_a_root_every_path_of_the_system_is_meant() {
    let place = open_directory();
    let place = place.path();
    fs::create_dir_all(place.join("a/b")).unwrap();
    fs::write(place.join("a/file"), "x").unwrap();
    symlink(place.join("a/file"), place.join("link")).unwrap();
    let mut setup = setup();
    setup.working_dir = place.join("a/b").to_str().unwrap().into();
    let agent = agent(setup).await;
    for path in [
        place.join("a/file"),
        place.join("link"),
        place.join("a/b/../file"),
        "../file".into(),
        "../b/../../a/file".into(),
    ] {
        let path = path.to_str().unwrap();
        assert_eq!(agent.read(path).await.unwrap(), b"x", "{path}");
    }
    agent.write("../new", "y").await.unwrap();
    assert_eq!(fs::read(place.join("a/new")).unwrap(), b"y");
    agent.stop().await;
}

/// What is outside; nothing inside is as long.
const SECRET: &[u8] = b"outside of the root";

/// A command of the sandbox that puts links in the place of directories and files, over and
/// over; nothing that is done through them may reach what they lead to.
#[tokio::test]
async fn nothing_outside_is_reached_however_the_root_changes() {
    let place = open_directory();
    let (outside, root) = (place.path().join("outside"), place.path().join("root"));
    for directory in [&outside, &root, &outside.join("inner")] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(outside.join("file"), SECRET).unwrap();
    fs::write(outside.join("inner/file"), SECRET).unwrap();
    let agent = agent(rooted(&root)).await;
    let mut to_outside = false;
    let links = [outside.clone(), PathBuf::from("../outside")];
    let swapping = Meanwhile::repeat(move || {
        to_outside = !to_outside;
        swap_once(&root, &links[usize::from(to_outside)]);
    });
    let start = Instant::now();
    let mut rounds = 0;
    // Often enough to have met every link, also on a busy machine.
    while start.elapsed() < Duration::from_secs(1) || rounds < 30 {
        try_everything(&agent).await;
        rounds += 1;
    }
    drop(swapping);
    let names = ["file", "inner"].map(String::from);
    assert_eq!(names_in(&outside), BTreeSet::from(names));
    assert_eq!(names_in(outside.join("inner")).len(), 1);
    for file in ["file", "inner/file"] {
        assert_eq!(fs::read(outside.join(file)).unwrap(), SECRET);
        assert_eq!(mode_of(outside.join(file)), 0o644);
    }
    agent.stop().await;
}

/// Makes `d` a directory and then a link, and the same of `f` for a file. The client works in
/// the same place, so that anything here may fail.
fn swap_once(root: &Path, link: &Path) {
    let (d, f) = (root.join("d"), root.join("f"));
    let _ = fs::create_dir_all(d.join("inner"));
    // By way of another name: what is at `d` may not be followed here either.
    let _ = fs::write(root.join("new"), "inside");
    let _ = fs::rename(root.join("new"), &f);
    let _ = fs::rename(&d, root.join("away"));
    let _ = fs::remove_file(&f);
    let _ = symlink(link, &d);
    let _ = symlink(link.join("file"), &f);
    std::thread::yield_now();
    let _ = fs::remove_file(&d);
    let _ = fs::remove_file(&f);
    let _ = fs::rename(root.join("away"), &d);
}

/// Does everything once, through what is swapped; only what comes from outside is wrong.
async fn try_everything(agent: &TestAgent) {
    for path in ["d/file", "d/inner/file", "f", "d/../f", "d/inner/../../f"] {
        if let Ok(content) = agent.read(path).await {
            assert_ne!(content, SECRET, "{path}");
        }
    }
    for path in ["d/file", "d/new", "d/inner/new", "f"] {
        let _ = agent.write(path, "inside").await;
    }
    let _ = agent.mkdir("d/made", None, false).await;
    let _ = agent.mkdir("d/inner/a/b", None, true).await;
    let _ = agent.put("d", one_file_tar()).await;
    let _ = agent.put("d/inner", one_file_tar()).await;
    if let Ok(archive) = agent.get("d").await {
        assert!(!archive.windows(SECRET.len()).any(|window| window == SECRET));
    }
    let listed = list(agent, "d").await.unwrap_or_default();
    assert!(
        listed
            .iter()
            .all(|info| info.kind != FileKind::File || info.size < SECRET.len() as u64)
    );
    for path in ["d/file", "d/inner", "f", "d"] {
        let _ = agent.remove(path, true).await;
    }
    let _ = agent.remove("d/file", false).await;
}
