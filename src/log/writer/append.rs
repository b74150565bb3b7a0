//! Appends become groups: one write each, and one flush.

use std::time::Instant;

use crate::format::entry::Entry;
use crate::format::group::{GROUP_BYTES_MAX, GROUP_ENTRIES_MAX, GROUP_HEADER};
use crate::mutant::Mutant;
use crate::record::Flush;

use super::{Fault, IDLE, LogWriter, end_of};
use crate::log::memory::job::Job;
use crate::log::memory::shared::Shared;

/// After so many bytes that nobody waits to have flushed, the disk is to begin with them: appends wait while the
/// background flush writes what is left.
const WRITEBACK_BYTES: usize = 4 << 20;

impl LogWriter {
    /// True if `job` can be written now with a single write: nothing waits, and the active segment has space for it.
    pub(in crate::log) fn writes_at_once(&self, job: &Job) -> bool {
        let Job::Append { entries, .. } = job else { return false };
        let (count, bytes) = next_group(entries);
        self.failure.is_none()
            && self.jobs.is_empty()
            && self.run.done.is_empty()
            && count == entries.len()
            && !self.active.is_empty()
            && self.active.has_space((GROUP_HEADER + bytes) as u64)
    }

    /// Writes what [`writes_at_once`](Self::writes_at_once). Says when the writer must run, even if nothing is submitted.
    pub(in crate::log) fn write_at_once(
        &mut self,
        shared: &Shared,
        inbox: &mut Vec<Job>,
        now: Instant,
    ) -> Option<Instant> {
        self.jobs.extend(inbox.drain(..));
        self.take_up_failure(shared);
        if self.failure.is_some() {
            // What waits is failed by the writer's thread.
            return Some(now);
        }
        match self.work(shared, now, &mut false) {
            Ok(()) => self.deadline(false, now, shared),
            // Tried again, and told, by the writer's thread.
            Err(Fault::Stall(_)) => Some(now),
            Err(Fault::Fatal(error)) => {
                self.poison(shared, error);
                Some(now)
            }
        }
    }

    /// Writes the run of appends, group by group, each flushed and acknowledged before the next.
    pub(super) fn write_appends(&mut self, shared: &Shared, now: Instant) -> Result<(), Fault> {
        if Mutant::CompletionsOutOfOrder.is_active()
            && self.run.done.len() > 1
            && let Some((_, newest)) = self.run.done.pop_back()
        {
            newest(Ok(()));
        }
        while self.run.stored < self.run.entries.len() {
            match self.write_group(shared, now) {
                Err(Fault::Stall(_)) if Mutant::FullDiskIgnored.is_active() => {
                    self.run.stored = self.run.entries.len();
                }
                result => result?,
            }
            self.acknowledge(shared);
        }
        // What is left to call are appends of nothing.
        self.acknowledge(shared);
        self.run.entries.clear();
        self.run.stored = 0;
        Ok(())
    }

    fn write_group(&mut self, shared: &Shared, now: Instant) -> Result<(), Fault> {
        assert!(self.failure.is_none(), "I10: a group after a failed write or flush");
        let (count, bytes) = next_group(&self.run.entries[self.run.stored..]);
        self.make_room(shared, self.run.entries[self.run.stored].id.index, bytes)?;
        let group = &self.run.entries[self.run.stored..self.run.stored + count];
        let committed = self.committed(shared);
        let now_ms = shared.options().clock.now_ms();
        let written = self.active.write_group(group, end_of(committed), now_ms, &mut self.buffer);
        written.map_err(Fault::Fatal)?;
        self.committed_written = committed;
        self.memberships.extend(group);
        self.unflushed.0 += count as u64;
        self.unflushed.1 += bytes as u64;
        self.dirty_since.get_or_insert(now);
        shared.written(count as u64, bytes as u64);
        let sync =
            shared.options().flush == Flush::Sync || group.iter().any(Entry::is_flushed_first);
        if sync && !Mutant::AckBeforeFlush.is_active() {
            self.flush(shared).map_err(Fault::Fatal)?;
            self.marker_at = Some(now + IDLE);
        } else {
            self.unhinted += bytes;
            if self.unhinted >= WRITEBACK_BYTES {
                self.unhinted = 0;
                self.active.start_writeback();
            }
        }
        self.run.stored += count;
        Ok(())
    }

    /// Calls the completions of what is stored (I6), after readers were told where it is.
    fn acknowledge(&mut self, shared: &Shared) {
        if let Some(last) = self.run.stored.checked_sub(1).map(|at| self.run.entries[at].id) {
            shared.set_stored(self.epoch, last.index + 1, &mut self.evicted);
            self.evicted.clear();
        }
        while self.run.done.front().is_some_and(|(needs, _)| *needs <= self.run.stored) {
            if let Some((needs, done)) = self.run.done.pop_front() {
                let next = self.run.done.front().map_or(needs, |(next, _)| *next);
                assert!(needs <= next, "I6: a completion before one that was submitted earlier");
                done(Ok(()));
            }
        }
    }

    /// Sees to it that the active segment takes a group that begins at `index`.
    fn make_room(&mut self, shared: &Shared, index: u64, bytes: usize) -> Result<(), Fault> {
        if self.active.is_empty() {
            let meta = *self.active.segment().meta();
            if meta.base != index {
                // The first entry of all may have any index; every later one follows its predecessor.
                let first = self.sealed.is_empty() && self.boundary.is_none();
                assert!(first, "I2: entry {index} where {} must be", meta.base);
                self.relayout(shared, Vec::new(), Some((index, 0)))?;
            }
        } else if !self.active.takes(bytes) {
            self.roll(shared)?;
        }
        self.reserve(shared, (GROUP_HEADER + bytes) as u64).map_err(Fault::before)
    }
}

/// How many of `entries` go into the next group, and their bytes.
fn next_group(entries: &[Entry]) -> (usize, usize) {
    let mut bytes = 0;
    let mut count = 0;
    for entry in entries.iter().take(GROUP_ENTRIES_MAX) {
        let more = bytes + entry.encoded_len();
        if more > GROUP_BYTES_MAX && count > 0 {
            break;
        }
        (bytes, count) = (more, count + 1);
    }
    (count, bytes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::format::entry::{Batch, EntryId, EntryKind};

    fn entries(count: usize, len: usize) -> Vec<Entry> {
        let payload = Bytes::from(vec![0; len]);
        let id = EntryId { term: 1, index: 0 };
        let entry = Entry::new(id, EntryKind::Record, false, Batch::SINGLE, payload);
        vec![entry; count]
    }

    #[test]
    fn groups_are_bounded_in_bytes_and_entries_but_take_one_of_any_size() {
        assert_eq!(next_group(&entries(3, 100)), (3, 444));
        assert_eq!(next_group(&entries(GROUP_ENTRIES_MAX + 5, 0)).0, GROUP_ENTRIES_MAX);
        assert_eq!(next_group(&entries(20, 1 << 20)).0, 7);
        assert_eq!(next_group(&entries(2, GROUP_BYTES_MAX)), (1, GROUP_BYTES_MAX + 48));
    }
}
