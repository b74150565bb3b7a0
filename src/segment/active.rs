//! The active segment: the one that is written to.
//!
//! [`ActiveSegment`] is what readers share; [`SegmentWriter`] is the one writer's half.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::StorageError;
use crate::format::entry::{Entry, EntryId, entry_salt};
use crate::format::footer::{encode_footer, footer_len};
use crate::format::group::{Digest, GROUP_HEADER, GroupHeader};
use crate::format::manifest::{SealedMeta, SegmentMeta};
use crate::format::segment_header::{HEADER_BLOCK, SegmentHeader};
use crate::mutant::Mutant;

use super::cursor::{Cursor, ReadRequest, Source};
use super::offset_index::SparseIndex;
use super::recovery::Scan;
use super::segment_path;
use crate::seam::{Access, Disk, DiskFile};

/// Most bytes allocated ahead.
const ALLOCATION_STEP_MAX: u64 = 4 << 20;
/// The same, if space is short.
const ALLOCATION_STEP_SHORT: u64 = 64 << 10;
/// Payloads up to this length are copied behind their header; longer ones are written from where they are.
const COPIED_PAYLOAD_MAX: usize = 256;

/// How much to allocate ahead: little once it would come out of the `reserve`, which all logs of a disk share.
pub(crate) fn allocation_step(disk: &dyn Disk, dir: &Path, reserve: u64) -> u64 {
    let short = |free: u64| free < reserve.saturating_add(ALLOCATION_STEP_MAX);
    match reserve > 0 && disk.free_space(dir).is_ok_and(short) {
        true => ALLOCATION_STEP_SHORT,
        false => ALLOCATION_STEP_MAX,
    }
}

/// The readers' half of the active segment.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    meta: SegmentMeta,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    /// Of every entry.
    offsets: Vec<u32>,
    last: Option<EntryId>,
    /// Byte offset behind the last entry.
    end: u64,
    /// Bytes that the file takes on disk.
    allocated: u64,
    newest_ms: u64,
}

/// A moment's facts about the active segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActiveFacts {
    pub(crate) last: Option<EntryId>,
    pub(crate) allocated: u64,
    pub(crate) newest_ms: u64,
}

impl ActiveSegment {
    pub(crate) fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn facts(&self) -> ActiveFacts {
        let written = self.written();
        let Written { last, allocated, newest_ms, .. } = *written;
        ActiveFacts { last, allocated, newest_ms }
    }

    /// Adds the written entries that `request` asks for; the first of them lies in this segment.
    pub(crate) fn read(&self, request: &mut ReadRequest) -> Result<(), StorageError> {
        let span = {
            let written = self.written();
            let first = (request.next - self.meta.base) as usize;
            let offsets = written.offsets.get(first..).unwrap_or_default();
            let Some(&begin) = offsets.first() else { return Ok(()) };
            let wanted = (request.to - request.next).min(offsets.len() as u64) as usize;
            let over = u64::from(begin).saturating_add(request.bytes_left() as u64);
            let ends = offsets[1..].iter().map(|&offset| u64::from(offset)).chain([written.end]);
            let fitting = ends.take(wanted).take_while(|&end| end <= over).count();
            let behind = fitting.max(1);
            let end = offsets.get(behind).map_or(written.end, |&offset| u64::from(offset));
            u64::from(begin)..end
        };
        let source = Source::file(Arc::clone(&self.file), span.end - span.start);
        Cursor::new(&self.path, self.meta.salt, source, span.start, span.end).read(request)
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buffers that are reused from group to group.
#[derive(Debug, Default)]
pub(crate) struct GroupBuffer {
    /// Headers and short payloads, in the order of the file.
    head: Vec<u8>,
    /// Where in `head` the long payloads come in between.
    cuts: Vec<usize>,
    offsets: Vec<u32>,
}

/// The writer's half of the active segment.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    segment: Arc<ActiveSegment>,
    /// End of what was written, markers included.
    written: u64,
    /// End of what is known to be on disk.
    flushed: u64,
    allocated: u64,
    segment_size: u64,
    /// The last group has a witness: it is a marker, or there is none.
    marked: bool,
}

impl SegmentWriter {
    /// Makes the file, with space for the first groups, durably. The manifest does not know it yet. `segment_size` is where
    /// the segment is full, and `step` how far ahead it is allocated.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        log_id: u64,
        meta: SegmentMeta,
        (segment_size, step): (u64, u64),
        now_ms: u64,
    ) -> Result<Self, StorageError> {
        let path = segment_path(dir, meta.id);
        let made =
            Self::make_file(disk, &path, log_id, &meta, segment_size.min(step)).and_then(|made| {
                match Mutant::SegmentNameNotFlushed.is_active() {
                    true => Ok(made),
                    false => disk.sync_dir(dir).map(|()| made),
                }
            });
        let (file, allocated) = made.map_err(|error| {
            // The manifest does not list it, so the next open removes what is left.
            let _ = disk.unlink(&path);
            StorageError::io("create", &path, error)
        })?;
        let written = Mutex::new(Written {
            offsets: Vec::new(),
            last: None,
            end: HEADER_BLOCK as u64,
            allocated,
            newest_ms: now_ms,
        });
        let segment = Arc::new(ActiveSegment { meta, path, file, written });
        let (written, flushed) = (HEADER_BLOCK as u64, HEADER_BLOCK as u64);
        Ok(Self { segment, written, flushed, allocated, segment_size, marked: true })
    }

    fn make_file(
        disk: &dyn Disk,
        path: &Path,
        log_id: u64,
        meta: &SegmentMeta,
        ahead: u64,
    ) -> std::io::Result<(Arc<dyn DiskFile>, u64)> {
        let file = disk.open(path, Access::Create)?;
        let least = HEADER_BLOCK as u64;
        let allocated = match file.allocate(0, ahead.max(least)) {
            Err(_) if ahead > least => file.allocate(0, least).map(|()| least),
            result => result.map(|()| ahead.max(least)),
        }?;
        let SegmentMeta { id: segment_id, base, salt, .. } = *meta;
        file.write_all_at(&SegmentHeader { log_id, segment_id, base, salt }.encode(), 0)?;
        if !Mutant::SegmentNotFlushed.is_active() {
            file.sync_data()?;
        }
        Ok((file, allocated))
    }

    /// Goes on where a scan of the file ended; everything that it found is durable.
    pub(crate) fn resume(
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        meta: SegmentMeta,
        segment_size: u64,
        scan: &mut Scan,
        now_ms: u64,
    ) -> Self {
        let written = Mutex::new(Written {
            offsets: std::mem::take(&mut scan.offsets),
            last: scan.last,
            end: scan.entries_end,
            allocated: scan.file_len,
            newest_ms: now_ms,
        });
        let segment = Arc::new(ActiveSegment { meta, path, file, written });
        Self {
            segment,
            written: scan.end,
            flushed: scan.end,
            allocated: scan.file_len,
            segment_size,
            marked: scan.marked,
        }
    }

    pub(crate) fn segment(&self) -> &Arc<ActiveSegment> {
        &self.segment
    }

    pub(crate) fn last(&self) -> Option<EntryId> {
        self.segment.written().last
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.last().is_none()
    }

    /// True if something was written that is not known to be on disk.
    pub(crate) fn is_dirty(&self) -> bool {
        self.flushed < self.written
    }

    /// True unless the last group lacks a witness of its flush.
    pub(crate) fn is_marked(&self) -> bool {
        self.marked
    }

    /// True if a group with so many bytes of entries goes into this segment.
    pub(crate) fn takes(&self, bytes: usize) -> bool {
        self.is_empty() || self.written + (GROUP_HEADER + bytes) as u64 <= self.segment_size
    }

    /// True if a group of so many bytes fits into the space that is allocated, and into the segment.
    pub(crate) fn has_space(&self, bytes: u64) -> bool {
        self.written + bytes <= self.allocated.min(self.segment_size)
    }

    /// Allocates space for the next group, one step ahead. Changes nothing else.
    pub(crate) fn reserve(
        &mut self,
        bytes: u64,
        step: impl FnOnce() -> u64,
    ) -> Result<(), StorageError> {
        let needed = self.written + bytes;
        if needed <= self.allocated {
            return Ok(());
        }
        let ahead = self.allocated + self.segment_size.min(step());
        let goal = needed.max(ahead.min(self.segment_size));
        let file = &self.segment.file;
        let allocated = match file.allocate(self.allocated, goal) {
            Err(_) if goal > needed => file.allocate(self.allocated, needed).map(|()| needed),
            result => result.map(|()| goal),
        };
        let failed = |error| StorageError::io("allocate space for", &self.segment.path, error);
        self.allocated = allocated.map_err(failed)?;
        self.segment.written().allocated = self.allocated;
        Ok(())
    }

    /// Writes one group. Readers may read its entries on return; they are not durable yet.
    ///
    /// The entries follow the last one written, and space was reserved. After an error the segment
    /// must not be written any more.
    pub(crate) fn write_group(
        &mut self,
        entries: &[Entry],
        committed: u64,
        now_ms: u64,
        buffer: &mut GroupBuffer,
    ) -> Result<(), StorageError> {
        let bytes = self.encode_group(entries, committed, buffer);
        let mut slices = Vec::with_capacity(2 * buffer.cuts.len() + 1);
        let mut begin = 0;
        let long = entries.iter().filter(|entry| entry.payload.len() > COPIED_PAYLOAD_MAX);
        for (&cut, entry) in buffer.cuts.iter().zip(long) {
            slices.push(IoSlice::new(&buffer.head[begin..cut]));
            slices.push(IoSlice::new(&entry.payload));
            begin = cut;
        }
        slices.push(IoSlice::new(&buffer.head[begin..]));
        let result = self.segment.file.write_all_vectored_at(&mut slices, self.written);
        result.map_err(|error| StorageError::io("write", &self.segment.path, error))?;
        self.written += (GROUP_HEADER + bytes) as u64;
        self.marked = false;
        let mut written = self.segment.written();
        written.offsets.extend_from_slice(&buffer.offsets);
        written.last = entries.last().map(|entry| entry.id);
        written.end = self.written;
        written.newest_ms = now_ms;
        Ok(())
    }

    /// Fills `buffer`; gives the number of bytes of the entries.
    fn encode_group(&self, entries: &[Entry], committed: u64, buffer: &mut GroupBuffer) -> usize {
        let GroupBuffer { head, cuts, offsets } = buffer;
        head.clear();
        cuts.clear();
        offsets.clear();
        head.resize(GROUP_HEADER, 0);
        let mut digest = Digest::default();
        let salt = entry_salt(self.segment.meta.salt);
        let begin = self.written + GROUP_HEADER as u64;
        let mut bytes = 0;
        for entry in entries {
            let offset = u32::try_from(begin + bytes as u64);
            offsets.push(offset.expect("a segment is shorter than 4 GiB"));
            let header = entry.encode_header(salt);
            let [.., c0, c1, c2, c3] = header;
            digest.push(u32::from_le_bytes([c0, c1, c2, c3]));
            head.extend_from_slice(&header);
            if entry.payload.len() <= COPIED_PAYLOAD_MAX {
                head.extend_from_slice(&entry.payload);
            } else {
                cuts.push(head.len());
            }
            bytes += entry.encoded_len();
        }
        let header = GroupHeader {
            entries: u32::try_from(entries.len()).expect("a group has at most 65536 entries"),
            bytes: u32::try_from(bytes).expect("a group is at most one payload over 8 MiB"),
            digest: digest.finish(),
            durable_end: self.flushed,
            committed,
            salt: self.segment.meta.salt,
        };
        head[..GROUP_HEADER].copy_from_slice(&header.encode());
        bytes
    }

    /// Writes a witness of the last flush: an empty group. Not durable yet itself.
    pub(crate) fn write_marker(&mut self, committed: u64) -> Result<(), StorageError> {
        let marker = self.marker(committed);
        let result = self.segment.file.write_all_at(&marker, self.written);
        result.map_err(|error| StorageError::io("write", &self.segment.path, error))?;
        self.written += GROUP_HEADER as u64;
        self.marked = true;
        Ok(())
    }

    fn marker(&self, committed: u64) -> [u8; GROUP_HEADER] {
        let salt = self.segment.meta.salt;
        let digest = Digest::default().finish();
        let (durable_end, entries, bytes) = (self.flushed, 0, 0);
        GroupHeader { entries, bytes, digest, durable_end, committed, salt }.encode()
    }

    /// Lets the disk begin with what was written.
    pub(crate) fn start_writeback(&self) {
        self.segment.file.start_writeback();
    }

    /// Makes everything written durable. After an error nothing is known.
    pub(crate) fn flush(&mut self) -> Result<(), StorageError> {
        let mut result = self.segment.file.sync_data();
        if result.is_err() && Mutant::FailedFlushRetried.is_active() {
            result = self.segment.file.sync_data();
        }
        result.map_err(|error| StorageError::io("flush", &self.segment.path, error))?;
        self.flushed = self.written;
        Ok(())
    }

    /// Bytes that `seal` will write.
    pub(crate) fn seal_len(&self) -> u64 {
        let index = SparseIndex::from_offsets(&self.segment.written().offsets);
        GROUP_HEADER as u64 + footer_len(index.slots().len())
    }

    /// Writes the last marker and the footer, flushes, and gives the space behind them back. The
    /// segment holds entries, all of them flushed, and space was reserved. May be done again.
    pub(crate) fn seal(&mut self, committed: u64) -> Result<SealedMeta, StorageError> {
        debug_assert!(!self.is_dirty(), "sealed before the flush");
        let (index, last, newest_ms) = {
            let written = self.segment.written();
            (SparseIndex::from_offsets(&written.offsets), written.last, written.newest_ms)
        };
        let last = last.expect("only a segment with entries is sealed");
        let footer = encode_footer(index.slots());
        let file = &self.segment.file;
        let end = self.written + GROUP_HEADER as u64;
        let result = file
            .write_all_vectored_at(
                &mut [IoSlice::new(&self.marker(committed)), IoSlice::new(&footer)],
                self.written,
            )
            .and_then(|()| match Mutant::SealNotFlushed.is_active() {
                true => Ok(()),
                false => file.sync_data(),
            });
        result.map_err(|error| StorageError::io("seal", &self.segment.path, error))?;
        let footer_len = footer.len() as u64;
        self.release_behind(end + footer_len);
        Ok(SealedMeta { segment: self.segment.meta, end, footer_len, last, newest_ms })
    }

    /// The facts of this segment as if it were sealed behind its entry `last`, without a footer.
    pub(crate) fn sealed_short(&self, last: EntryId) -> (SealedMeta, SparseIndex) {
        let written = self.segment.written();
        let count = (last.index + 1 - self.segment.meta.base) as usize;
        let behind = written.offsets.get(count);
        // Between the entry and the next one there may be group headers; they do no harm.
        let end = behind.map_or(written.end, |&offset| u64::from(offset));
        let meta = SealedMeta {
            segment: self.segment.meta,
            end,
            footer_len: 0,
            last,
            newest_ms: written.newest_ms,
        };
        (meta, SparseIndex::from_offsets(&written.offsets[..count]))
    }

    /// Gives allocated space back in which nothing valid was ever written. To be called before the
    /// segment is shown as a sealed one, which may be mapped (I7).
    pub(crate) fn release_unwritten(&mut self) {
        self.release_behind(self.written);
    }

    fn release_behind(&mut self, len: u64) {
        match self.segment.file.cut(len) {
            Ok(()) => self.allocated = len,
            Err(error) => {
                let path = self.segment.path.display();
                tracing::warn!(%path, %error, "cannot give unused space back");
            }
        }
    }
}
