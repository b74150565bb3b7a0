//! Lines of a file or of standard input, of bounded length.

use std::path::Path;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::failure::{Failure, Result};

/// Longest line: as long as the largest record that any node can be set to take.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 20;

/// Reads line by line. Drops the newline and changes no other byte.
pub(crate) struct Lines {
    reader: Box<dyn AsyncBufRead + Send + Unpin>,
    name: String,
    number: u64,
    line_bytes_max: usize,
    /// The start of a line whose rest has not arrived yet.
    partial: Vec<u8>,
}

impl Lines {
    /// Of a file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) async fn of_file(path: &Path) -> Result<Self> {
        let file = tokio::fs::File::open(path)
            .await
            .map_err(|error| Failure::io(format_args!("cannot open {}", path.display()), &error))?;
        let reader = BufReader::with_capacity(256 << 10, file);
        Ok(Self::of(reader, path.display().to_string()))
    }

    /// Of standard input.
    pub(crate) fn of_stdin() -> Self {
        Self::of(BufReader::new(tokio::io::stdin()), "standard input".to_owned())
    }

    /// Of anything; `name` is for messages.
    pub(crate) fn of(reader: impl AsyncBufRead + Send + Unpin + 'static, name: String) -> Self {
        Self {
            reader: Box::new(reader),
            name,
            number: 0,
            line_bytes_max: LINE_BYTES_MAX,
            partial: Vec::new(),
        }
    }

    /// The next line, or none at the end. A last line needs no newline.
    ///
    /// Cancel safe: what was read stays for the next call.
    ///
    /// # Errors
    /// It cannot be read, or is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let left = (self.line_bytes_max + 1).saturating_sub(self.partial.len());
        let mut limited = (&mut self.reader).take(left as u64);
        limited
            .read_until(b'\n', &mut self.partial)
            .await
            .map_err(|error| Failure::io(format_args!("cannot read {}", self.name), &error))?;
        if self.partial.is_empty() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.partial);
        self.number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > self.line_bytes_max {
            let Self { name, number, line_bytes_max: max, .. } = self;
            let message = format!("line {number} of {name} is over the limit of {max} bytes");
            return Err(Failure::failed(message));
        }
        Ok(Some(line.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &'static [u8], max: usize) -> Result<Vec<Bytes>> {
        let mut lines = Lines::of(text, "text".to_owned());
        lines.line_bytes_max = max;
        let mut found = Vec::new();
        while let Some(line) = lines.next().await? {
            found.push(line);
        }
        Ok(found)
    }

    #[tokio::test]
    async fn lines_keep_their_bytes_and_the_last_needs_no_newline() {
        let lines = all(b"a\r\n\n\xff\xfeb", 8).await.expect("lines");
        assert_eq!(lines, [&b"a\r"[..], b"", b"\xff\xfeb"]);
        assert!(all(b"", 8).await.expect("none").is_empty());
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_refused_with_its_number() {
        assert_eq!(all(b"12345678\nx", 8).await.expect("fits").len(), 2);
        let failure = all(b"ok\n123456789\n", 8).await.expect_err("too long");
        assert!(failure.message.contains("line 2 of text"), "{failure}");
    }

    #[tokio::test]
    async fn a_line_that_comes_in_parts_survives_a_cancelled_call() {
        use futures_util::FutureExt;
        use tokio::io::AsyncWriteExt;
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::of(BufReader::new(reader), "pipe".to_owned());
        writer.write_all(b"ab").await.expect("first part");
        assert!(lines.next().now_or_never().is_none(), "no newline yet");
        writer.write_all(b"cd\n").await.expect("second part");
        assert_eq!(lines.next().await.expect("line").as_deref(), Some(&b"abcd"[..]));
    }
}
