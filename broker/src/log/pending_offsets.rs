//! Consumed offsets on their way into the log: those that wait for a record, those in the record that is being written,
//! and who waits to hear of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use tokio::sync::oneshot;

use crate::limits::{OFFSETS_OF_RECORD_MAX, PENDING_OFFSETS_BYTES_MAX, PENDING_OFFSETS_MAX};
use crate::mutant::Mutant;
use crate::request::Failure;
use crate::state::{Refusal, ReportedOffset};

/// Group, topic and queue.
pub(crate) type Key = (String, String, u32);

/// Tells when an offset, or one noted for the same queue later, is applied; or why it will not be.
pub(crate) type Written = oneshot::Receiver<Result<(), Failure>>;

/// Bytes of an offset in a record beside its names, and about its memory.
const RECORD_COST: usize = 36;
const MEMORY_COST: usize = 192;

/// There is no room for another offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// An offset, and those who wait for it.
#[derive(Debug)]
struct Noted {
    offset: u64,
    /// What had made the topic when it was reported ([`ReportedOffset`]).
    since: u64,
    waiters: Vec<oneshot::Sender<Result<(), Failure>>>,
}

impl Noted {
    fn answer(self, result: &Result<(), Failure>) {
        for waiter in self.waiters {
            // The client that asked may have given up.
            let _ = waiter.send(result.clone());
        }
    }
}

/// Offsets on their way into the log.
#[derive(Debug, Default)]
pub(crate) struct PendingOffsets {
    /// The newest of each queue that is in no record yet.
    noted: BTreeMap<Key, Noted>,
    /// Memory of those.
    bytes: usize,
    /// Those of the record that is being written, in its order.
    in_record: BTreeMap<Key, Noted>,
    /// The last one of the last record: the next record begins behind it, so that every queue has its turn.
    after: Option<Key>,
}

fn names(key: &Key) -> usize {
    key.0.len() + key.1.len()
}

impl PendingOffsets {
    /// Notes how far a queue was consumed of the topic that `since` made, `held` being what the state has. It replaces
    /// what waits for the same queue.
    ///
    /// # Errors
    /// Too many wait.
    pub(crate) fn note(
        &mut self,
        key: Key,
        (offset, since): (u64, u64),
        held: Option<u64>,
    ) -> Result<(), Full> {
        if let Some(noted) = self.noted.get_mut(&key) {
            (noted.offset, noted.since) = (offset, since);
            if Mutant::SupersededOffsetUnanswered.is_active() {
                std::mem::forget(std::mem::take(&mut noted.waiters));
            }
            return Ok(());
        }
        let in_record = self.in_record.get(&key).filter(|noted| noted.since == since);
        let before = in_record.map(|noted| noted.offset).or(held);
        if before == Some(offset) {
            return Ok(());
        }
        let bytes = self.bytes + MEMORY_COST + names(&key);
        if self.noted.len() >= PENDING_OFFSETS_MAX || bytes > PENDING_OFFSETS_BYTES_MAX {
            return Err(Full);
        }
        self.bytes = bytes;
        self.noted.insert(key, Noted { offset, since, waiters: Vec::new() });
        Ok(())
    }

    /// The topics of the offsets that wait for a record.
    pub(crate) fn topics(&self) -> BTreeSet<String> {
        let topics: BTreeSet<&String> = self.noted.keys().map(|key| &key.1).collect();
        topics.into_iter().cloned().collect()
    }

    /// Forgets the offsets that were reported of other topics than there are now: `since` is what made those, by name. Tells
    /// those who wait for them.
    pub(crate) fn forget_other_topics(&mut self, since: &BTreeMap<String, u64>) {
        let is_other = |(key, noted): &(&Key, &Noted)| {
            since.get(&key.1).is_some_and(|since| *since != noted.since)
        };
        let gone = self.noted.iter().filter(is_other).map(|(key, _)| key.clone());
        for key in gone.collect::<Vec<_>>() {
            if let Some(noted) = self.noted.remove(&key) {
                self.bytes -= MEMORY_COST + names(&key);
                noted.answer(&Err(Failure::no_topic(&key.1)));
            }
        }
    }

    /// Waits for the newest offset of a queue that is on its way; none if none is.
    pub(crate) fn wait(&mut self, key: &Key) -> Option<Written> {
        let newest = match self.noted.get_mut(key) {
            Some(noted) => noted,
            None => self.in_record.get_mut(key)?,
        };
        let (waiter, written) = oneshot::channel();
        newest.waiters.push(waiter);
        Some(written)
    }

    /// Takes the offsets of the next record: at least one, if any waits, and more as they fit `bytes_max`.
    pub(crate) fn take(&mut self, bytes_max: usize) -> Vec<ReportedOffset> {
        let mut changes = Vec::new();
        let mut bytes = 0;
        let mut from_begin = self.after.is_none();
        while changes.len() < OFFSETS_OF_RECORD_MAX {
            let after = self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.noted.range((after, Bound::Unbounded)).next();
            let Some((key, _)) = next else {
                if std::mem::replace(&mut from_begin, true) {
                    break;
                }
                self.after = None;
                continue;
            };
            bytes += RECORD_COST + names(key);
            if bytes > bytes_max
                && !changes.is_empty()
                && !Mutant::OffsetRecordUnbounded.is_active()
            {
                break;
            }
            let key = key.clone();
            let Some(noted) = self.noted.remove(&key) else { break };
            self.bytes -= MEMORY_COST + names(&key);
            changes.push(ReportedOffset {
                group: key.0.clone(),
                topic: key.1.clone(),
                queue: key.2,
                offset: noted.offset,
                since: noted.since,
            });
            self.in_record.insert(key.clone(), noted);
            self.after = Some(key);
        }
        changes
    }

    /// The record is applied, save what was refused, by its place among the `changes`.
    pub(crate) fn applied(&mut self, changes: &[ReportedOffset], refused: Vec<(u32, Refusal)>) {
        for (at, refusal) in refused {
            let Some(change) = changes.get(at as usize) else { continue };
            let key = (change.group.clone(), change.topic.clone(), change.queue);
            if let Some(noted) = self.in_record.remove(&key) {
                noted.answer(&Err(refusal.into()));
            }
        }
        std::mem::take(&mut self.in_record).into_values().for_each(|noted| noted.answer(&Ok(())));
    }

    /// The record was not written, as far as is known. Those who wait are told; with `again`, what nobody has noted a newer
    /// offset for waits for another record.
    pub(crate) fn failed(&mut self, failure: &Failure, again: bool) {
        for (key, mut noted) in std::mem::take(&mut self.in_record) {
            let waiters = std::mem::take(&mut noted.waiters);
            for waiter in waiters {
                let _ = waiter.send(Err(failure.clone()));
            }
            if again && !self.noted.contains_key(&key) {
                self.bytes += MEMORY_COST + names(&key);
                self.noted.insert(key, noted);
            }
        }
    }

    /// Forgets what is in no record, and tells those who wait for it.
    pub(crate) fn clear(&mut self) {
        self.bytes = 0;
        let all = std::mem::take(&mut self.noted).into_values();
        all.for_each(|noted| noted.answer(&Err(Failure::Moved)));
    }

    /// True if nothing waits for a record.
    pub(crate) fn is_empty(&self) -> bool {
        self.noted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::OFFSETS_RECORD_BYTES_MAX;

    fn key(group: &str) -> Key {
        (group.to_owned(), "T".to_owned(), 0)
    }

    /// What a waiter was told, if it was.
    fn told(written: &mut Written) -> Option<Result<(), Failure>> {
        written.try_recv().ok()
    }

    fn offsets(changes: &[ReportedOffset]) -> Vec<(&str, u64)> {
        changes.iter().map(|change| (change.group.as_str(), change.offset)).collect()
    }

    #[test]
    fn who_waits_for_an_offset_is_told_once_a_newer_one_is_applied() {
        let mut pending = PendingOffsets::default();
        let mut note = |offset| {
            pending.note(key("g"), (offset, 0), None).expect("there is room");
            pending.wait(&key("g")).expect("it is on its way")
        };
        let (mut first, mut second) = (note(1), note(2));
        let record = pending.take(OFFSETS_RECORD_BYTES_MAX);
        assert_eq!(offsets(&record), [("g", 2)]);
        pending.note(key("g"), (3, 0), Some(0)).expect("there is room");
        let mut third = pending.wait(&key("g")).expect("it is on its way");
        pending.applied(&record, Vec::new());
        assert_eq!((told(&mut first), told(&mut second)), (Some(Ok(())), Some(Ok(()))));
        assert_eq!(told(&mut third), None, "its record is the next one");
        let record = pending.take(OFFSETS_RECORD_BYTES_MAX);
        pending.applied(&record, Vec::new());
        assert_eq!((offsets(&record), told(&mut third)), (vec![("g", 3)], Some(Ok(()))));
        assert!(pending.wait(&key("g")).is_none() && pending.is_empty());
    }

    #[test]
    fn an_offset_that_is_applied_or_in_a_record_is_not_written_again() {
        let mut pending = PendingOffsets::default();
        pending.note(key("g"), (1, 0), Some(1)).expect("there is room");
        assert!(pending.is_empty() && pending.wait(&key("g")).is_none());
        pending.note(key("g"), (2, 0), Some(1)).expect("there is room");
        let record = pending.take(OFFSETS_RECORD_BYTES_MAX);
        pending.note(key("g"), (2, 0), Some(1)).expect("there is room");
        assert!(pending.is_empty());
        let mut written = pending.wait(&key("g")).expect("it is in the record");
        pending.note(key("g"), (1, 0), Some(1)).expect("there is room");
        pending.applied(&record, Vec::new());
        assert_eq!(told(&mut written), Some(Ok(())));
        let record = pending.take(OFFSETS_RECORD_BYTES_MAX);
        assert_eq!(offsets(&record), [("g", 1)], "back to where it was before the record");
    }

    #[test]
    fn records_are_split_by_bytes_and_every_queue_has_its_turn() {
        let mut pending = PendingOffsets::default();
        let group = |n: usize| format!("{n:0>255}");
        for n in 0..3_000 {
            pending.note(key(&group(n)), (1, 0), None).expect("there is room");
        }
        let mut written = 0;
        for _ in 0..4 {
            let record = pending.take(OFFSETS_RECORD_BYTES_MAX);
            let bytes =
                crate::state::change(&crate::state::Change::ReportedOffsets(record.clone()));
            assert!(bytes.len() <= OFFSETS_RECORD_BYTES_MAX + 64, "{} bytes", bytes.len());
            written += record.len();
            pending.applied(&record, Vec::new());
            // One that reports all the time holds up no other.
            pending.note(key(&group(0)), (written as u64, 0), None).expect("there is room");
        }
        assert!(written >= 3_000, "{written} of 3,000 in four records");
        assert_eq!(offsets(&pending.take(1)).len(), 1, "one goes however small a record is");
        assert!(pending.is_empty());
    }

    #[test]
    fn what_is_refused_is_told_and_what_was_not_written_is_tried_again_unless_replaced() {
        let mut pending = PendingOffsets::default();
        for group in ["a", "b", "c"] {
            pending.note(key(group), (1, 0), None).expect("there is room");
        }
        let mut waiting = ["a", "b", "c"].map(|group| pending.wait(&key(group)).expect("noted"));
        let record = pending.take(OFFSETS_RECORD_BYTES_MAX);
        pending.applied(&record, vec![(1, Refusal::Full("full".to_owned()))]);
        let told_all = waiting.each_mut().map(|written| told(written).expect("told"));
        assert_eq!((&told_all[0], &told_all[2]), (&Ok(()), &Ok(())));
        assert_eq!(told_all[1], Err(Refusal::Full("full".to_owned()).into()));
        for (group, offset) in [("a", 2), ("b", 2)] {
            pending.note(key(group), (offset, 0), None).expect("there is room");
        }
        let mut waiting = pending.wait(&key("a")).expect("noted");
        assert_eq!(pending.take(OFFSETS_RECORD_BYTES_MAX).len(), 2);
        pending.note(key("a"), (3, 0), None).expect("there is room");
        pending.failed(&Failure::Moved, true);
        assert_eq!(told(&mut waiting), Some(Err(Failure::Moved)));
        let record = pending.take(OFFSETS_RECORD_BYTES_MAX);
        assert_eq!(offsets(&record), [("a", 3), ("b", 2)], "the newest of each");
        pending.failed(&Failure::Moved, false);
        assert!(pending.is_empty() && pending.take(1).is_empty());
    }

    #[test]
    fn what_was_reported_of_a_topic_that_was_made_again_is_forgotten_and_its_waiters_are_told() {
        let mut pending = PendingOffsets::default();
        pending.note(key("in a record"), (1, 5), None).expect("there is room");
        let record = pending.take(OFFSETS_RECORD_BYTES_MAX);
        assert_eq!(record[0].since, 5);
        pending.note(key("a"), (1, 5), None).expect("there is room");
        let mut old = pending.wait(&key("a")).expect("noted");
        pending.note(key("b"), (1, 9), None).expect("there is room");
        // The same number, but of another topic: it has to be written.
        pending.note(key("in a record"), (1, 9), None).expect("there is room");
        pending.forget_other_topics(&[("T".to_owned(), 9)].into());
        assert_eq!(told(&mut old), Some(Err(Failure::no_topic("T"))));
        pending.applied(&record, vec![(0, Refusal::NoTopic("T".to_owned()))]);
        let record = pending.take(OFFSETS_RECORD_BYTES_MAX);
        assert_eq!(offsets(&record), [("b", 1), ("in a record", 1)]);
        assert!(record.iter().all(|reported| reported.since == 9));
        pending.forget_other_topics(&BTreeMap::new());
    }

    #[test]
    fn there_is_a_limit_to_what_waits() {
        let mut pending = PendingOffsets::default();
        let noted =
            (0..).take_while(|n| pending.note(key(&format!("{n:0>255}")), (1, 0), None).is_ok());
        let noted = noted.count();
        assert!((30_000..=PENDING_OFFSETS_MAX).contains(&noted), "{noted}");
        assert_eq!(pending.note(key("g"), (1, 0), None), Err(Full));
        assert_eq!(
            pending.note(key(&format!("{:0>255}", 7)), (2, 0), None),
            Ok(()),
            "it replaces one"
        );
        let record = pending.take(OFFSETS_RECORD_BYTES_MAX);
        pending.applied(&record, Vec::new());
        assert_eq!(pending.note(key("g"), (1, 0), None), Ok(()));
    }

    proptest! {
        /// Whatever comes in whatever order: all who wait are told, and "applied" only if their offset or a later one is.
        #[test]
        fn everybody_who_waits_is_told_the_truth(steps in proptest::collection::vec((0..10_u8, 0..3_u8), 1..120)) {
            let mut pending = PendingOffsets::default();
            let mut applied = BTreeMap::new();
            let mut waiting: Vec<(Key, u64, Written)> = Vec::new();
            let mut record = Vec::new();
            let mut number = 0;
            for (step, group) in steps.into_iter().chain([(9, 0), (8, 0), (9, 0), (8, 0)]) {
                let key = key(&format!("g{group}"));
                match step {
                    0..5 => {
                        number += 1;
                        pending.note(key.clone(), (number, 0), applied.get(&key).copied()).expect("room");
                        let written = pending.wait(&key).expect("it is new");
                        waiting.push((key, number, written));
                    }
                    5..7 => record = if record.is_empty() { pending.take(80) } else { record },
                    7 => {
                        pending.failed(&Failure::Moved, true);
                        record.clear();
                    }
                    8 => {
                        for change in &record {
                            let ReportedOffset { group, topic, queue, offset, .. } = change.clone();
                            applied.insert((group, topic, queue), offset);
                        }
                        pending.applied(&std::mem::take(&mut record), Vec::new());
                    }
                    _ => if record.is_empty() { record = pending.take(usize::MAX) },
                }
                let applied = &applied;
                waiting.retain_mut(|(key, offset, written)| match told(written) {
                    None => true,
                    Some(Ok(())) => {
                        assert!(applied.get(key) >= Some(offset), "{key:?}");
                        false
                    }
                    Some(Err(failure)) => {
                        assert_eq!(failure, Failure::Moved);
                        false
                    }
                });
            }
            prop_assert!(pending.is_empty());
            prop_assert_eq!(waiting.len(), 0);
        }
    }
}
