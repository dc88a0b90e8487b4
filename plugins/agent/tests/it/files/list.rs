//! What is shown of files: one at a time, and a directory of them.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    time::{Duration, SystemTime},
};

use boxyard_plugin_api::{ErrorCode, FileInfo, FileKind};

use super::{in_root, list, make_pipe, set_mode, stat};
use crate::harness::*;

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
    let mut expected = FileInfo::new("./file", FileKind::File);
    expected.size = 5;
    expected.mode = 0o4640;
    expected.modified_ms = 1_234_567_890_123;
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
