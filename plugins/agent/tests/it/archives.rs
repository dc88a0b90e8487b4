//! Archives: trees that come back as they went, and what no archive may do.

mod hostile;
mod trees;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

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
