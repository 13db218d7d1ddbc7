//! What goes to stdout and stderr: tables for people, JSON for programs.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::Context as _;
use serde::Serialize;

use crate::terminal;

const GAP: &str = "  ";

/// Columns that are as wide as they need to be; those of numbers are flush right.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { headings: headings.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    /// Adds a row. What could steer a terminal is escaped, whoever wrote it.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| one_line(cell)).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines; the last column is cut where a line would be longer than `width`.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let columns: Vec<Column> = (0..self.headings.len()).map(|at| self.column(at)).collect();
        let mut text = String::new();
        for cells in std::iter::once(&self.headings).chain(&self.rows) {
            let mut line = String::new();
            for (cell, column) in cells.iter().zip(&columns) {
                column.push(&mut line, cell);
            }
            text.push_str(&cut(line.trim_end(), width));
            text.push('\n');
        }
        text
    }

    fn column(&self, at: usize) -> Column {
        let cells = || self.rows.iter().filter_map(|row| row.get(at));
        let heading = self.headings.get(at).map_or(0, |heading| length(heading));
        let width = cells().map(|cell| length(cell)).max().unwrap_or_default().max(heading);
        let number = |cell: &String| cell.starts_with(|first: char| first.is_ascii_digit());
        let whole = |cell: &String| cell.bytes().all(|byte| byte.is_ascii_digit());
        let right = cells().any(number) && cells().all(|cell| whole(cell) || cell == UNKNOWN);
        Column { width, right }
    }
}

/// Stands for what is not known.
pub(crate) const UNKNOWN: &str = "-";

struct Column {
    width: usize,
    right: bool,
}

impl Column {
    fn push(&self, line: &mut String, cell: &str) {
        if !line.is_empty() {
            line.push_str(GAP);
        }
        let fill = " ".repeat(self.width.saturating_sub(length(cell)));
        let parts = if self.right { [fill.as_str(), cell] } else { [cell, fill.as_str()] };
        parts.iter().for_each(|part| line.push_str(part));
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if width > 0 && length(line) > width => {
            line.chars().take(width - 1).chain(['…']).collect()
        }
        _ => line.to_owned(),
    }
}

/// Text with every control character escaped, line breaks included.
pub(crate) fn one_line(text: &str) -> String {
    escaped(text, |_| false)
}

/// Text with every control character escaped but line breaks and tabs.
pub(crate) fn lines(text: &str) -> String {
    escaped(text, |char| matches!(char, '\n' | '\t'))
}

fn escaped(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if is_harmless(char) || kept(char) {
            shown.push(char);
        } else {
            shown.extend(char.escape_default());
        }
    }
    shown
}

/// Not so: control characters, and those that change the direction of the text around them.
fn is_harmless(char: char) -> bool {
    !char.is_control() && !matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Name and value in two columns.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| length(name)).max().unwrap_or_default();
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{name:width$}{GAP}{}", one_line(value));
        text
    })
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    // Exact enough for one digit.
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if count < 1024 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1 message`, `2 messages`, `1,234 messages`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Prints a table, no wider than the terminal.
pub(crate) fn print_table(table: &Table) -> anyhow::Result<()> {
    print(&table.render(terminal::width()))
}

/// Prints a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Prints to stdout. A reader that has gone, as in `… | head`, has all that it wants.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("writing to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints a line to stderr.
pub(crate) fn complain(line: &str) {
    // Nowhere is left to say that this failed.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints a line to stderr that few people want to read.
pub(crate) fn whisper(line: &str) {
    if io::stderr().is_terminal() {
        complain(&format!("\x1b[2m{line}\x1b[0m"));
    } else {
        complain(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["ID", "BYTES", "ERROR"]);
        table.row(["a".to_owned(), "7".to_owned(), "two\nlines \x1b[2J".to_owned()]);
        table.row(["ñandú".to_owned(), "1024".to_owned(), String::new()]);
        table
    }

    #[test]
    fn tables_are_aligned() {
        let want = "ID     BYTES  ERROR\n\
                    a          7  two\\nlines \\u{1b}[2J\n\
                    ñandú   1024\n";
        assert_eq!(table().render(None), want);
    }

    #[test]
    fn tables_are_cut_at_the_width() {
        let want = "ID     BYTES  E…\na          7  t…\nñandú   1024\n";
        assert_eq!(table().render(Some(16)), want);
    }

    #[test]
    fn sizes() {
        let check = |count: u64, want: &str| assert_eq!(bytes(count), want);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(1_572_864, "1.5 MiB");
        check(5 << 40, "5.0 TiB");
        check(5 << 50, "5120.0 TiB");
    }

    #[test]
    fn counts() {
        let check = |number: u64, want: &str| assert_eq!(count(number, "id"), want);
        check(0, "0 ids");
        check(1, "1 id");
        check(999, "999 ids");
        check(1_234, "1,234 ids");
        check(1_234_567, "1,234,567 ids");
    }

    #[test]
    fn bodies_keep_their_lines_and_nothing_that_steers() {
        assert_eq!(lines("a\tb\n\x07\u{202e}"), "a\tb\n\\u{7}\\u{202e}");
        assert_eq!(
            pairs(&[("id", "1".to_owned()), ("reason", "x".to_owned())]),
            "id      1\nreason  x\n"
        );
    }
}
