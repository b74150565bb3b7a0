//! The newest entries of a log, in memory: read by followers and subscribers that keep up, and the
//! only place of entries that are not stored yet.

use std::collections::VecDeque;

use crate::format::entry::{Entry, EntryId, EntryKind};
use crate::mutant::Mutant;
use crate::segment::cursor::ReadRequest;

/// Room for so many entries is kept, however few there are.
const SPARE_PLACES: usize = 4096;

/// Consecutive entries up to the end of the log.
#[derive(Debug)]
pub(in crate::log) struct Tail {
    entries: VecDeque<Entry>,
    /// Index of the first entry, or of the next one if there is none.
    first: u64,
    /// Id of the entry before the first one; none if a log begins here.
    before: Option<EntryId>,
    bytes: u64,
}

impl Tail {
    /// An empty tail behind `before`, at `first`.
    pub(in crate::log) fn new(first: u64, before: Option<EntryId>) -> Self {
        Self { entries: VecDeque::new(), first, before, bytes: 0 }
    }

    pub(in crate::log) fn first(&self) -> u64 {
        self.first
    }

    /// Bytes of memory held.
    pub(in crate::log) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// One past the last index.
    pub(in crate::log) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Id of the last entry, here or before.
    pub(in crate::log) fn last(&self) -> Option<EntryId> {
        self.entries.back().map_or(self.before, |entry| Some(entry.id))
    }

    pub(in crate::log) fn get(&self, index: u64) -> Option<&Entry> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get(at)
    }

    /// Id of the entry at `index`, if it lies here or just before.
    pub(in crate::log) fn id_at(&self, index: u64) -> Option<EntryId> {
        let before = self.before.filter(|id| id.index == index);
        before.or_else(|| self.get(index).map(|entry| entry.id))
    }

    /// Adds the next entry. Invariants I2 and I3.
    pub(in crate::log) fn push(&mut self, entry: Entry) {
        match self.last() {
            None => {
                assert!(self.entries.is_empty(), "I2: an entry before it has an id");
                self.first = entry.id.index;
            }
            Some(last) => {
                let (id, end) = (entry.id, self.end());
                assert!(id.index == end, "I2: entry {} appended at {end}", id.index);
                assert!(id.term >= last.term, "I3: term {} follows {}", id.term, last.term);
            }
        }
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
    }

    /// Drops all behind `last`, which is the last entry of what is left; at `first` if nothing is.
    pub(in crate::log) fn truncate(&mut self, last: Option<EntryId>, first: u64) {
        let end = last.map_or(first, |last| last.index + 1);
        if end < self.first || last.is_none() {
            *self = Self::new(end, last);
            return;
        }
        while self.end() > end {
            let Some(entry) = self.entries.pop_back() else { break };
            self.bytes -= cost(&entry);
        }
    }

    /// Moves the oldest entries below `stored` to `evicted` while the tail is over `bytes_max`.
    pub(in crate::log) fn evict(&mut self, bytes_max: u64, stored: u64, evicted: &mut Vec<Entry>) {
        let stored = if Mutant::UnstoredEvicted.is_active() { self.end() } else { stored };
        while self.bytes > bytes_max && self.first < stored {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= cost(&entry);
            self.first += 1;
            self.before = Some(entry.id);
            evicted.push(entry);
        }
        // Room that a burst took goes back. Seldom: it has to be four times what is needed.
        let capacity = self.entries.capacity();
        if capacity > SPARE_PLACES && capacity / 4 > self.entries.len() {
            self.entries.shrink_to(capacity / 2);
        }
    }

    /// Adds the entries that `request` asks for; the first of them lies here.
    pub(in crate::log) fn read(&self, request: &mut ReadRequest) {
        while request.wants_more() {
            let Some(entry) = self.get(request.next) else { return };
            let full = request.payloads || entry.kind == EntryKind::Membership;
            if !request.admit(if full { entry.payload.len() } else { 0 }) {
                return;
            }
            request.push(if full { entry.clone() } else { without_payload(entry) });
        }
    }
}

fn without_payload(entry: &Entry) -> Entry {
    Entry { payload: bytes::Bytes::new(), ..*entry }
}

/// Bytes that an entry counts for: its payload, and a place in a queue that may be half empty.
fn cost(entry: &Entry) -> u64 {
    if Mutant::TailCountsPayloads.is_active() {
        return entry.payload.len() as u64;
    }
    (2 * size_of::<Entry>() + entry.payload.len()) as u64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::format::entry::Batch;

    fn entry(term: u64, index: u64) -> Entry {
        let payload = Bytes::from(vec![0; 200 - 2 * size_of::<Entry>()]);
        Entry::new(EntryId { term, index }, EntryKind::Record, false, Batch::SINGLE, payload)
    }

    #[test]
    fn the_first_entry_may_have_any_index_and_then_they_follow() {
        let mut tail = Tail::new(0, None);
        tail.push(entry(1, 7));
        tail.push(entry(1, 8));
        assert_eq!((tail.first(), tail.end()), (7, 9));
        assert_eq!(tail.last(), Some(EntryId { term: 1, index: 8 }));
    }

    #[test]
    #[should_panic(expected = "I2: entry 9 appended at 8")]
    fn a_hole_is_refused() {
        let mut tail = Tail::new(8, Some(EntryId { term: 1, index: 7 }));
        tail.push(entry(1, 9));
    }

    #[test]
    #[should_panic(expected = "I3: term 1 follows 2")]
    fn a_falling_term_is_refused() {
        let mut tail = Tail::new(8, Some(EntryId { term: 2, index: 7 }));
        tail.push(entry(1, 8));
    }

    #[test]
    fn eviction_takes_the_oldest_and_stops_at_what_is_not_stored() {
        let mut tail = Tail::new(0, None);
        (0..10).for_each(|index| tail.push(entry(1, index)));
        let mut evicted = Vec::new();
        tail.evict(500, 5, &mut evicted);
        assert_eq!((tail.first(), evicted.len()), (5, 5), "stored entries only");
        tail.evict(500, 10, &mut evicted);
        assert_eq!((tail.first(), evicted.len()), (8, 8), "down to the budget");
        assert_eq!(tail.id_at(7), Some(EntryId { term: 1, index: 7 }), "the one before is known");
    }

    #[test]
    fn truncation_keeps_what_is_left_readable() {
        let mut tail = Tail::new(0, None);
        (0..10).for_each(|index| tail.push(entry(1, index)));
        tail.truncate(Some(EntryId { term: 1, index: 4 }), 0);
        assert_eq!((tail.first(), tail.end()), (0, 5));
        tail.evict(0, 4, &mut Vec::new());
        tail.truncate(Some(EntryId { term: 1, index: 1 }), 0);
        assert_eq!((tail.first(), tail.end()), (2, 2));
        assert_eq!(tail.last(), Some(EntryId { term: 1, index: 1 }));
        tail.truncate(None, 0);
        assert_eq!((tail.end(), tail.last()), (0, None));
    }
}
