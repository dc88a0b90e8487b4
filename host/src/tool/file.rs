//! `file_operation`: one file or directory of the sandbox.

mod encoding;

use std::{path::Path, sync::Arc, time::Duration};

use boxyard_plugin_api::{
    ByteSource, Command, Error, ErrorCode, FileKind, Isolation, ReadFile, RemovePath, WriteFile,
};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use self::encoding::Encoding;
use super::{
    ToolStatus,
    builtin::{Description, Limit, Outcome},
};
use crate::{output::Capture, sandbox::Sandbox};

/// The longest file that is read: a longer one is fetched as an archive.
const LONGEST: usize = 16 * 1024 * 1024;
/// How many links a path may end with, one leading to the next; the kernel's own limit.
const MAX_LINKS: usize = 40;
/// How long an operation may take: a disk may be slow, and a file system may never answer.
const TIME: Duration = Duration::from_secs(Limit::SECONDS);

#[derive(Deserialize)]
pub(super) struct Params {
    operation: String,
    file_path: String,
    content: Option<String>,
    encoding: Option<String>,
}

pub(super) fn description() -> Description {
    let properties = json!({
        "operation": {
            "type": "string",
            "description": "Type of file operation to perform",
            "enum": ["create", "read", "write", "delete", "list", "exists"],
        },
        "file_path": { "type": "string", "description": "Path to the file or directory" },
        "content": {
            "type": "string",
            "description": "Content to write to file (only for write operation)",
        },
        "encoding": { "type": "string", "description": "File encoding", "default": "utf-8" },
    });
    let description = "Perform file operations like read, write, delete, and list files";
    let required = &["operation", "file_path"];
    ("file_operation", description.into(), properties, required)
}

pub(super) async fn execute(params: Params, sandbox: &Arc<Sandbox>) -> Result<Outcome, Error> {
    in_time(operate(params, sandbox)).await
}

async fn in_time(
    operation: impl Future<Output = Result<Outcome, Error>>,
) -> Result<Outcome, Error> {
    timeout(TIME, operation).await.unwrap_or_else(|_| {
        Ok(Outcome {
            status: ToolStatus::Timeout,
            ..Outcome::error(format!(
                "File operation timed out after {} seconds",
                Limit::SECONDS
            ))
        })
    })
}

async fn operate(params: Params, sandbox: &Arc<Sandbox>) -> Result<Outcome, Error> {
    let path = params.file_path.as_str();
    if path.trim().is_empty() {
        return Ok(Outcome::error("No file path provided"));
    }
    let encoding = match params.encoding.as_deref().map(Encoding::named) {
        None => Encoding::Utf8,
        Some(Some(encoding)) => encoding,
        Some(None) => {
            let name = params.encoding.unwrap_or_default();
            return Ok(Outcome::error(format!(
                "Unknown encoding: {name}; expected for example utf-8, latin-1, gbk, shift_jis"
            )));
        }
    };
    match (params.operation.as_str(), params.content) {
        ("read", _) => read(sandbox, path, encoding).await,
        ("write", None) => Ok(Outcome::error("Content is required for write operation")),
        ("write" | "create", content) => {
            write(sandbox, path, &content.unwrap_or_default(), encoding).await
        }
        ("delete", _) => delete(sandbox, path).await,
        ("list", _) => list(sandbox, path).await,
        ("exists", _) => exists(sandbox, path.to_owned()).await,
        (unknown, _) => Ok(Outcome::error(format!("Unknown operation: {unknown}"))),
    }
}

/// Says whether a path leads to something, as `test -e` does: a link is what it leads to.
async fn exists(sandbox: &Arc<Sandbox>, mut path: String) -> Result<Outcome, Error> {
    let absent = || Outcome::success("does not exist");
    for _ in 0..=MAX_LINKS {
        let found = match sandbox.stat(&path).await {
            Ok(found) => found,
            Err(error) if is_absent(sandbox, &path, &error).await => return Ok(absent()),
            Err(error) => return Ok(Outcome::cut(error.message())),
        };
        let Some(target) = found.target.filter(|_| found.kind == FileKind::Symlink) else {
            return Ok(Outcome::success("exists"));
        };
        let parent = Path::new(&path).parent().unwrap_or(Path::new(""));
        path = parent.join(target).to_string_lossy().into_owned();
    }
    Ok(absent())
}

/// Returns whether an error says that nothing is there: a file has nothing below it either.
async fn is_absent(sandbox: &Arc<Sandbox>, path: &str, error: &Error) -> bool {
    match error.code() {
        ErrorCode::NOT_FOUND => return true,
        ErrorCode::FAILED_PRECONDITION => {}
        _ => return false,
    }
    for parent in Path::new(path).ancestors().skip(1) {
        let Some(parent) = parent.to_str().filter(|parent| !parent.is_empty()) else {
            continue;
        };
        if let Ok(found) = sandbox.stat(parent).await {
            return matches!(found.kind, FileKind::File | FileKind::Other);
        }
    }
    false
}

async fn read(sandbox: &Arc<Sandbox>, path: &str, encoding: Encoding) -> Result<Outcome, Error> {
    let content = Capture::new(LONGEST);
    // One more than there may be: what has no end, such as `/dev/zero`, is not read to it.
    let request = ReadFile::new(path).length(Some(LONGEST as u64 + 1));
    if let Err(error) = sandbox.read_file(&request, content.sink()).await {
        return Ok(Outcome::cut(error.message()));
    }
    let (bytes, cut) = content.take();
    if cut {
        return Ok(Outcome::error(format!(
            "{path} is longer than {LONGEST} bytes: fetch it as an archive, or a part of it with a command"
        )));
    }
    Ok(Outcome::success(encoding.decode(&bytes)))
}

async fn write(
    sandbox: &Arc<Sandbox>,
    path: &str,
    content: &str,
    encoding: Encoding,
) -> Result<Outcome, Error> {
    let Some(bytes) = encoding.encode(content) else {
        return Ok(Outcome::error(format!(
            "the content has characters that {} has not",
            encoding.name()
        )));
    };
    let request = WriteFile::new(path).make_parents(true);
    let written = sandbox.write_file(&request, ByteSource::from_bytes(bytes));
    Ok(match written.await {
        Ok(()) => Outcome::success(format!("File written successfully: {path}")),
        Err(error) => Outcome::cut(error.message()),
    })
}

/// Removes whatever is there; nothing is as good.
async fn delete(sandbox: &Arc<Sandbox>, path: &str) -> Result<Outcome, Error> {
    let request = RemovePath::new(path).recursive(true);
    match sandbox.remove(&request).await {
        Err(error) if !is_absent(sandbox, path, &error).await => Ok(Outcome::cut(error.message())),
        _ => Ok(Outcome::success(format!("Successfully deleted: {path}"))),
    }
}

/// Lists a directory as `ls -la` does.
async fn list(sandbox: &Arc<Sandbox>, path: &str) -> Result<Outcome, Error> {
    let path = match sandbox.sandbox_type().isolation() {
        // Where the files are below the working directory, a command must look there too.
        Isolation::None | Isolation::Process => &format!("./{path}"),
        _ => path,
    };
    let command = Command::argv(["ls", "-la", "--", path]).timeout(TIME);
    let result = sandbox.run(command, None).await?;
    Ok(match result.exit.exit_code {
        0 => Outcome::success(result.stdout_text()),
        _ => Outcome {
            output: String::new(),
            ..Outcome::of(&result, &Limit::default())
        },
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_operation_that_never_ends_is_given_up() {
        let outcome = in_time(pending()).await.unwrap();
        assert_eq!(outcome.status, ToolStatus::Timeout);
        let error = outcome.error.unwrap();
        assert_eq!(error, "File operation timed out after 30 seconds");
    }
}
