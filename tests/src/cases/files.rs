//! Files and archives.

use boxyard_plugin_api::{
    ByteSource, ErrorCode, FileKind, GetArchive, MakeDirectory, PutArchive, ReadFile, RemovePath,
    WriteFile, pipe,
};

use crate::{
    case::{
        Needs::{Capability, NoCapability},
        cases,
    },
    subject::{Live, Subject, call, collect},
    verdict::{Outcome, check, check_eq},
};

const FILES: crate::case::Needs = Capability("files");
const ARCHIVES: crate::case::Needs = Capability("archives");

cases! {
    "files-round-trip" "F1" Must FILES => round_trip;
    "files-large-round-trip" "F1" Must FILES => large_round_trip;
    "files-part-of-a-file" "F1" Must FILES => part;
    "files-missing-is-not-found" "F2" Must FILES => missing;
    "files-commands-see-the-same-files" "F3" Must FILES => commands_see_them;
    "files-are-whose-commands-are" "F12" Must FILES => whose_commands_are;
    "files-write-is-whole-or-nothing" "F4" Must FILES => write_is_atomic;
    "files-stat-says-what-is-there" "F5" Must FILES => stat;
    "files-stat-looks-at-links-themselves" "F5" Must FILES => stat_of_links;
    "files-list-has-every-entry" "F5" Must FILES => list;
    "files-remove" "F6" Must FILES => remove;
    "files-remove-does-not-follow-links" "F6" Must FILES => remove_does_not_follow;
    "files-make-directory" "F7" Must FILES => make_directory;
    "files-undeclared-are-unsupported" "F8" Must NoCapability("files") => undeclared;
    "files-archive-round-trip" "F9" Must ARCHIVES => archive_round_trip;
    "files-archive-that-is-none-is-refused" "F9" Must ARCHIVES => no_archive;
    "files-archive-does-not-leave-its-directory" "F10" Must ARCHIVES => hostile_archive;
    "files-archives-undeclared-are-unsupported" "F8" Must NoCapability("archives") => undeclared_archives;
}

async fn round_trip(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    for content in [&b""[..], b"text\n", b"\0\xff\r\n\x1b"] {
        live.write("file", content).await?;
        check_eq!(live.read("file").await?, content, "what was read back");
    }
    live.close().await
}

async fn large_round_trip(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let content: Vec<u8> = (0..8_000_000_u32).map(|n| n.to_le_bytes()[2]).collect();
    live.write("large", content.clone()).await?;
    let back = live.read("large").await?;
    check!(
        back == content,
        "{} bytes of {} came back, or others",
        back.len(),
        content.len()
    );
    live.close().await
}

async fn part(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.write("file", "0123456789").await?;
    for (offset, length, expected) in [(0, Some(3), "012"), (4, None, "456789"), (20, None, "")] {
        let request = ReadFile::new("file").offset(offset).length(length);
        let (sink, source) = pipe();
        let found = collect(live.handle.read_file(&request, sink, call()), source).await?;
        check_eq!(
            String::from_utf8_lossy(&found),
            expected,
            "a part from {offset} on"
        );
    }
    live.close().await
}

async fn missing(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let read = live
        .read("no/such/file")
        .await
        .map_err(|error| error.code());
    check_eq!(read, Err(ErrorCode::NOT_FOUND), "reading what is not there");
    let stat = live.handle.stat("no-such-file", call()).await;
    let stat = stat.map(|info| info.name).map_err(|error| error.code());
    check_eq!(
        stat,
        Err(ErrorCode::NOT_FOUND),
        "looking at what is not there"
    );
    let list = live.handle.list("no-such-directory", call()).await;
    let list = list
        .map(|entries| entries.len())
        .map_err(|error| error.code());
    check_eq!(list, Err(ErrorCode::NOT_FOUND), "listing what is not there");
    let write = live
        .write("no/such/directory", "x")
        .await
        .map_err(|error| error.code());
    check_eq!(
        write,
        Err(ErrorCode::NOT_FOUND),
        "writing where no directory is"
    );
    live.close().await
}

async fn commands_see_them(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    if !subject.declares("commands")? {
        return live.close().await;
    }
    live.write("from-host", "hello").await?;
    check_eq!(
        live.sh("cat from-host").await?,
        "hello",
        "what a command read"
    );
    live.sh("printf back > from-command").await?;
    check_eq!(
        live.read("from-command").await?,
        b"back",
        "what a command wrote"
    );
    live.close().await
}

async fn whose_commands_are(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    if !subject.declares("commands")? {
        return live.close().await;
    }
    live.write("made", "x").await?;
    let directory = MakeDirectory::new("made-too");
    live.handle.make_directory(&directory, call()).await?;
    check_eq!(
        live.sh("for made in made made-too; do [ -O $made ] || echo $made; done")
            .await?,
        "",
        "what requests made that is somebody else's to a command"
    );
    let tried = "mkdir closed; chmod 555 closed; (: > closed/by-command) 2>/dev/null && echo done || echo refused";
    let command = live.sh(tried).await?;
    let request = match live.write("closed/by-request", "x").await {
        Ok(()) => "done\n",
        Err(error) if error.code() == ErrorCode::PERMISSION_DENIED => "refused\n",
        Err(error) => return Err(error.into()),
    };
    check_eq!(
        request,
        command,
        "writing in a directory that is closed, by a request and as a command"
    );
    live.close().await
}

async fn write_is_atomic(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.write("file", "old").await?;
    let before = names(&live).await?;
    let (sink, source) = pipe();
    let request = WriteFile::new("file");
    let breaking = async {
        sink.write(&b"new, and"[..]).await?;
        // Dropped without its end.
        drop(sink);
        Ok::<_, boxyard_plugin_api::Error>(())
    };
    let (written, broken) =
        tokio::join!(live.handle.write_file(&request, source, call()), breaking);
    broken?;
    check!(
        written.is_err(),
        "a write whose content broke off is said to be done"
    );
    check_eq!(
        live.read("file").await?,
        b"old",
        "the file after a write that broke off"
    );
    check_eq!(
        names(&live).await?,
        before,
        "what is in the directory after it"
    );
    live.close().await
}

async fn names(live: &Live) -> Outcome<Vec<String>> {
    let entries = live.handle.list(".", call()).await?;
    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
    names.sort();
    Ok(names)
}

async fn stat(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let request = WriteFile::new("file").mode(0o640);
    let content = ByteSource::from_bytes("12345");
    live.handle.write_file(&request, content, call()).await?;
    let info = live.handle.stat("file", call()).await?;
    check_eq!(
        (info.kind, info.size, info.mode),
        (FileKind::File, 5, 0o640),
        "a file"
    );
    let info = live.handle.stat(".", call()).await?;
    check_eq!(info.kind, FileKind::Directory, "the working directory");
    live.close().await
}

async fn stat_of_links(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    // A link to nothing tells whether it was followed, too.
    if !subject.declares("commands")? {
        return live.close().await;
    }
    live.sh("echo content > file; ln -s file link; ln -s nothing broken")
        .await?;
    for (path, target) in [("link", "file"), ("broken", "nothing")] {
        let info = live.handle.stat(path, call()).await?;
        check_eq!(
            (info.kind, info.target.as_deref()),
            (FileKind::Symlink, Some(target)),
            "the link `{path}`"
        );
    }
    live.close().await
}

async fn list(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.write(".dotted", "").await?;
    for number in 0..50 {
        live.write(&format!("file-{number:02}"), "").await?;
    }
    let found = names(&live).await?;
    check!(
        found.contains(&".dotted".to_owned()),
        "the listing lacks `.dotted`"
    );
    for number in 0..50 {
        let name = format!("file-{number:02}");
        check!(found.contains(&name), "the listing lacks `{name}`");
    }
    check!(
        !found.iter().any(|name| name == "." || name == ".."),
        "the listing has `.` or `..`"
    );
    live.close().await
}

async fn remove(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let request = WriteFile::new("tree/deep/file").make_parents(true);
    live.handle
        .write_file(&request, ByteSource::from_bytes("x"), call())
        .await?;
    let remove = |path: &str, recursive| RemovePath::new(path).recursive(recursive);
    let full = live.handle.remove(&remove("tree", false), call()).await;
    let full = full.map_err(|error| error.code());
    check_eq!(
        full,
        Err(ErrorCode::FAILED_PRECONDITION),
        "removing a directory that is not empty"
    );
    live.handle
        .remove(&remove("tree/deep/file", false), call())
        .await?;
    live.handle.remove(&remove("tree", true), call()).await?;
    let gone = live
        .handle
        .stat("tree", call())
        .await
        .map_err(|error| error.code());
    check_eq!(
        gone.map(|info| info.name),
        Err(ErrorCode::NOT_FOUND),
        "what was removed"
    );
    let again = live.handle.remove(&remove("tree", true), call()).await;
    check_eq!(
        again.map_err(|error| error.code()),
        Err(ErrorCode::NOT_FOUND),
        "removing it again"
    );
    live.close().await
}

async fn remove_does_not_follow(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    if !subject.declares("commands")? {
        return live.close().await;
    }
    live.sh("mkdir kept; echo x > kept/file; ln -s kept link; mkdir tree; ln -s ../kept tree/link")
        .await?;
    for path in ["link", "tree"] {
        let request = RemovePath::new(path).recursive(true);
        live.handle.remove(&request, call()).await?;
    }
    check_eq!(
        live.read("kept/file").await?,
        b"x\n",
        "what the removed links pointed to"
    );
    live.close().await
}

async fn make_directory(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let make = |path: &str, parents| MakeDirectory::new(path).parents(parents);
    let missing = live
        .handle
        .make_directory(&make("a/b", false), call())
        .await;
    let missing = missing.map_err(|error| error.code());
    check_eq!(
        missing,
        Err(ErrorCode::NOT_FOUND),
        "a directory whose parent is missing"
    );
    live.handle
        .make_directory(&make("a/b", true), call())
        .await?;
    live.handle
        .make_directory(&make("a/b", true), call())
        .await?;
    let there = live
        .handle
        .make_directory(&make("a/b", false), call())
        .await;
    let there = there.map_err(|error| error.code());
    check_eq!(
        there,
        Err(ErrorCode::ALREADY_EXISTS),
        "a directory that is there"
    );
    live.close().await
}

async fn undeclared(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let read = live.read("file").await.map_err(|error| error.code());
    check_eq!(read, Err(ErrorCode::UNIMPLEMENTED), "reading a file");
    let write = live.write("file", "x").await.map_err(|error| error.code());
    check_eq!(write, Err(ErrorCode::UNIMPLEMENTED), "writing a file");
    let stat = live
        .handle
        .stat("file", call())
        .await
        .map_err(|error| error.code());
    check_eq!(
        stat.map(|info| info.name),
        Err(ErrorCode::UNIMPLEMENTED),
        "looking at a file"
    );
    live.close().await
}

async fn get(live: &Live, path: &str) -> Outcome<Vec<u8>> {
    let (sink, source) = pipe();
    let request = GetArchive::new(path);
    Ok(collect(live.handle.get_archive(&request, sink, call()), source).await?)
}

async fn put(
    live: &Live,
    directory: &str,
    bytes: impl Into<Vec<u8>>,
) -> Result<(), boxyard_plugin_api::Error> {
    let request = PutArchive::new(directory);
    let source = ByteSource::from_bytes(bytes.into());
    live.handle.put_archive(&request, source, call()).await
}

async fn archive_round_trip(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let request = WriteFile::new("tree/deep/file")
        .mode(0o750)
        .make_parents(true);
    live.handle
        .write_file(&request, ByteSource::from_bytes("content"), call())
        .await?;
    let archive = get(&live, "tree").await?;
    check_eq!(
        archive.len() % 512,
        0,
        "the length of a tar stream past its blocks"
    );
    put(&live, "copy", archive).await?;
    check_eq!(
        live.read("copy/tree/deep/file").await?,
        b"content",
        "the content that came back"
    );
    let info = live.handle.stat("copy/tree/deep/file", call()).await?;
    check_eq!(info.mode, 0o750, "the mode that came back");
    live.close().await
}

async fn no_archive(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let text = vec![b'x'; 2048];
    let refused = put(&live, "into", text).await.map_err(|error| error.code());
    check_eq!(
        refused,
        Err(ErrorCode::INVALID_ARGUMENT),
        "an archive that is none"
    );
    live.close().await
}

/// A tar entry of a regular file.
fn entry(path: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut field = |at: usize, text: &str| {
        for (place, byte) in header.iter_mut().skip(at).zip(text.bytes()) {
            *place = byte;
        }
    };
    field(0, path);
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", content.len()));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (place, byte) in header
        .iter_mut()
        .skip(148)
        .zip(format!("{sum:06o}\0 ").bytes())
    {
        *place = byte;
    }
    let padding = (512 - content.len() % 512) % 512;
    [&header[..], content, &vec![0; padding], &[0; 1024]].concat()
}

async fn hostile_archive(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    live.write("kept", "kept").await?;
    for path in ["../kept", "inner/../../kept", "/kept"] {
        let refused = put(&live, "into", entry(path, b"changed")).await;
        let refused = refused.map_err(|error| error.code());
        check_eq!(
            refused,
            Err(ErrorCode::INVALID_ARGUMENT),
            "an archive with `{path}`"
        );
    }
    check_eq!(
        live.read("kept").await?,
        b"kept",
        "the file outside of the archive's directory"
    );
    live.close().await
}

async fn undeclared_archives(subject: Subject) -> Outcome {
    let live = subject.sandbox().await?;
    let put = put(&live, "into", Vec::new())
        .await
        .map_err(|error| error.code());
    check_eq!(put, Err(ErrorCode::UNIMPLEMENTED), "putting an archive");
    live.close().await
}
