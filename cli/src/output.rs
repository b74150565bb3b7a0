//! Standard output is data; standard error is progress and hints. Neither panics when its reader
//! goes away.

use std::fmt;
use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Standard output, locked and buffered. Dropping it flushes.
pub(crate) struct Output {
    writer: BufWriter<Box<dyn Write>>,
}

impl Output {
    /// The process's standard output.
    pub(crate) fn stdout() -> Self {
        Self::to(io::stdout().lock())
    }

    /// Any other place.
    pub(crate) fn to(writer: impl Write + 'static) -> Self {
        Self { writer: BufWriter::with_capacity(64 << 10, Box::new(writer)) }
    }

    /// Writes text and a newline.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result {
        writeln!(self.writer, "{text}").map_err(closed_or_broken)
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// A failure with exit code 0 if the reader has gone, else what the system said.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result {
        self.writer.write_all(bytes).map_err(closed_or_broken)
    }

    /// Writes a value as JSON on one line.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result {
        serde_json::to_writer(&mut self.writer, value)
            .map_err(|error| closed_or_broken(io::Error::from(error)))?;
        self.bytes(b"\n")
    }

    /// Hands everything on to the reader.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub(crate) fn flush(&mut self) -> Result {
        self.writer.flush().map_err(closed_or_broken)
    }
}

fn closed_or_broken(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::output_closed()
    } else {
        Failure::io("cannot write to standard output", &error)
    }
}

/// Writes a line to standard error, if anybody reads it.
pub(crate) fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Columns of text for people to read.
pub(crate) struct Table(comfy_table::Table);

impl Table {
    /// A table with these column heads.
    pub(crate) fn new(heads: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(heads.iter().map(|head| head.to_uppercase()));
        Self(table)
    }

    /// Adds a row, one cell for each head.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.0.add_row(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = self.0.clone();
        for column in 0..table.column_count() {
            let mut cells = table.column_cells_iter(column).flatten();
            let numbers = cells.all(|cell| is_number(&cell.content()));
            if numbers && let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Numbers, with or without a unit, and what stands for one that is not known.
fn is_number(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit()) || cell == "?" || cell == "-"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    struct Gone(io::ErrorKind);
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        let mut out = Output::to(Gone(io::ErrorKind::BrokenPipe));
        out.line("x").expect("buffered");
        assert_eq!(out.flush().expect_err("gone").exit, Exit::Done);
        let mut out = Output::to(Gone(io::ErrorKind::StorageFull));
        out.line("x").expect("buffered");
        assert_eq!(out.flush().expect_err("full").exit, Exit::Failed);
    }

    #[test]
    fn a_table_has_a_line_for_each_row() {
        let mut table = Table::new(&["log", "end", "role"]);
        for (log, end) in [("orders", "7"), ("x", "1000")] {
            table.row(vec![log.to_owned(), end.to_owned(), "leader".to_owned()]);
        }
        let wanted = " LOG      END  ROLE\n orders     7  leader\n x       1000  leader";
        assert_eq!(table.to_string(), wanted);
    }
}
