//! Archives: trees that come back as they went, and what no archive may do.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use boxyard_plugin_api::{CallController, ErrorCode, PutArchive, pipe};
use tar::{Builder, EntryType, Header};

use crate::harness::*;

/// An agent that no path leads out of `root`, which is in an open directory of its own, so that
/// a test sees what is made beside it.
struct Confined {
    agent: TestAgent,
    place: tempfile::TempDir,
    root: PathBuf,
}

async fn confined() -> Confined {
    let place = open_directory();
    let root = place.path().join("root");
    fs::create_dir(&root).unwrap();
    let agent = agent(rooted(&root)).await;
    Confined { agent, place, root }
}

/// What there is to see of a path: kind and mode, seconds, content or target, and whether it is
/// the same file as another.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    modified: i64,
    content: Vec<u8>,
    names: u64,
}

fn see(directory: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    see_below(directory, Path::new(""), &mut seen);
    seen
}

fn see_below(directory: &Path, inner: &Path, seen: &mut BTreeMap<PathBuf, Seen>) {
    for entry in fs::read_dir(directory.join(inner)).unwrap() {
        let inner = inner.join(entry.unwrap().file_name());
        let path = directory.join(&inner);
        let found = path.symlink_metadata().unwrap();
        let content = if found.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if found.is_file() {
            fs::read(&path).unwrap()
        } else {
            see_below(directory, &inner, seen);
            Vec::new()
        };
        let names = if found.is_dir() { 0 } else { found.nlink() };
        let (mode, modified) = (found.mode(), found.mtime());
        let entry = Seen {
            mode,
            modified,
            content,
            names,
        };
        seen.insert(inner, entry);
    }
}

/// Sets modes and times from the inside out, so that nothing changes them again.
fn age(directory: &Path) {
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    for (number, path) in see(directory).keys().rev().enumerate() {
        let path = directory.join(path);
        if path.is_symlink() {
            let seconds = 1_000_000_000 + i64::try_from(number).unwrap();
            let time = rustix::fs::Timespec {
                tv_sec: seconds,
                tv_nsec: 0,
            };
            let both = rustix::fs::Timestamps {
                last_access: time,
                last_modification: time,
            };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, &path, &both, flags).unwrap();
        } else {
            let time = time(1_000_000_000 + number as u64);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
    }
}

#[tokio::test]
async fn a_tree_comes_back_as_it_went() {
    let Confined {
        agent,
        root,
        place: _place,
    } = confined().await;
    let tree = root.join("tree");
    let long = "n".repeat(200);
    let deep = tree.join(&long).join(&long).join(&long);
    for directory in ["empty", "read-only", "closed", "sticky"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    fs::create_dir_all(&deep).unwrap();
    for (name, content) in [
        ("file", &b"content"[..]),
        ("none", b""),
        ("script", b"#!/bin/sh\n"),
        ("setuid", b"x"),
        ("read-only/file", b"y"),
        ("name with\nline", b"z"),
    ] {
        fs::write(tree.join(name), content).unwrap();
    }
    fs::write(tree.join("large"), vec![9; 3 << 20]).unwrap();
    fs::write(deep.join(&long), "deep").unwrap();
    let no_text = OsStr::from_bytes(b"\xff\xfe");
    fs::write(tree.join(no_text), "no text").unwrap();
    symlink(no_text, tree.join("to no text")).unwrap();
    symlink("nowhere", tree.join("dangling")).unwrap();
    symlink("/etc/passwd", tree.join("absolute")).unwrap();
    symlink(deep.join(&long), tree.join("to deep")).unwrap();
    fs::hard_link(tree.join("file"), tree.join("empty/second")).unwrap();
    fs::hard_link(deep.join(&long), tree.join("third")).unwrap();
    age(&tree);
    for (name, mode) in [
        ("script", 0o755),
        ("setuid", 0o4711),
        ("none", 0),
        ("read-only", 0o555),
        ("closed", 0),
        ("sticky", 0o1777),
    ] {
        fs::set_permissions(tree.join(name), Permissions::from_mode(mode)).unwrap();
    }
    let expected = see(&tree);

    let archive = agent.get("tree").await.unwrap();
    agent.put("copy/of", archive.clone()).await.unwrap();
    assert_eq!(see(&root.join("copy/of/tree")), expected);
    // Over what is there already, and of a directory without a name.
    agent.put("copy/of", archive).await.unwrap();
    assert_eq!(see(&root.join("copy/of/tree")), expected);
    let absolute = root.join("copy/of/tree/.");
    let archive = agent.get(absolute.to_str().unwrap()).await.unwrap();
    agent.put("again", archive).await.unwrap();
    let again = see(&root.join("again"));
    assert!(again == expected || see(&root.join("again/tree")) == expected);
    agent.stop().await;
}

#[tokio::test]
async fn tar_itself_reads_what_is_got_and_writes_what_is_put() {
    let Confined { agent, root, place } = confined().await;
    fs::create_dir_all(root.join("tree/inner")).unwrap();
    fs::write(root.join("tree/inner/file"), "x").unwrap();
    fs::hard_link(root.join("tree/inner/file"), root.join("tree/link")).unwrap();
    age(&root.join("tree"));
    let archive = agent.get("tree").await.unwrap();
    fs::write(place.path().join("got.tar"), archive).unwrap();
    let tar = |arguments: &[&str]| {
        let mut command = std::process::Command::new("tar");
        let status = command.current_dir(place.path()).args(arguments).status();
        assert!(status.unwrap().success());
    };
    fs::create_dir(place.path().join("unpacked")).unwrap();
    tar(&["-xf", "got.tar", "-C", "unpacked"]);
    assert_eq!(see(&place.path().join("unpacked")), see_only_tree(&root));
    for format in ["v7", "ustar", "gnu", "pax"] {
        let format = format!("--format={format}");
        tar(&[&format, "-cf", "put.tar", "-C", "unpacked", "."]);
        let archive = fs::read(place.path().join("put.tar")).unwrap();
        agent.put(&format, archive).await.unwrap();
        assert_eq!(see(&root.join(&format)), see_only_tree(&root), "{format}");
    }
    agent.stop().await;
}

fn see_only_tree(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = see(root);
    seen.retain(|path, _| path.starts_with("tree"));
    seen
}

#[tokio::test]
async fn one_file_and_one_link_are_archives_too() {
    let Confined {
        agent,
        root,
        place: _place,
    } = confined().await;
    fs::write(root.join("file"), "x").unwrap();
    symlink("file", root.join("link")).unwrap();
    for path in ["file", "/link"] {
        let archive = agent.get(path).await.unwrap();
        agent.put("copies", archive).await.unwrap();
    }
    assert_eq!(fs::read(root.join("copies/file")).unwrap(), b"x");
    assert_eq!(
        fs::read_link(root.join("copies/link")).unwrap(),
        Path::new("file")
    );
    for (path, expected) in [
        ("missing", ErrorCode::NOT_FOUND),
        ("file/below", ErrorCode::FAILED_PRECONDITION),
        ("", ErrorCode::INVALID_ARGUMENT),
    ] {
        assert_eq!(code(agent.get(path).await), expected, "`{path}`");
    }
    agent.stop().await;
}

/// Makes an archive without a look at what its paths mean.
#[derive(Default)]
struct Hostile(Vec<u8>);

impl Hostile {
    fn with(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str) -> Self {
        self.with(EntryType::Regular, path, "", b"hostile")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.with(EntryType::Symlink, path, target, b"")
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.with(EntryType::Link, path, target, b"")
    }

    fn directory(self, path: &str) -> Self {
        self.with(EntryType::Directory, path, "", b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

#[tokio::test]
async fn no_archive_leaves_its_directory() {
    let Confined { agent, root, place } = confined().await;
    fs::write(root.join("beside"), "kept").unwrap();
    fs::write(place.path().join("outside"), "kept").unwrap();
    let outside = place.path().to_str().unwrap();
    let new = Hostile::default;
    for (name, archive) in [
        ("dots", new().file("../beside")),
        ("inner dots", new().file("a/../../beside")),
        ("many dots", new().file("../../outside")),
        ("dot directory", new().directory("../new")),
        ("absolute", new().file(&format!("{outside}/outside"))),
        (
            "absolute directory",
            new().directory(&format!("{outside}/new")),
        ),
        ("link", new().symlink("a", "..").file("a/beside")),
        (
            "absolute link",
            new().symlink("a", outside).file("a/outside"),
        ),
        ("link to /", new().symlink("a", "/").file("a/tmp/outside")),
        (
            "two links",
            new()
                .directory("d")
                .symlink("d/e", "..")
                .symlink("f", "d/e/..")
                .file("f/beside"),
        ),
        (
            "directory by link",
            new().symlink("a", "..").directory("a/new"),
        ),
        ("deep by link", new().symlink("a", "..").file("a/b/c/d")),
        (
            "link by link",
            new().symlink("a", "..").symlink("a/new", "x"),
        ),
        (
            "magic link",
            new().symlink("a", "/proc/self/root").file("a/tmp/outside"),
        ),
        ("hard link", new().hard_link("a", "../beside")),
        (
            "absolute hard link",
            new().hard_link("a", &format!("{outside}/outside")),
        ),
        (
            "hard link by link",
            new().symlink("a", "..").hard_link("b", "a/beside"),
        ),
        ("device", new().with(EntryType::Char, "a", "", b"")),
        ("block device", new().with(EntryType::Block, "a", "", b"")),
        ("pipe", new().with(EntryType::Fifo, "a", "", b"")),
        ("no name", new().file("")),
        ("only dots", new().file("./.")),
        ("no target", new().symlink("a", "")),
        ("unknown", new().with(EntryType::new(b'?'), "a", "", b"")),
    ] {
        let put = agent.put("target", archive.end()).await;
        let error = put.expect_err(name);
        assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT, "{name}: {error}");
        let names: Vec<_> = see(&root).into_keys().collect();
        assert!(
            names
                .iter()
                .all(|path| path.starts_with("target") || path.as_os_str() == "beside"),
            "{name}: {names:?}"
        );
        for kept in [root.join("beside"), place.path().join("outside")] {
            assert_eq!(fs::read(&kept).unwrap(), b"kept", "{name}");
            assert_eq!(fs::metadata(&kept).unwrap().nlink(), 1, "{name}");
        }
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2, "{name}");
        fs::remove_dir_all(root.join("target")).unwrap();
    }
    agent.stop().await;
}

#[tokio::test]
async fn links_that_lead_out_are_kept_as_they_are_and_replaced_as_links() {
    let Confined { agent, root, place } = confined().await;
    fs::write(place.path().join("outside"), "kept").unwrap();
    let outside = place.path().join("outside");
    let outside = outside.to_str().unwrap();
    let archive = Hostile::default()
        .symlink("link", outside)
        // A hard link to a link is the link itself.
        .hard_link("second", "link")
        .file("link");
    agent.put("target", archive.end()).await.unwrap();
    assert_eq!(fs::read(root.join("target/link")).unwrap(), b"hostile");
    let second = fs::read_link(root.join("target/second")).unwrap();
    assert_eq!(second, Path::new(outside));
    assert_eq!(fs::read(outside).unwrap(), b"kept");
    // One that stays inside is followed.
    let archive = Hostile::default()
        .directory("d")
        .symlink("l", "d")
        .file("l/file");
    agent.put("target", archive.end()).await.unwrap();
    assert!(root.join("target/d/file").is_file());
    agent.stop().await;
}

#[tokio::test]
async fn a_directory_is_replaced_by_nothing() {
    let Confined {
        agent,
        root,
        place: _place,
    } = confined().await;
    for archive in [
        Hostile::default()
            .directory("d")
            .file("d/kept")
            .symlink("d", ".."),
        Hostile::default().directory("d").file("d"),
        Hostile::default().directory("d").hard_link("d", "d/kept"),
    ] {
        let put = agent.put("target", archive.end()).await;
        assert_eq!(code(put), ErrorCode::FAILED_PRECONDITION);
        assert!(root.join("target/d/kept").is_file());
    }
    let archive = Hostile::default().file("file").file("file/below");
    assert_eq!(
        code(agent.put("target", archive.end()).await),
        ErrorCode::FAILED_PRECONDITION
    );
    agent.stop().await;
}

#[tokio::test]
async fn what_is_no_tar_is_refused() {
    let Confined {
        agent,
        place: _place,
        ..
    } = confined().await;
    let mut whole = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(100_000);
    header.set_mode(0o644);
    let content = vec![7_u8; 100_000];
    whole
        .append_data(&mut header, "file", &content[..])
        .unwrap();
    let whole = whole.into_inner().unwrap();
    let mut wrong_sum = whole.clone();
    wrong_sum[0] ^= 1;
    for (name, bytes) in [
        ("text", b"this is no archive\n".to_vec()),
        ("long text", b"this is no archive\n".repeat(1000)),
        (
            "noise",
            (0..4096_u32)
                .flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_le_bytes())
                .collect(),
        ),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".repeat(100)),
        ("wrong checksum", wrong_sum),
        ("cut in its header", whole[..300].to_vec()),
        ("cut in its content", whole[..5000].to_vec()),
        ("cut at its padding", whole[..512 + 100_000].to_vec()),
    ] {
        let put = agent.put("target", bytes).await;
        let error = put.expect_err(name);
        assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT, "{name}: {error}");
    }
    agent.put("target", whole).await.unwrap();
    agent.put("empty", vec![0; 1024]).await.unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn an_archive_that_breaks_off_is_an_error_and_what_follows_one_is_not() {
    let Confined {
        agent,
        root,
        place: _place,
    } = confined().await;
    let archive = Hostile::default().file("file").end();
    // Its writer goes on, and must not be broken off.
    let mut trailing = archive.clone();
    trailing.extend(vec![0; 3 << 20]);
    agent.put("target", trailing).await.unwrap();
    assert!(root.join("target/file").is_file());
    let request = PutArchive {
        directory: "target".into(),
    };
    let (sink, source) = pipe();
    let call = CallController::new(0).call();
    let breaking = async {
        sink.write(archive).await.unwrap();
        drop(sink);
    };
    let putting = agent.client.put_archive(&request, source, &call);
    let (put, ()) = within(async { tokio::join!(putting, breaking) }).await;
    assert_eq!(code(put), ErrorCode::ABORTED);
    agent.stop().await;
}

#[tokio::test]
async fn an_archive_goes_where_files_go() {
    let Confined {
        agent,
        root,
        place: _place,
    } = confined().await;
    fs::write(root.join("file"), "").unwrap();
    let archive = Hostile::default().file("x").end();
    for (directory, expected) in [
        ("file", ErrorCode::FAILED_PRECONDITION),
        ("file/below", ErrorCode::FAILED_PRECONDITION),
        ("", ErrorCode::INVALID_ARGUMENT),
    ] {
        let put = agent.put(directory, archive.clone()).await;
        assert_eq!(code(put), expected, "`{directory}`");
    }
    for directory in ["new/deep", ".", "/"] {
        agent.put(directory, archive.clone()).await.unwrap();
        let made = root.join(directory.trim_start_matches('/')).join("x");
        fs::remove_file(made).unwrap();
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_tree_that_is_too_deep_is_refused_and_not_overflown() {
    let Confined {
        agent,
        root,
        place: _place,
    } = confined().await;
    let deep = "d/".repeat(400);
    fs::create_dir_all(root.join(deep)).unwrap();
    assert_eq!(code(agent.get("d").await), ErrorCode::INVALID_ARGUMENT);
    assert_eq!(agent.sh("echo works").await, "works\n");
    agent.stop().await;
}
