//! What is packed comes back as it went.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use boxyard_plugin_api::ErrorCode;

use super::{Confined, Seen, confined, see};
use crate::harness::*;

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
