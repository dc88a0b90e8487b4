//! A sandbox's files, archives and stats, by the library and through a real plugin.

use std::sync::Arc;

use anyhow::Result;
use boxyard_conformance::{Library, Yard};
use boxyard_host::{
    ByteSource, Command, CreateRequest, ErrorCode, FileKind, GetArchive, Host, LogRequest,
    MakeDirectory, PutArchive, ReadFile, RemovePath, Sandbox, WriteFile, pipe,
};

/// Longer than what a pipe holds.
const LENGTH: usize = 5 << 20;

async fn host(yard: &Yard) -> Result<Host> {
    let library = Library::package("boxyard-plugin-local-process")?;
    yard.put("local_process.so", &library)?;
    yard.host().await
}

async fn sandbox(host: &Host) -> Result<Arc<Sandbox>> {
    let request = CreateRequest::new("local-process");
    Ok(host.manager().create(request).await?)
}

async fn read(sandbox: &Arc<Sandbox>, request: ReadFile) -> Result<Vec<u8>> {
    let (sink, source) = pipe();
    let reading = sandbox.read_file(&request, sink);
    let (done, bytes) = tokio::join!(reading, source.read_to_end(LENGTH + 1));
    done?;
    Ok(bytes?)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_commands_see_the_same() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let sandbox = sandbox(&host).await?;
    let content: Vec<u8> = (0..LENGTH).map(|at| at.to_le_bytes()[1]).collect();
    let request = WriteFile::new("deep/file").make_parents(true).mode(0o600);
    let from = ByteSource::from_bytes(content.clone());
    sandbox.write_file(&request, from).await?;
    assert!(read(&sandbox, ReadFile::new("deep/file")).await? == content);
    let part = ReadFile::new("deep/file").offset(250).length(20);
    assert_eq!(read(&sandbox, part).await?, content[250..270]);
    let counted = sandbox
        .run(Command::shell("wc -c < deep/file"), None)
        .await?;
    assert_eq!(counted.stdout_text(), format!("{LENGTH}\n"));

    let info = sandbox.stat("deep/file").await?;
    assert_eq!(
        (info.kind, info.size, info.mode),
        (FileKind::File, LENGTH as u64, 0o600)
    );
    sandbox
        .make_directory(&MakeDirectory::new("deep/directory"))
        .await?;
    let mut names: Vec<_> = sandbox.list("deep").await?;
    names.sort_by(|one, other| one.name.cmp(&other.name));
    let names: Vec<_> = names.iter().map(|info| &*info.name).collect();
    assert_eq!(names, ["directory", "file"]);

    let whole = RemovePath::new("deep").recursive(true);
    let refused = sandbox.remove(&RemovePath::new("deep")).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::FAILED_PRECONDITION, "{refused}");
    sandbox.remove(&whole).await?;
    let gone = sandbox.stat("deep").await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::NOT_FOUND, "{gone}");
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_goes_from_one_sandbox_to_another() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let (from, to) = tokio::try_join!(sandbox(&host), sandbox(&host))?;
    let made = Command::shell("mkdir -p tree/a && echo text > tree/a/file && ln -s a tree/link");
    from.run(made, None).await?;
    let (sink, source) = pipe();
    let (get, put) = (GetArchive::new("tree"), PutArchive::new("copy"));
    tokio::try_join!(from.get_archive(&get, sink), to.put_archive(&put, source))?;
    let found = to.run(
        Command::shell("cd copy && find . | sort && cat tree/link/file"),
        None,
    );
    assert_eq!(
        found.await?.stdout_text(),
        ".\n./tree\n./tree/a\n./tree/a/file\n./tree/link\ntext\n"
    );
    host.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sandbox_has_not_and_one_that_is_gone_are_told_apart() -> Result<()> {
    let yard = Yard::new()?;
    let host = host(&yard).await?;
    let sandbox = sandbox(&host).await?;
    assert_eq!(sandbox.stats().await?.processes, Some(0));
    let (sink, _source) = pipe();
    let none = sandbox
        .logs(&LogRequest::default(), sink)
        .await
        .unwrap_err();
    assert_eq!(none.code(), ErrorCode::UNIMPLEMENTED, "{none}");
    host.manager().stop(sandbox.id()).await?;
    let stopped = sandbox.list(".").await.unwrap_err();
    assert_eq!(stopped.code(), ErrorCode::FAILED_PRECONDITION, "{stopped}");
    assert!(stopped.message().contains("stopped"), "{stopped}");
    host.shutdown().await;
    Ok(())
}
