//! What a log is right now, in memory: ahead of the disk by what the writer has not done yet.
//!
//! Every change is made here at once, under a lock held briefly, and queued for the writer in the
//! same order. Readers look here first.

use std::sync::Arc;

use crate::error::StorageError;
use crate::format::entry::{Batch, Entry, EntryId};
use crate::format::vote::Vote;
use crate::mutant::Mutant;
use crate::segment::active::ActiveSegment;
use crate::segment::sealed::SealedSegment;
use crate::watermarks::Watermarks;

use super::job::Job;
use super::memberships::{Memberships, StoredMembership};
use super::tail::Tail;

/// The segments of a log at one moment.
#[derive(Debug, Clone)]
pub(in crate::log) struct SegmentSet {
    pub(in crate::log) sealed: Vec<Arc<SealedSegment>>,
    /// None once the log is closed or fenced off by an installed boundary.
    pub(in crate::log) active: Option<Arc<ActiveSegment>>,
}

/// One segment, as retention and status see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) base_index: u64,
    /// Last entry; none in an empty active segment.
    pub(crate) last: Option<EntryId>,
    pub(crate) bytes: u64,
    pub(crate) sealed: bool,
    /// Wall clock of the newest entry's write, milliseconds since 1970; for retention by age only.
    pub(crate) newest_ms: u64,
}

impl SegmentSet {
    /// Index of the first entry that may lie in a segment.
    pub(in crate::log) fn first(&self) -> Option<u64> {
        let sealed = self.sealed.first().map(|sealed| sealed.meta().segment.base);
        sealed.or_else(|| self.active.as_ref().map(|active| active.meta().base))
    }
}

/// See the module.
pub(in crate::log) struct State {
    pub(in crate::log) tail: Tail,
    pub(in crate::log) boundary: Option<EntryId>,
    pub(in crate::log) memberships: Memberships,
    /// As told by Raft; may lie beyond the tail.
    pub(in crate::log) committed: Option<EntryId>,
    pub(in crate::log) vote: Option<Vote>,
    pub(in crate::log) segments: Arc<SegmentSet>,
    /// Where a log without a boundary begins.
    origin: u64,
    /// One past the last index that readers may see (I11).
    visible: u64,
    /// Entries below are in a segment and may leave the tail.
    stored: u64,
    /// Entries below survive a power cut.
    flushed: u64,
    /// Entries below are flushed on a majority, as far as this node knows.
    stable: u64,
    /// The first entry of the last entry's term, if it was appended since the log was opened.
    term_begin: Option<EntryId>,
    /// Counts the changes that drop entries: what the writer reports of an older epoch is void.
    epoch: u64,
    /// Waits for the writer.
    pub(in crate::log) inbox: Vec<Job>,
    /// The writer has been told about the inbox.
    pub(in crate::log) scheduled: bool,
    pub(in crate::log) failure: Option<Arc<StorageError>>,
    pub(in crate::log) closed: bool,
}

/// What opening a log found.
pub(in crate::log) struct Recovered {
    pub(in crate::log) boundary: Option<EntryId>,
    pub(in crate::log) memberships: Memberships,
    pub(in crate::log) vote: Option<Vote>,
    pub(in crate::log) segments: SegmentSet,
    /// Last entry, or the boundary.
    pub(in crate::log) last: Option<EntryId>,
    /// One past what a majority had flushed, as it was stored.
    pub(in crate::log) stable: u64,
}

impl State {
    pub(in crate::log) fn new(recovered: Recovered) -> Self {
        let Recovered { boundary, memberships, vote, segments, last, stable } = recovered;
        let origin = segments.first().unwrap_or_default();
        let end = last.map_or(origin, |last| last.index + 1);
        let begin = boundary.map_or(origin, |boundary| boundary.index + 1);
        Self {
            tail: Tail::new(end, last),
            boundary,
            memberships,
            committed: boundary,
            vote,
            segments: Arc::new(segments),
            origin,
            visible: begin,
            stored: end,
            flushed: end,
            // What the log does not hold any more may be another entry by the time that it is there again.
            stable: stable.min(end).max(begin),
            term_begin: None,
            epoch: 0,
            inbox: Vec::new(),
            scheduled: false,
            failure: None,
            closed: false,
        }
    }

    pub(in crate::log) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The first index that the log logically holds.
    fn begin(&self) -> u64 {
        self.boundary.map_or(self.origin, |boundary| boundary.index + 1)
    }

    /// Invariant I1. A boundary set before the first entry came may lie ahead of the tail.
    pub(in crate::log) fn watermarks(&self) -> Watermarks {
        let end = self.tail.end().max(self.begin());
        Watermarks::new(self.begin(), self.visible.clamp(self.begin(), end), end)
    }

    /// Takes new entries: I2, I3.
    pub(in crate::log) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        if self.tail.last().is_none() {
            self.origin = first.id.index;
            self.stored = first.id.index;
            self.visible = self.visible.max(self.begin());
        }
        for entry in entries {
            if self.tail.last().is_none_or(|last| last.term < entry.id.term) {
                self.term_begin = Some(entry.id);
            }
            self.tail.push(entry.clone());
        }
        self.memberships.extend(entries);
        if Mutant::UncommittedVisible.is_active() {
            self.visible = self.tail.end().max(self.begin());
        }
    }

    /// Drops all behind `last`. False if there is nothing behind it.
    pub(in crate::log) fn truncate(&mut self, last: Option<EntryId>) -> bool {
        let end = last.map_or(self.origin, |last| last.index + 1);
        if end >= self.tail.end() {
            return false;
        }
        if let Some(committed) = self.committed {
            assert!(committed.index < end, "I4: cut at {end}, and {committed:?} is committed");
        }
        assert!(self.stable <= end, "I4: cut at {end}, and all below {} is stable", self.stable);
        if let (Some(last), Some(held)) = (last, last.and_then(|l| self.tail.id_at(l.index))) {
            assert!(last == held, "I2: cut behind {last:?}, and the log holds {held:?}");
        }
        self.tail.truncate(last, self.origin);
        self.memberships.truncate(end);
        self.stored = self.stored.min(end);
        self.flushed = self.flushed.min(end);
        self.term_begin.take_if(|begin| begin.index >= end);
        self.epoch += 1;
        true
    }

    /// Moves the boundary. True if it lies beyond the tail, so that the log is now empty.
    pub(in crate::log) fn purge(&mut self, upto: EntryId) -> bool {
        let beyond = upto.index >= self.tail.end();
        if beyond {
            self.start_behind(upto);
        }
        self.boundary = Some(upto);
        self.memberships.purge(upto.index);
        self.commit(upto);
        self.stable = self.stable.max(upto.index + 1);
        self.visible = self.visible.max(upto.index + 1);
        beyond
    }

    /// Takes a boundary of which the log holds nothing: drops everything.
    pub(in crate::log) fn install(&mut self, upto: EntryId, membership: Option<StoredMembership>) {
        self.start_behind(upto);
        self.boundary = Some(upto);
        self.memberships = Memberships::new(membership, Vec::new());
        self.commit(upto);
        // A leader's boundary is.
        self.stable = self.stable.max(upto.index + 1);
        self.visible = self.visible.max(upto.index + 1);
    }

    fn start_behind(&mut self, upto: EntryId) {
        self.tail = Tail::new(upto.index + 1, Some(upto));
        self.segments = Arc::new(SegmentSet { sealed: Vec::new(), active: None });
        self.stored = upto.index + 1;
        self.flushed = upto.index + 1;
        self.term_begin = None;
        self.epoch += 1;
    }

    /// Moves `committed` up.
    pub(in crate::log) fn commit(&mut self, id: EntryId) {
        if self.committed.is_none_or(|committed| committed.index < id.index) {
            self.committed = Some(id);
        }
    }

    /// Last committed index that the log holds.
    pub(in crate::log) fn committed_index(&self) -> Option<u64> {
        let last = self.tail.last()?.index;
        self.committed.map(|committed| committed.index.min(last))
    }

    /// The committed position, if it is ahead of what readers see.
    pub(in crate::log) fn to_show(&self) -> Option<u64> {
        let end = self.committed_index()? + 1;
        (end > self.visible && end > self.begin()).then_some(end)
    }

    /// Shows readers the log up to `end`, whose last entry lies in `batch`: I11.
    pub(in crate::log) fn show(&mut self, end: u64, batch: Batch) {
        let last = batch.position + 1 == batch.count;
        let whole = last || Mutant::BatchShownByHalves.is_active();
        let end = if whole { end } else { end - 1 - u64::from(batch.position).min(end - 1) };
        self.visible = self.visible.max(end);
    }

    /// The writer has stored all below `end`, as of `epoch`.
    pub(in crate::log) fn set_stored(&mut self, epoch: u64, end: u64) {
        if epoch == self.epoch || Mutant::StaleEpochAccepted.is_active() {
            self.stored = end.min(self.tail.end());
        }
    }

    /// The writer has flushed all below `end`, as of `epoch`.
    pub(in crate::log) fn set_flushed(&mut self, epoch: u64, end: u64) {
        if epoch == self.epoch || Mutant::StaleEpochAccepted.is_active() {
            self.flushed = end.min(self.tail.end());
        }
    }

    pub(in crate::log) fn flushed(&self) -> u64 {
        self.flushed
    }

    pub(in crate::log) fn stable(&self) -> u64 {
        self.stable
    }

    /// The leader of `term` vouches that this log is the same as its own below `end`, and that a majority has flushed what
    /// lies below `stable`. Gives how far this log has flushed of what is vouched for; nothing if it follows a later leader
    /// by now, which may have replaced it.
    pub(in crate::log) fn vouched(&mut self, term: u64, end: u64, stable: u64) -> u64 {
        if self.vote.is_some_and(|vote| vote.term > term) {
            return 0;
        }
        self.stable = self.stable.max(stable.min(end).min(self.tail.end()));
        if Mutant::WrittenTakenForFlushed.is_active() { end } else { self.flushed.min(end) }
    }

    /// On the leader of `term`: moves `stable` up to what `flushed` gives, which is told how far this log has flushed, but
    /// not past what is committed. Only entries of the leader's own term count: an older one can still be overruled,
    /// though a majority has flushed it (Raft paper, section 5.4.2).
    pub(in crate::log) fn settle(&mut self, term: u64, flushed: impl FnOnce(u64) -> u64) -> u64 {
        let committed = self.committed_index().map_or(0, |index| index + 1);
        let end = flushed(self.flushed).min(committed);
        let of_own_term =
            self.term_begin.is_some_and(|begin| begin.term == term && begin.index < end)
                || Mutant::StableOfOlderTerms.is_active();
        let leads = self.vote.is_some_and(|vote| vote.term == term);
        if of_own_term && leads {
            self.stable = self.stable.max(end);
        }
        self.stable
    }

    /// `id` is committed and stable. Takes no effect while the log holds another entry there, or none in memory.
    pub(in crate::log) fn settle_committed(&mut self, id: EntryId) {
        if self.tail.id_at(id.index) == Some(id) {
            self.stable = self.stable.max(id.index + 1);
        }
    }

    /// The writer has changed the segments, as of `epoch`.
    pub(in crate::log) fn set_segments(&mut self, epoch: u64, segments: Arc<SegmentSet>) {
        if epoch == self.epoch || Mutant::StaleEpochAccepted.is_active() {
            self.segments = segments;
        }
    }

    /// Moves the oldest stored entries to `evicted` while the tail is over `bytes_max`.
    pub(in crate::log) fn evict(&mut self, bytes_max: u64, evicted: &mut Vec<Entry>) {
        self.tail.evict(bytes_max, self.stored, evicted);
    }
}
