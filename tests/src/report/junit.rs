//! The XML that CI systems read.

use std::time::Duration;

use anyhow::Result;
use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use super::Report;
use crate::verdict::Verdict;

/// Writes a report as JUnit's XML.
///
/// # Errors
///
/// Never for a report that a run made.
pub fn junit(report: &Report) -> Result<String> {
    let mut document = Document::new("boxyard-conformance");
    document.set_time(Duration::from_millis(report.duration_ms));
    let mut suite = TestSuite::new(report.plugin.name.clone());
    for case in &report.cases {
        let failed = |kind: NonSuccessKind| {
            let mut status = TestCaseStatus::non_success(kind);
            status.set_message(case.message.clone()).set_type(format!(
                "{} {}",
                case.level.name(),
                case.clause
            ));
            status
        };
        let status = match case.verdict {
            Verdict::Passed | Verdict::Warned => TestCaseStatus::success(),
            Verdict::Skipped => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(case.message.clone());
                status
            }
            Verdict::Failed => failed(NonSuccessKind::Failure),
            Verdict::Crashed | Verdict::TimedOut => failed(NonSuccessKind::Error),
        };
        let mut test = TestCase::new(case.id.clone(), status);
        test.set_classname(report.plugin.name.clone());
        test.set_time(Duration::from_millis(case.duration_ms));
        if case.verdict == Verdict::Warned {
            test.set_system_out(format!("warned: {}", case.message));
        }
        suite.add_test_case(test);
    }
    document.add_test_suite(suite);
    Ok(document.to_string()?)
}
