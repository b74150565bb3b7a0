//! How records are written to standard output.

use quorumlog::Record;
use serde::Serialize;

use crate::failure::Result;
use crate::output::Output;

/// Shape of a record on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// The payload and a newline.
    Text,
    /// One JSON object a line: index, term, and the payload as `text`, or `hex` if it is no UTF-8.
    Json,
    /// Index, and the payload in hexadecimal digits.
    Hex,
    /// The payloads, with nothing between them.
    Raw,
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    index: u64,
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

/// Writes one record.
///
/// # Errors
/// Standard output is closed or broken.
pub(crate) fn write(out: &mut Output, record: &Record, format: Format, index: bool) -> Result {
    if index && matches!(format, Format::Text) {
        out.bytes(format!("{}\t", record.index).as_bytes())?;
    }
    match format {
        Format::Text => {
            out.bytes(&record.payload)?;
            out.bytes(b"\n")
        }
        Format::Raw => out.bytes(&record.payload),
        Format::Hex => out.line(format_args!("{}\t{}", record.index, hex(&record.payload))),
        Format::Json => {
            let text = std::str::from_utf8(&record.payload).ok();
            let hex = text.is_none().then(|| hex(&record.payload));
            out.json(&JsonRecord { index: record.index, term: record.term, text, hex })
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("sink").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(payload: &'static [u8], format: Format, index: bool) -> Vec<u8> {
        let sink = Sink::default();
        let mut out = Output::to(sink.clone());
        let record = Record::new(7, 2, Bytes::from_static(payload));
        write(&mut out, &record, format, index).expect("written");
        out.flush().expect("flushed");
        drop(out);
        Arc::try_unwrap(sink.0).expect("ours alone").into_inner().expect("sink")
    }

    #[test]
    fn each_format_keeps_what_it_promises() {
        assert_eq!(written(b"a\xff", Format::Text, false), b"a\xff\n");
        assert_eq!(written(b"a", Format::Text, true), b"7\ta\n");
        assert_eq!(written(b"a\xff", Format::Raw, true), b"a\xff");
        assert_eq!(written(b"\x00\xa9\xff", Format::Hex, false), b"7\t00a9ff\n");
        let text = written(b"say \"hi\"", Format::Json, false);
        assert_eq!(text, br#"{"index":7,"term":2,"text":"say \"hi\""}"#.iter().chain(b"\n").copied().collect::<Vec<u8>>());
        assert_eq!(
            written(b"\xff", Format::Json, false),
            b"{\"index\":7,\"term\":2,\"hex\":\"ff\"}\n"
        );
    }
}
