//! A report for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use super::{CaseReport, Report};
use crate::verdict::Verdict;

fn style(verdict: Verdict) -> Style {
    let color = match verdict {
        Verdict::Passed => AnsiColor::Green,
        Verdict::Warned => AnsiColor::Yellow,
        Verdict::Skipped => return Style::new().dimmed(),
        Verdict::Failed | Verdict::TimedOut | Verdict::Crashed => AnsiColor::Red,
    };
    Style::new().fg_color(Some(color.into()))
}

/// Writes the line of a case that has just ended; the writer takes colours off where they are
/// of no use.
pub fn line(case: &CaseReport) -> String {
    let style = style(case.verdict);
    let mut text = format!(
        "{style}{:<9}{style:#} {:<44} {:<6} {:>5} ms",
        case.verdict,
        case.id,
        case.level.name(),
        case.duration_ms
    );
    if !case.message.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n          {}",
            case.message.replace('\n', "\n          ")
        );
    }
    text
}

/// Writes what it all comes to: a table that can be pasted, and the verdict.
pub fn summary(report: &Report) -> String {
    let plugin = &report.plugin;
    let mut text = format!(
        "\n{} {} (plugin API {}), seed {}\n\n| verdict | cases |\n|---|---|\n",
        plugin.name, plugin.version, plugin.api_version, report.seed
    );
    for verdict in Verdict::ALL {
        let count = report.count(verdict);
        if count > 0 {
            let _ = writeln!(text, "| {verdict} | {count} |");
        }
    }
    let fatal: Vec<_> = report.cases.iter().filter(|case| case.is_fatal()).collect();
    if fatal.is_empty() {
        let _ = writeln!(text, "\nconforms: every clause that must be kept is kept");
    } else {
        let _ = writeln!(text, "\ndoes not conform:");
        for case in fatal {
            let _ = writeln!(
                text,
                "* {} (clause {}): {}",
                case.id, case.clause, case.verdict
            );
        }
    }
    text
}
