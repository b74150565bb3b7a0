//! Walks the entries of a segment from a known entry on, group headers skipped, every CRC checked.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::StorageError;
use crate::format::entry::{ENTRY_HEADER, Entry, EntryHeader, EntryId, EntryKind, entry_salt};
use crate::format::group::{GROUP_HEADER, GROUP_MAGIC, GroupHeader};
use crate::mutant::Mutant;

use crate::seam::DiskFile;
use crate::seam::disk::mmap;

/// Least that is read from a file at once.
const WINDOW_MIN: u64 = 64 << 10;

/// Where a segment's bytes come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A mapping of the whole file: payloads are slices of it. `checked` is what is known to be readable, and `window` how
    /// much is asked for at once.
    Mapped { bytes: Bytes, checked: Range<u64>, window: u64 },
    /// The file, read `window` bytes at a time.
    File { file: Arc<dyn DiskFile>, window: Window },
}

/// The part of a file that was read last.
#[derive(Debug, Default)]
pub(crate) struct Window {
    bytes: Bytes,
    at: u64,
    /// How much to read at once.
    len: u64,
}

impl Source {
    /// Reads `file`, about `window` bytes at a time.
    pub(crate) fn file(file: Arc<dyn DiskFile>, window: u64) -> Self {
        let window = Window { len: window.max(WINDOW_MIN), ..Window::default() };
        Self::File { file, window }
    }

    /// Reads a mapping, about `window` bytes at a time.
    pub(crate) fn mapped(bytes: Bytes, window: u64) -> Self {
        Self::Mapped { bytes, checked: 0..0, window: window.max(WINDOW_MIN) }
    }

    /// Bytes `at..at + len`, all of which lie below `end`.
    fn bytes(&mut self, at: u64, len: usize, end: u64) -> io::Result<&Bytes> {
        match self {
            Self::Mapped { bytes, checked, window } => {
                let to = at + len as u64;
                let have = bytes.len() as u64;
                if to > have {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                if at < checked.start || to > checked.end {
                    let next = at..to.max(at.saturating_add(*window)).min(end).min(have);
                    mmap::read_in(&bytes[next.start as usize..next.end as usize])?;
                    *checked = next;
                }
                Ok(bytes)
            }
            Self::File { file, window } => {
                let have = window.at..window.at + window.bytes.len() as u64;
                if !(have.contains(&at) && at + len as u64 <= have.end) {
                    let len = window.len.max(len as u64).min(end - at);
                    let mut buffer = vec![0; usize::try_from(len).map_err(io::Error::other)?];
                    file.read_exact_at(&mut buffer, at)?;
                    (window.bytes, window.at) = (buffer.into(), at);
                }
                Ok(&window.bytes)
            }
        }
    }

    /// Offset in the file at which the bytes that `bytes` returns begin.
    fn origin(&self) -> u64 {
        match self {
            Self::Mapped { .. } => 0,
            Self::File { window, .. } => window.at,
        }
    }
}

/// A position in a segment.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    path: &'a Path,
    salt: u64,
    source: Source,
    at: u64,
    end: u64,
}

impl<'a> Cursor<'a> {
    /// Begins at the entry or group at byte `at` of the segment file `path` and stops at byte `end`.
    pub(crate) fn new(path: &'a Path, salt: u64, source: Source, at: u64, end: u64) -> Self {
        Self { path, salt, source, at, end }
    }

    /// Header of the next entry and its offset; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(EntryHeader, u64)>, StorageError> {
        while self.at < self.end {
            let at = self.at;
            let len = (self.end - at).min(GROUP_HEADER as u64) as usize;
            let salt = self.salt;
            let head = self.peek(at, len)?;
            if head.starts_with(&GROUP_MAGIC) {
                let decoded = GroupHeader::decode(head, salt);
                decoded.map_err(|error| error.at(self.path, at))?;
                self.at += GROUP_HEADER as u64;
                continue;
            }
            let decoded = EntryHeader::decode(head, entry_salt(salt));
            let header = decoded.map_err(|error| error.at(self.path, at))?;
            if header.encoded_len() > self.end - at {
                let detail = "the entry is longer than its segment";
                return Err(StorageError::corrupt(self.path, at, detail));
            }
            self.at += header.encoded_len();
            return Ok(Some((header, at)));
        }
        Ok(None)
    }

    /// The entry that `next` returned, with its payload, verified.
    pub(crate) fn entry(&mut self, header: EntryHeader, at: u64) -> Result<Entry, StorageError> {
        let payload_at = at + ENTRY_HEADER as u64;
        let len = header.payload_len as usize;
        let payload = if len == 0 {
            Bytes::new()
        } else {
            let (path, end) = (self.path, self.end);
            let bytes = self.source.bytes(payload_at, len, end);
            let bytes = bytes.map_err(|error| unread(path, at, error))?.clone();
            let begin = (payload_at - self.source.origin()) as usize;
            bytes.slice(begin..begin + len)
        };
        if Mutant::PayloadCrcIgnored.is_active() {
            return Ok(Entry { payload, ..header.without_payload() });
        }
        header.with_payload(payload).map_err(|error| error.at(self.path, at))
    }

    /// Adds the entries that `request` asks for, up to the end. The cursor stands at or before the
    /// first of them.
    pub(crate) fn read(&mut self, request: &mut ReadRequest) -> Result<(), StorageError> {
        while request.wants_more() {
            let Some((header, at)) = self.next()? else { return Ok(()) };
            if header.id.index < request.next {
                continue;
            }
            let full = request.payloads || header.kind == EntryKind::Membership;
            let payload_len = if full { header.payload_len as usize } else { 0 };
            if !request.admit(payload_len) {
                return Ok(());
            }
            request.check(header.id).map_err(|why| StorageError::corrupt(self.path, at, why))?;
            let entry = if full { self.entry(header, at)? } else { header.without_payload() };
            request.push(entry);
        }
        Ok(())
    }

    fn peek(&mut self, at: u64, len: usize) -> Result<&[u8], StorageError> {
        let (path, end) = (self.path, self.end);
        if let Err(error) = self.source.bytes(at, len, end) {
            return Err(unread(path, at, error));
        }
        let begin = (at - self.source.origin()) as usize;
        let bytes = match &self.source {
            Source::Mapped { bytes, .. } => bytes,
            Source::File { window, .. } => &window.bytes,
        };
        Ok(&bytes[begin..begin + len])
    }
}

/// A file that ends too soon has been cut: no read of it fails.
fn unread(path: &Path, at: u64, error: io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => StorageError::corrupt(path, at, "the file ends here"),
        _ => StorageError::io("read", path, error),
    }
}

/// What a read still asks for, and what it has got.
#[derive(Debug)]
pub(crate) struct ReadRequest {
    /// The next index.
    pub(crate) next: u64,
    /// The first index not asked for.
    pub(crate) to: u64,
    /// With payloads of records.
    pub(crate) payloads: bool,
    bytes_left: usize,
    full: bool,
    entries: Vec<Entry>,
}

impl ReadRequest {
    /// Asks for `from..to`, as many as fit `max_bytes` with their headers, but at least one.
    pub(crate) fn new(from: u64, to: u64, max_bytes: usize, payloads: bool) -> Self {
        let entries = Vec::new();
        Self { next: from, to, payloads, bytes_left: max_bytes, full: false, entries }
    }

    /// True until the budget or the range is used up.
    pub(crate) fn wants_more(&self) -> bool {
        !self.full && self.next < self.to
    }

    /// Bytes that may still be added.
    pub(crate) fn bytes_left(&self) -> usize {
        self.bytes_left
    }

    /// Takes an entry's bytes from the budget. False, and the request is full, if they are over it.
    pub(crate) fn admit(&mut self, payload_len: usize) -> bool {
        let cost = ENTRY_HEADER + payload_len;
        self.full = cost > self.bytes_left && !self.entries.is_empty();
        self.bytes_left = self.bytes_left.saturating_sub(cost);
        !self.full
    }

    /// Why an entry with this id cannot be the next one.
    pub(crate) fn check(&self, id: EntryId) -> Result<(), String> {
        if id.index != self.next {
            return Err(format!("I2: entry {} where {} must be", id.index, self.next));
        }
        match self.entries.last() {
            Some(last) if last.id.term > id.term => {
                Err(format!("I3: term {} follows term {}", id.term, last.id.term))
            }
            _ => Ok(()),
        }
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, entry: Entry) {
        debug_assert_eq!(entry.id.index, self.next, "I2: checked before");
        self.next += 1;
        self.entries.push(entry);
    }

    /// What was read.
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}
