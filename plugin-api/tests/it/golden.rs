//! Golden files: what must not change by accident, as text that people can read.

use std::{fs, path::Path};

/// Compares `found` with a file beside this one.
///
/// `BOXYARD_BLESS=1` writes the file instead.
pub(crate) fn check(file: &str, found: &str, what_a_change_means: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it")
        .join(file);
    if std::env::var_os("BOXYARD_BLESS").is_some() {
        fs::write(&path, found).unwrap();
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    if let Some(difference) = difference(&golden, found) {
        panic!(
            "{file} differs from what this build has:\n\n{difference}\n{what_a_change_means}\n\
             When it is meant, run the test again with BOXYARD_BLESS=1 and commit {}.",
            path.display(),
        );
    }
}

/// Shows what differs, with some lines around it.
fn difference(golden: &str, found: &str) -> Option<String> {
    let diff = similar::TextDiff::from_lines(golden, found);
    (golden != found).then(|| {
        let mut diff = diff.unified_diff();
        diff.context_radius(3).header("golden", "found").to_string()
    })
}

#[test]
fn a_difference_is_shown_line_by_line() {
    assert_eq!(difference("a\nb\n", "a\nb\n"), None);
    assert_eq!(
        difference("a\nb\nc\n", "a\nB\nc\n").unwrap(),
        "--- golden\n+++ found\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"
    );
}
