//! Reads: from the tail where the entry is in memory, else from its segment.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::error::{StorageError, with_sources};
use crate::format::entry::{Batch, Entry, EntryId, EntryKind};
use crate::mutant::Mutant;
use crate::segment::cursor::ReadRequest;
use crate::segment::sealed::SealedSegment;

use super::shared::Shared;
use super::state::SegmentSet;

/// How often a read starts over because segments changed under it.
const RETRIES_MAX: u32 = 8;

impl Shared {
    /// See [`Log::read`](crate::log::Log::read).
    pub(in crate::log) fn read(
        &self,
        from: u64,
        to: u64,
        max_bytes: usize,
        payloads: bool,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut request = ReadRequest::new(from, to, max_bytes, payloads);
        let mut retries = 0;
        let mut begun = false;
        while request.wants_more() {
            let (segments, committed) = {
                let state = self.state();
                if state.closed {
                    return Err(self.closed_error());
                }
                let tail = state.tail.first();
                if !begun {
                    let first = state.segments.first().unwrap_or(tail).min(tail);
                    request.next = request.next.max(first);
                    // All that was asked for lies before what is held.
                    if !request.wants_more() {
                        break;
                    }
                }
                if request.next >= tail {
                    state.tail.read(&mut request);
                    break;
                }
                // From here on the tail has the say: below it, segments may hold dropped entries.
                request.to = to.min(tail);
                (Arc::clone(&state.segments), state.committed_index())
            };
            let before = request.next;
            let read = read_segment(&segments, &mut request, committed);
            let got_any = request.next > before;
            begun |= got_any;
            request.to = to;
            match read {
                Ok(()) if got_any => {}
                // The segment was dropped since; what the log holds now decides.
                Ok(()) if retries < RETRIES_MAX => retries += 1,
                Err(error) if is_gone(&error) => {
                    self.missing(&segments, before)?;
                    retries += 1;
                    if retries > RETRIES_MAX {
                        return Err(error);
                    }
                }
                Ok(()) => break,
                Err(error) => return Err(self.judge(error, request.next)),
            }
        }
        Ok(request.into_entries())
    }

    /// What an error of reading the entry at `index` comes to. A disk that fails to write pages may drop them, whether a
    /// flush asks for it or not. Entries that were not flushed are then gone, as after a power cut, and not damaged. The
    /// log has failed, also if nobody has said so yet.
    fn judge(&self, error: StorageError, index: u64) -> StorageError {
        let is_lost = matches!(error, StorageError::Corrupt { .. })
            && index >= self.state().flushed()
            && !Mutant::LostPagesTakenForDamage.is_active();
        if !is_lost {
            return error;
        }
        let failure = self.state().failure.clone();
        let failure = failure.unwrap_or_else(|| {
            let error = Arc::new(error);
            tracing::error!(error = %with_sources(&error), "unflushed records are lost: the log has failed");
            self.note_failed();
            self.set_failure(&error);
            error
        });
        failure.poisoned_by()
    }

    /// Fails if a file that is not there is still listed: then it was not dropped.
    fn missing(&self, read: &SegmentSet, next: u64) -> Result<(), StorageError> {
        let Some(sealed) = sealed_with(read, next) else { return Ok(()) };
        let now = Arc::clone(&self.state().segments);
        match sealed_with(&now, next) {
            Some(still) if Arc::ptr_eq(still, sealed) => {
                let detail = "the manifest lists it".to_owned();
                Err(StorageError::Missing { path: sealed.path().to_owned(), detail })
            }
            _ => Ok(()),
        }
    }

    /// See [`Log::id_at`](crate::log::Log::id_at).
    pub(in crate::log) fn id_at(&self, index: u64) -> Result<Option<EntryId>, StorageError> {
        {
            let state = self.state();
            if let Some(boundary) = state.boundary.filter(|boundary| boundary.index == index) {
                return Ok(Some(boundary));
            }
            if let Some(id) = state.tail.id_at(index) {
                return Ok(Some(id));
            }
        }
        let entries = self.read(index, index.saturating_add(1), 0, false)?;
        Ok(entries.first().map(|entry| entry.id).filter(|id| id.index == index))
    }

    /// See [`Log::visible`](crate::log::Log::visible).
    pub(in crate::log) fn visible(&self, entries: Vec<Entry>) -> Result<Vec<Entry>, StorageError> {
        let plain = |entry: &Entry| entry.kind == EntryKind::Record && entry.batch.count == 1;
        if entries.iter().all(plain) {
            return Ok(entries);
        }
        let committed = self.state().watermarks().committed;
        let mut batch: Option<(EntryId, bool)> = None;
        let mut visible = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.kind != EntryKind::Record {
                continue;
            }
            let Batch { position, count } = entry.batch;
            let last = entry.id.index + u64::from(count) - 1 - u64::from(position);
            let batch_end = EntryId { index: last, ..entry.id };
            let whole = match batch {
                _ if count == 1 => true,
                Some((known, whole)) if known == batch_end => whole,
                _ => {
                    // One leader appends a batch in a row, so it is whole if its last place is of the same term.
                    let held = if last < committed { self.id_at(last)? } else { None };
                    let whole = held == Some(batch_end) || Mutant::BrokenBatchVisible.is_active();
                    batch = Some((batch_end, whole));
                    whole
                }
            };
            if whole {
                visible.push(entry);
            }
        }
        Ok(visible)
    }
}

/// Reads from the one segment that holds the next entry.
fn read_segment(
    segments: &SegmentSet,
    request: &mut ReadRequest,
    committed: Option<u64>,
) -> Result<(), StorageError> {
    let next = request.next;
    if let Some(active) = segments.active.as_ref().filter(|active| active.meta().base <= next) {
        return active.read(request);
    }
    match sealed_with(segments, next) {
        Some(sealed) => sealed.read(request, committed),
        None => Ok(()),
    }
}

/// The sealed segment that holds an index.
fn sealed_with(segments: &SegmentSet, index: u64) -> Option<&Arc<SealedSegment>> {
    let behind = segments.sealed.partition_point(|sealed| sealed.meta().segment.base <= index);
    let sealed = &segments.sealed[behind.checked_sub(1)?];
    (index <= sealed.meta().last.index).then_some(sealed)
}

fn is_gone(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}
