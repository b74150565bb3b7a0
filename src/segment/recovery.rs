//! Reads the active segment after a start and tells a torn tail from corruption. docs/storage.md 4.7.
//! Changes nothing.

use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::error::StorageError;
use crate::format::entry::{Entry, EntryHeader, EntryId, EntryKind, entry_salt};
use crate::format::group::{Digest, GROUP_HEADER, GROUP_MAGIC, GroupHeader};
use crate::format::manifest::SegmentMeta;
use crate::format::segment_header::{HEADER_BLOCK, SegmentHeader};
use crate::mutant::Mutant;

use crate::seam::DiskFile;

/// Bytes read at once in the search behind the last valid group.
const SEARCH_CHUNK: usize = 1 << 20;

/// What a scan of the active segment found.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Of every entry in a valid group.
    pub(crate) offsets: Vec<u32>,
    pub(crate) last: Option<EntryId>,
    /// Behind the last valid group.
    pub(crate) end: u64,
    /// Behind the last group with entries.
    pub(crate) entries_end: u64,
    pub(crate) file_len: u64,
    /// Highest committed position that a group names, as far as the entries up to that group go: what follows may be others
    /// than the writer meant.
    pub(crate) committed: u64,
    /// Membership entries.
    pub(crate) memberships: Vec<Entry>,
    /// The last group is a marker, or there is none.
    pub(crate) marked: bool,
    /// Bytes that are no group lie behind the last valid one: the segment must be cut at `end`.
    pub(crate) torn: bool,
}

/// Checks that `file` is the segment that the manifest lists.
pub(crate) fn check_header(
    file: &dyn DiskFile,
    path: &Path,
    log_id: u64,
    meta: &SegmentMeta,
) -> Result<(), StorageError> {
    let failed = |error| StorageError::io("read", path, error);
    let len = file.size().map_err(failed)?;
    let mut block = vec![0; HEADER_BLOCK.min(usize::try_from(len).unwrap_or(HEADER_BLOCK))];
    file.read_exact_at(&mut block, 0).map_err(failed)?;
    let header = SegmentHeader::decode(&block).map_err(|error| error.at(path, 0))?;
    let SegmentMeta { id: segment_id, base, salt, .. } = *meta;
    if header != (SegmentHeader { log_id, segment_id, base, salt }) {
        return Err(StorageError::corrupt(path, 0, "the manifest lists another segment here"));
    }
    Ok(())
}

/// Scans the active segment. Its header has been checked.
///
/// # Errors
/// A group that is damaged though it had been flushed.
pub(crate) fn scan(
    file: &dyn DiskFile,
    path: &Path,
    meta: &SegmentMeta,
) -> Result<Scan, StorageError> {
    let file_len = file.size().map_err(|error| StorageError::io("read", path, error))?;
    let begin = HEADER_BLOCK as u64;
    let mut scanner = Scanner {
        file,
        meta,
        prev: (meta.prev_term, meta.base),
        buffer: Vec::new(),
        scan: Scan {
            offsets: Vec::new(),
            last: None,
            end: begin,
            entries_end: begin,
            file_len,
            committed: 0,
            memberships: Vec::new(),
            marked: true,
            torn: false,
        },
    };
    let failed = |error| StorageError::io("read", path, error);
    let reason = loop {
        match scanner.group().map_err(failed)? {
            Ok(()) => {}
            Err(reason) => break reason,
        }
    };
    let at = scanner.scan.end;
    let rest = scanner.search(at).map_err(failed)?;
    if let Some(witness) = rest.witness
        && !Mutant::CorruptionTakenForTorn.is_active()
    {
        let detail = format!("{reason}, and the group at byte {witness} shows that it was flushed");
        return Err(StorageError::corrupt(path, at, detail));
    }
    scanner.scan.torn = !rest.all_zero;
    Ok(scanner.scan)
}

struct Scanner<'a> {
    file: &'a dyn DiskFile,
    meta: &'a SegmentMeta,
    /// Term of the last entry and index of the next.
    prev: (u64, u64),
    buffer: Vec<u8>,
    scan: Scan,
}

/// What lies behind the last valid group.
struct Rest {
    /// Where a group lies that knows the bytes before it to have been flushed.
    witness: Option<u64>,
    all_zero: bool,
}

impl Scanner<'_> {
    /// Takes the group at `scan.end`, or says why there is none.
    fn group(&mut self) -> io::Result<Result<(), String>> {
        let at = self.scan.end;
        let have = self.scan.file_len.saturating_sub(at);
        if have < GROUP_HEADER as u64 {
            return Ok(Err("the file ends here".to_owned()));
        }
        let mut head = [0; GROUP_HEADER];
        self.file.read_exact_at(&mut head, at)?;
        let header = match GroupHeader::decode(&head, self.meta.salt) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if header.durable_end > at || u64::from(header.bytes) > have - GROUP_HEADER as u64 {
            return Ok(Err("the group does not fit its place".to_owned()));
        }
        let begin = at + GROUP_HEADER as u64;
        self.buffer.resize(header.bytes as usize, 0);
        self.file.read_exact_at(&mut self.buffer, begin)?;
        Ok(self.entries(&header, begin))
    }

    fn entries(&mut self, header: &GroupHeader, begin: u64) -> Result<(), String> {
        let mut digest = Digest::default();
        let mut offsets = Vec::new();
        let mut memberships = Vec::new();
        let (mut term, mut index) = self.prev;
        let salt = entry_salt(self.meta.salt);
        let mut at = 0;
        for _ in 0..header.entries {
            let rest = &self.buffer[at..];
            let entry = EntryHeader::decode(rest, salt).map_err(|error| error.to_string())?;
            let len = entry.encoded_len() as usize;
            if len > rest.len() {
                return Err("an entry is longer than its group".to_owned());
            }
            if entry.id.index != index {
                return Err(format!("I2: entry {} where {index} must be", entry.id.index));
            }
            if entry.id.term < term {
                return Err(format!("I3: term {} follows term {term}", entry.id.term));
            }
            let payload = &rest[len - entry.payload_len as usize..len];
            if crc32fast::hash(payload) != entry.payload_crc {
                return Err(format!("the CRC of the payload of entry {index} does not match"));
            }
            if entry.kind == EntryKind::Membership {
                let payload = Bytes::copy_from_slice(payload);
                memberships.push(entry.with_payload(payload).map_err(|e| e.to_string())?);
            }
            digest.push(entry.crc);
            offsets.push(u32::try_from(begin + at as u64).map_err(|error| error.to_string())?);
            at += len;
            (term, index) = (entry.id.term, index + 1);
        }
        if at != self.buffer.len() || digest.finish() != header.digest {
            return Err("the entries are not those of the group".to_owned());
        }
        let scan = &mut self.scan;
        scan.end = begin + u64::from(header.bytes);
        scan.committed = scan.committed.max(header.committed.min(index));
        scan.marked = header.entries == 0;
        if header.entries > 0 {
            scan.entries_end = scan.end;
            scan.last = Some(EntryId { term, index: index - 1 });
        }
        scan.offsets.append(&mut offsets);
        scan.memberships.append(&mut memberships);
        self.prev = (term, index);
        Ok(())
    }

    /// Looks behind `at`, where no valid group begins.
    fn search(&mut self, at: u64) -> io::Result<Rest> {
        let finder = memchr::memmem::Finder::new(&GROUP_MAGIC);
        let mut all_zero = true;
        let mut chunk_at = at;
        while chunk_at < self.scan.file_len {
            let len = (self.scan.file_len - chunk_at).min(SEARCH_CHUNK as u64) as usize;
            self.buffer.resize(len, 0);
            self.file.read_exact_at(&mut self.buffer, chunk_at)?;
            all_zero &= self.buffer.iter().all(|&byte| byte == 0);
            for found in finder.find_iter(&self.buffer) {
                let group = GroupHeader::decode(&self.buffer[found..], self.meta.salt);
                if group.is_ok_and(|group| group.durable_end > at) {
                    let witness = Some(chunk_at + found as u64);
                    return Ok(Rest { witness, all_zero });
                }
            }
            // A header that this chunk cuts lies whole in the next one.
            let last = chunk_at + len as u64 == self.scan.file_len;
            chunk_at += if last { len } else { len - (GROUP_HEADER - 1) } as u64;
        }
        Ok(Rest { witness: None, all_zero })
    }
}
