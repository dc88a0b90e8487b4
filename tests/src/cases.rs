//! The cases, a file a group.

mod cancel;
mod capability;
mod concurrency;
#[expect(
    clippy::indexing_slicing,
    reason = "a missing key of a JSON value reads as null"
)]
mod config;
#[expect(
    clippy::indexing_slicing,
    reason = "a missing key of a JSON value reads as null"
)]
mod descriptor;
mod ending;
mod exec;
mod files;
mod hygiene;
mod lifecycle;
mod load;
mod model;
mod recovery;
mod safety;
mod telemetry;
#[expect(
    clippy::indexing_slicing,
    reason = "a missing key of a JSON value reads as null"
)]
mod tool;

use std::path::Path;

use crate::case::Case;

/// Returns every case, in the order of the contract.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let groups = [
        load::CASES,
        descriptor::CASES,
        config::CASES,
        lifecycle::CASES,
        exec::CASES,
        ending::CASES,
        files::CASES,
        cancel::CASES,
        capability::CASES,
        concurrency::CASES,
        recovery::CASES,
        tool::CASES,
        safety::CASES,
        telemetry::CASES,
        hygiene::CASES,
        model::CASES,
    ];
    groups.into_iter().flatten()
}

/// Lists everything below a directory, by path; nothing where it is not there.
pub(crate) fn paths_below(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(place) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&place) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            found.push(entry.path().to_string_lossy().into_owned());
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
