//! The Test Anything Protocol, version 14.

use std::fmt::Write;

use super::Report;
use crate::verdict::Verdict;

/// Writes a report as TAP.
pub fn tap(report: &Report) -> String {
    let mut text = format!("TAP version 14\n1..{}\n", report.cases.len());
    for (index, case) in report.cases.iter().enumerate() {
        let not = if case.verdict.is_bad() { "not " } else { "" };
        let skip = match case.verdict {
            Verdict::Skipped => format!(" # SKIP {}", one_line(&case.message)),
            _ => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{not}ok {} - {}{skip}", index + 1, case.id);
        if case.verdict.is_bad() || case.verdict == Verdict::Warned {
            let message = serde_json::Value::from(case.message.as_str());
            let _ = writeln!(
                text,
                "  ---\n  verdict: {}\n  level: {}\n  clause: {}\n  message: {message}\n  ...",
                case.verdict.name(),
                case.level.name(),
                case.clause
            );
        }
    }
    text
}

fn one_line(text: &str) -> String {
    text.replace('\n', " ").replace('#', "\\#")
}
