//! What happened, line by line, and the hash of it.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context;

/// A record of what happened: lines of time, host and event. Two runs of one seed have equal traces.
/// Cheap to clone; the clones are one trace.
#[derive(Debug, Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    lines: u64,
    hash: u64,
    line: String,
    text: String,
    text_bytes_max: usize,
    left_out: u64,
}

impl Trace {
    /// A trace that keeps its first `text_bytes_max` bytes of text, and the hash of all of it.
    pub fn new(text_bytes_max: usize) -> Self {
        let inner = Inner {
            lines: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            line: String::new(),
            text: String::new(),
            text_bytes_max,
            left_out: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Adds a line, with the simulated time of this thread.
    pub fn line(&self, host: &str, what: fmt::Arguments<'_>) {
        let now = context::now();
        let mut inner = self.inner();
        let line = &mut inner.line;
        line.clear();
        let (seconds, millis) = (now.as_secs(), now.subsec_millis());
        // Writing to a string cannot fail.
        let _ = writeln!(line, "{seconds:>3}.{millis:03} {host:<8} {what}");
        inner.take();
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.inner().lines
    }

    /// Hash of all lines so far (FNV-1a).
    pub fn hash(&self) -> u64 {
        self.inner().hash
    }

    /// The lines that were kept, and how many were not.
    pub fn text(&self) -> String {
        let inner = self.inner();
        match inner.left_out {
            0 => inner.text.clone(),
            lines => format!("{}... and {lines} more lines\n", inner.text),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes the line that was put together.
    fn take(&mut self) {
        self.lines += 1;
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let fits = self.text.len() + self.line.len() <= self.text_bytes_max;
        if fits && self.left_out == 0 {
            self.text.push_str(&self.line);
        } else {
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_bounded_and_the_hash_covers_all_of_it() {
        let (short, long) = (Trace::new(20), Trace::new(1 << 10));
        for trace in [&short, &long] {
            context::set_now(std::time::Duration::from_millis(1_002));
            trace.line("a", format_args!("first"));
            trace.line("b", format_args!("second"));
        }
        assert_eq!(long.text(), "  1.002 a        first\n  1.002 b        second\n");
        assert_eq!(short.text(), "... and 2 more lines\n");
        assert_eq!((short.hash(), short.lines()), (long.hash(), 2));
        long.line("c", format_args!("third"));
        assert_ne!(short.hash(), long.hash());
    }
}
