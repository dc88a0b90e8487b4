//! Names: directories that are made, and whatever is removed.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink};

use boxyard_plugin_api::{ByteSource, ErrorCode, WriteFile};

use super::{in_root, mode_of, names_in, set_mode};
use crate::harness::*;

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
    let request = WriteFile::new("secret").mode(0);
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
