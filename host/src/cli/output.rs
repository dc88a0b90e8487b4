//! What people and programs read: tables, JSON, complaints.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};

use crate::plugin::PluginStatus;

/// Prints a JSON document for programs.
pub(super) fn json(document: &impl Serialize) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, document)?;
    writeln!(stdout)
}

/// Prints a line for people; colours go only to terminals.
pub(super) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(anstream::stdout(), "{text}")
}

/// Prints the text of a program, which mostly ends its last line itself.
pub(super) fn text(text: &str) -> io::Result<()> {
    match text.strip_suffix('\n').unwrap_or(text) {
        "" if text.is_empty() => Ok(()),
        text => line(text),
    }
}

/// Prints a table for people.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for row in table.lines() {
        line(row.trim_end())?;
    }
    Ok(())
}

/// Says what went wrong.
pub(super) fn complain(error: &anyhow::Error) {
    let style = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some say what caused them themselves.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // Nobody is left to tell when even this cannot be written.
    let _ = writeln!(anstream::stderr(), "{style}error{style:#}: {text}");
}

/// Says something that is worth knowing.
pub(super) fn remark(text: impl std::fmt::Display) {
    // As for `complain`.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Returns the colour of a plugin's status.
pub(super) fn colour(status: PluginStatus) -> Style {
    let colour = match status {
        PluginStatus::Loaded => AnsiColor::Green,
        PluginStatus::Quarantined => AnsiColor::Red,
        PluginStatus::Shadowed => AnsiColor::Yellow,
    };
    Style::new().fg_color(Some(colour.into()))
}

/// Writes a document in one line, with spaces between its parts.
pub(super) fn one_line(document: &impl Serialize) -> String {
    struct Spaced;

    impl Formatter for Spaced {
        fn begin_array_value<W: Write + ?Sized>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }

        fn begin_object_key<W: Write + ?Sized>(
            &mut self,
            writer: &mut W,
            first: bool,
        ) -> io::Result<()> {
            writer.write_all(if first { b"" } else { b", " })
        }

        fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
            writer.write_all(b": ")
        }
    }

    let mut bytes = Vec::new();
    // Writing JSON values to memory cannot fail.
    let _ = document.serialize(&mut Serializer::with_formatter(&mut bytes, Spaced));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_line_is_json_with_spaces() {
        let document = json!({ "a": [1, 2], "message": "Hello, sandbox!" });
        let text = one_line(&document);
        assert_eq!(text, r#"{"a": [1, 2], "message": "Hello, sandbox!"}"#);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            document
        );
    }
}
