//! What is no archive, or one that nobody means well with.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use boxyard_plugin_api::{CallController, ErrorCode, PutArchive, pipe};
use tar::{Builder, EntryType, Header};

use super::{Confined, confined, see};
use crate::harness::*;

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
    let request = PutArchive::new("target");
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
async fn what_is_compressed_is_refused_by_its_name() {
    let Confined {
        agent,
        root,
        place: _place,
    } = confined().await;
    for (magic, name) in [
        (&b"\x1f\x8b\x08"[..], "gzip"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ] {
        // Shorter than a block, and longer.
        for length in [20_u8, 255] {
            let rest = (0..length).flat_map(|byte| [byte, byte ^ 0xaa, 0xff, !byte]);
            let bytes: Vec<u8> = magic.iter().copied().chain(rest).collect();
            let error = agent.put("target", bytes).await.unwrap_err();
            assert_eq!(error.code(), ErrorCode::INVALID_ARGUMENT, "{error}");
            let expected = format!("compressed with {name}:");
            assert!(error.message().contains(&expected), "{error}");
        }
    }
    let binary = (0..=255_u8)
        .cycle()
        .skip(0x80)
        .take(2048)
        .collect::<Vec<_>>();
    let error = agent.put("target", binary).await.unwrap_err();
    assert!(
        !error.message().contains(|c: char| c.is_control()),
        "{error}"
    );
    // A name, and nothing else.
    let archive = Hostile::default().file("BZhang").end();
    agent.put("target", archive).await.unwrap();
    assert!(root.join("target/BZhang").is_file());
    agent.stop().await;
}
