//! Every method of a sandbox, called with a request that has something in every field.

use boxyard_plugin_api::{
    ByteSink, ByteSource, Command, CommandIo, Control, Controls, Error, GetArchive, LogRequest,
    MakeDirectory, PutArchive, ReadFile, RemovePath, Result, SandboxHandle, TerminalSize,
    WriteFile, abi::SandboxVTableRef, pipe, register::CallFuture,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{future::Future, time::Duration};

use crate::{host, layout};

/// A method, on its way.
pub(crate) struct Method {
    pub name: &'static str,
    /// What it was asked, streams included.
    pub request: Value,
    /// What it answers, streams included.
    pub answer: CallFuture<Value>,
}

/// What goes into the methods that empty a source.
pub(crate) const CONTENT: &str = "what the host had";

/// Calls every method at once.
pub(crate) fn call_all(sandbox: &SandboxHandle) -> Vec<Method> {
    let mut methods = vec![
        plain("start", &(), sandbox.start(host::call())),
        command(sandbox),
        plain(
            "execution_context",
            &(),
            sandbox.execution_context(host::call()),
        ),
        plain("info", &(), sandbox.info(host::call())),
        plain("stats", &(), sandbox.stats(host::call())),
    ];
    let read = ReadFile::new("/etc/motd").offset(7).length(1 << 40);
    methods.push(to_sink("read_file", &read, |sink| {
        sandbox.read_file(&read, sink, host::call())
    }));
    let write = WriteFile::new("a/b c").mode(0o600).make_parents(true);
    methods.push(from_source("write_file", &write, |source| {
        sandbox.write_file(&write, source, host::call())
    }));
    let path = "/dév/null\n";
    methods.push(plain("stat", &path, sandbox.stat(path, host::call())));
    methods.push(plain("list", &path, sandbox.list(path, host::call())));
    let remove = RemovePath::new("/tmp").recursive(true);
    methods.push(plain(
        "remove",
        &remove,
        sandbox.remove(&remove, host::call()),
    ));
    let directory = MakeDirectory::new("/new").mode(0o700).parents(true);
    methods.push(plain(
        "make_directory",
        &directory,
        sandbox.make_directory(&directory, host::call()),
    ));
    let put = PutArchive::new("/into");
    methods.push(from_source("put_archive", &put, |source| {
        sandbox.put_archive(&put, source, host::call())
    }));
    let get = GetArchive::new("/from");
    methods.push(to_sink("get_archive", &get, |sink| {
        sandbox.get_archive(&get, sink, host::call())
    }));
    let logs = LogRequest::default().follow(true).tail(12);
    methods.push(to_sink("logs", &logs, |sink| {
        sandbox.logs(&logs, sink, host::call())
    }));
    methods.push(plain("reset", &(), sandbox.reset(host::call())));
    methods.push(plain("stop", &(), sandbox.stop(host::call())));
    methods.push(plain("cleanup", &(), sandbox.cleanup(host::call())));
    methods
}

fn plain<T: Serialize + 'static>(
    name: &'static str,
    request: &(impl Serialize + ?Sized),
    answer: CallFuture<T>,
) -> Method {
    Method {
        name,
        request: document(request),
        answer: Box::pin(async move { Ok(document(&answer.await?)) }),
    }
}

fn to_sink(
    name: &'static str,
    request: &impl Serialize,
    send: impl FnOnce(ByteSink) -> CallFuture<()>,
) -> Method {
    let (sink, source) = pipe();
    let done = send(sink);
    Method {
        name,
        request: document(request),
        answer: Box::pin(async move {
            let (done, text) = tokio::join!(done, text_of(&source));
            done?;
            Ok(json!(text?))
        }),
    }
}

fn from_source(
    name: &'static str,
    request: &impl Serialize,
    send: impl FnOnce(ByteSource) -> CallFuture<()>,
) -> Method {
    let done = send(ByteSource::from_bytes(CONTENT));
    Method {
        name,
        request: json!({ "request": request, "content": CONTENT }),
        answer: Box::pin(async move { Ok(document(&done.await?)) }),
    }
}

fn command(sandbox: &SandboxHandle) -> Method {
    let command = full_command();
    let (stdout_sink, stdout) = pipe();
    let (stderr_sink, stderr) = pipe();
    let controls = [Control::Signal(15), Control::Resize(SIZE)];
    let lines: Vec<u8> = controls.into_iter().flat_map(Control::to_line).collect();
    let io = CommandIo {
        stdin: ByteSource::from_bytes(CONTENT),
        stdout: stdout_sink,
        stderr: stderr_sink,
        controls: Controls::from_source(ByteSource::from_bytes(lines)),
    };
    let exit = sandbox.execute_command(&command, io, host::call());
    Method {
        name: "execute_command",
        request: json!({ "request": command, "content": CONTENT, "controls": controls }),
        answer: Box::pin(async move {
            let (exit, stdout, stderr) = tokio::join!(exit, text_of(&stdout), text_of(&stderr));
            Ok(json!({ "exit": exit?, "stdout": stdout?, "stderr": stderr? }))
        }),
    }
}

const SIZE: TerminalSize = TerminalSize {
    columns: 80,
    rows: 24,
};

/// Returns a command with something in every field.
pub(crate) fn full_command() -> Command {
    let mut command = Command::argv(["describe", "a b", "\u{fc}"])
        .env("NAME", "va=lue")
        .working_dir("/work")
        .timeout(Duration::from_millis(1500));
    command.clear_env = true;
    command.user = Some("1000:1000".into());
    command.tty = Some(SIZE);
    command.stdin = true;
    command.limits.insert("nofile".into(), 64);
    command
}

async fn text_of(source: &ByteSource) -> Result<String> {
    let bytes = source.read_to_end(usize::MAX).await?;
    String::from_utf8(bytes).map_err(Error::internal)
}

fn document(value: &(impl Serialize + ?Sized)) -> Value {
    serde_json::to_value(value).unwrap()
}

/// Waits for an answer that is bound to come.
pub(crate) async fn bounded<T>(name: &str, answer: impl Future<Output = T>) -> T {
    match tokio::time::timeout(host::PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => panic!("`{name}` never answered"),
    }
}

/// Checks that the names are those of all entries of the vtable but `release`.
pub(crate) fn assert_all(names: impl IntoIterator<Item = &'static str>) {
    let mut names: Vec<&str> = names.into_iter().chain(["release"]).collect();
    let mut entries = layout::entries_of::<SandboxVTableRef>();
    names.sort_unstable();
    entries.sort_unstable();
    assert_eq!(names, entries);
}
