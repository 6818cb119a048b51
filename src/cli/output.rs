//! Printing: results on standard output, remarks and errors on standard error, sizes for people.

use std::io::{self, Write as _};

use serde::Serialize;

/// Prints a result. A reader that went away is an error that `main` forgives.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()?;
    Ok(())
}

/// Prints a result for a script.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// A remark for the operator on standard error. Nobody is left to tell when that fails.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// An error for the operator on standard error.
pub fn error(text: &str) {
    let label = Paint::Failure.on("error:", colours(&io::stderr()));
    note(&format!("{label} {text}"));
}

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Red.
    Failure,
    /// Yellow.
    Warning,
    /// Green.
    Good,
}

impl Paint {
    /// The text in this colour, or as it is.
    #[must_use]
    pub fn on(self, text: &str, colours: bool) -> String {
        let code = match self {
            Self::Failure => "1;31",
            Self::Warning => "33",
            Self::Good => "32",
        };
        if colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether a stream shows colours: a terminal, unless the user does not want them
/// (<https://no-color.org>) or it cannot.
pub fn colours(stream: &impl io::IsTerminal) -> bool {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal()
        && variable("NO_COLOR").is_none()
        && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Threads that this machine runs at once.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Bytes with a decimal unit, as disks and links are sold: `141.1 GB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Columns padded to their widest cell, two spaces between; the first row is the heading.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    table_with(rows, |_, _, cell| cell.to_owned())
}

/// A table whose cells are painted: `paint` gets row, column and the text.
#[must_use]
pub fn table_with(rows: &[Vec<String>], paint: impl Fn(usize, usize, &str) -> String) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        // Nothing is padded behind the last word.
        let filled = row.iter().rposition(|cell| !cell.is_empty());
        for (column, cell) in row
            .iter()
            .enumerate()
            .take(filled.map_or(0, |last| last + 1))
        {
            text.push_str(&paint(number, column, cell));
            if Some(column) != filled {
                let padding = widths[column] + 2 - cell.chars().count();
                text.extend(std::iter::repeat_n(' ', padding));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_or_four_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (141_107_412_000, "141.1 GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn tables_line_up() {
        let row = |cells: [&str; 3]| cells.map(String::from).to_vec();
        let text = table(&[row(["node", "up", "x"]), row(["10.0.0.11", "yes", ""])]);
        assert_eq!(text, "node       up   x\n10.0.0.11  yes\n");
    }

    #[test]
    fn paint_takes_no_room() {
        let rows = [
            vec!["a".to_owned(), "b".to_owned()],
            vec!["cc".into(), "d".into()],
        ];
        let text = table_with(&rows, |row, column, cell| {
            Paint::Good.on(cell, (row, column) == (0, 0))
        });
        assert_eq!(text, "\x1b[32ma\x1b[0m   b\ncc  d\n");
    }
}
