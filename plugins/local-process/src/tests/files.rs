//! The sandbox's files, which are those of its directory and no others.

use std::fs;

use boxyard_plugin_api::{
    FileKind, GetArchive, MakeDirectory, PutArchive, ReadFile, RemovePath, WriteFile, pipe,
    prelude::*,
};

use super::harness::{TestSandbox, call, sandbox, within};

async fn read(sandbox: &TestSandbox, path: &str) -> Result<Vec<u8>> {
    let (sink, source) = pipe();
    let request = ReadFile::new(path);
    let reading = sandbox.handle.read_file(&request, sink, call());
    let (done, bytes) =
        within(async { tokio::join!(reading, source.read_to_end(usize::MAX)) }).await;
    done?;
    bytes
}

async fn write(sandbox: &TestSandbox, path: &str, content: &str) -> Result<()> {
    let request = WriteFile::new(path).make_parents(true);
    let content = ByteSource::from_bytes(content);
    within(sandbox.handle.write_file(&request, content, call())).await
}

#[tokio::test]
async fn commands_and_file_requests_see_the_same_files() {
    let sandbox = sandbox(json!({})).await;
    write(&sandbox, "a/b.txt", "hello").await.unwrap();
    let output = sandbox.run(Command::shell("cat a/b.txt; echo 1 > c")).await;
    assert_eq!(output.out(), "hello");
    for path in ["c", "/c", "./c", "a/../c"] {
        assert_eq!(read(&sandbox, path).await.unwrap(), b"1\n", "{path}");
    }
    // As a command that prints `$PWD/c` names it.
    let full = sandbox.directory.join("c");
    assert_eq!(
        read(&sandbox, full.to_str().unwrap()).await.unwrap(),
        b"1\n"
    );
    let names = within(sandbox.handle.list(".", call())).await.unwrap();
    let names: Vec<_> = names
        .iter()
        .map(|entry| (&*entry.name, entry.kind))
        .collect();
    assert_eq!(names, [("a", FileKind::Directory), ("c", FileKind::File)]);
    let info = within(sandbox.handle.stat("a/b.txt", call()))
        .await
        .unwrap();
    assert_eq!((info.size, info.mode), (5, 0o644));
    let request = MakeDirectory::new("d/e").parents(true);
    within(sandbox.handle.make_directory(&request, call()))
        .await
        .unwrap();
    assert!(sandbox.directory.join("d/e").is_dir());
    let request = RemovePath::new("a").recursive(true);
    within(sandbox.handle.remove(&request, call()))
        .await
        .unwrap();
    assert!(!sandbox.directory.join("a").exists());
    sandbox.close().await;
}

#[tokio::test]
async fn an_archive_goes_from_one_sandbox_to_another() {
    let (from, to) = (sandbox(json!({})).await, sandbox(json!({})).await);
    write(&from, "tree/deep/file", "content").await.unwrap();
    let (sink, source) = pipe();
    let get = GetArchive::new("tree");
    let put = PutArchive::new("copy");
    let (got, done) = within(async {
        tokio::join!(
            from.handle.get_archive(&get, sink, call()),
            to.handle.put_archive(&put, source, call())
        )
    })
    .await;
    got.unwrap();
    done.unwrap();
    assert_eq!(read(&to, "copy/tree/deep/file").await.unwrap(), b"content");
    from.close().await;
    to.close().await;
}

#[tokio::test]
async fn no_path_leaves_the_directory() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let sandbox = sandbox(json!({})).await;
    let link = format!("ln -s {} link", outside.path().display());
    sandbox.run(Command::shell(link)).await;
    for path in [
        secret.to_str().unwrap(),
        "link/secret",
        "../../../../etc/passwd",
        "/etc/passwd",
        "/proc/self/root/etc/passwd",
    ] {
        let error = read(&sandbox, path).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NOT_FOUND, "{path}: {error}");
    }
    // What is written to such a path is written inside, or not at all.
    let _ = write(&sandbox, "link/secret", "changed").await;
    let _ = write(&sandbox, "../secret", "changed").await;
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    sandbox.close().await;
    assert!(secret.exists());
}
