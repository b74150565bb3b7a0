//! A log against a model that is a vector: whatever is done in whatever order, crashes included, the
//! two agree.

use std::ops::Range;

use proptest::prelude::*;

use super::driven::Driven;
use super::*;
use crate::seam::disk::sim::{CrashPolicy, SimDisk};
use crate::watermarks::Watermarks;

#[derive(Debug, Clone)]
enum Op {
    /// So many entries of so many bytes; the term rises first if asked for.
    Append {
        count: u64,
        len: usize,
        new_term: bool,
    },
    Membership,
    /// So many of a batch of so many: all of it, or what came before the leader changed.
    Batch {
        count: u32,
        sent: u32,
    },
    /// Cuts so many entries, but no committed one.
    Truncate(u64),
    /// Moves `committed` up by so many.
    Commit(u64),
    /// Moves the boundary up by so many committed entries.
    Purge(u64),
    /// Takes a boundary so far behind the tail.
    Install(u64),
    Vote,
    Idle,
    Reopen,
    Crash(u64),
    Read {
        from: u64,
        len: u64,
        max_bytes: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (1..6u64, 0..1500usize, any::<bool>())
            .prop_map(|(count, len, new_term)| Op::Append { count, len, new_term }),
        1 => Just(Op::Membership),
        2 => (2..5u32, 1..5u32).prop_map(|(count, sent)| Op::Batch { count, sent: sent.min(count) }),
        2 => (1..8u64).prop_map(Op::Truncate),
        3 => (1..8u64).prop_map(Op::Commit),
        1 => (1..20u64).prop_map(Op::Purge),
        1 => (1..20u64).prop_map(Op::Install),
        1 => Just(Op::Vote),
        1 => Just(Op::Idle),
        1 => Just(Op::Reopen),
        1 => any::<u64>().prop_map(Op::Crash),
        4 => (0..60u64, 0..30u64, 0..5000usize)
            .prop_map(|(from, len, max_bytes)| Op::Read { from, len, max_bytes }),
    ];
    prop::collection::vec(op, 1..60)
}

/// What a log must say.
#[derive(Debug, Default)]
struct Model {
    /// Behind the boundary.
    entries: Vec<Entry>,
    boundary: Option<EntryId>,
    boundary_membership: Option<EntryId>,
    term: u64,
    committed: Option<EntryId>,
    /// Readers were shown all below.
    shown: u64,
    vote: Option<Vote>,
}

impl Model {
    fn begin(&self) -> u64 {
        self.boundary.map_or(0, |boundary| boundary.index + 1)
    }

    fn end(&self) -> u64 {
        self.begin() + self.entries.len() as u64
    }

    fn get(&self, index: u64) -> &Entry {
        &self.entries[(index - self.begin()) as usize]
    }

    fn committed_end(&self) -> u64 {
        self.committed.map_or(0, |committed| committed.index + 1).max(self.begin())
    }

    fn commit(&mut self, end: u64) {
        if end > self.committed_end() {
            self.committed = Some(self.get(end - 1).id);
            let Batch { position, count } = self.get(end - 1).batch;
            let whole = position + 1 == count;
            let shown = if whole { end } else { end - 1 - u64::from(position).min(end - 1) };
            self.shown = self.shown.max(shown);
        }
    }

    fn purge(&mut self, upto: EntryId) {
        let memberships = self.entries.iter().filter(|e| e.kind == EntryKind::Membership);
        let last = memberships.filter(|e| e.id.index <= upto.index).map(|e| e.id).last();
        self.boundary_membership = last.or(self.boundary_membership);
        self.entries.retain(|entry| entry.id.index > upto.index);
        self.boundary = Some(upto);
        self.shown = self.shown.max(upto.index + 1);
    }

    fn visible(&self) -> Vec<u64> {
        let end = self.shown.clamp(self.begin(), self.end());
        let whole = |entry: &&Entry| {
            let Batch { position, count } = entry.batch;
            let last = entry.id.index + u64::from(count - 1 - position);
            last < end && self.get(last).id.term == entry.id.term
        };
        let records = self.entries.iter().filter(|e| e.kind == EntryKind::Record);
        records.filter(|e| e.id.index < end).filter(whole).map(|e| e.id.index).collect()
    }

    fn check(&self, log: &Log) -> Result<(), TestCaseError> {
        let read = log.read(self.begin(), u64::MAX, usize::MAX, true).expect("read");
        prop_assert_eq!(&read, &self.entries);
        prop_assert_eq!(log.purged(), self.boundary);
        prop_assert_eq!(log.last_id(), self.entries.last().map(|e| e.id).or(self.boundary));
        prop_assert_eq!(log.committed(), self.committed);
        prop_assert_eq!(log.vote(), self.vote);
        let shown = self.shown.clamp(self.begin(), self.end());
        prop_assert_eq!(log.watermarks(), Watermarks::new(self.begin(), shown, self.end()));
        let below: Vec<Entry> = read.into_iter().filter(|e| e.id.index < shown).collect();
        let visible = log.visible(below).expect("visible");
        let visible: Vec<u64> = visible.iter().map(|entry| entry.id.index).collect();
        prop_assert_eq!(visible, self.visible());
        for index in self.begin()..self.end() {
            let held = self.entries.iter().filter(|e| e.kind == EntryKind::Membership);
            let held = held.filter(|e| e.id.index <= index).map(|e| e.id).last();
            let expected = held.or(self.boundary_membership);
            prop_assert_eq!(log.membership_at(index).map(|m| m.id), expected);
        }
        Ok(())
    }

    fn expect_read(&self, range: Range<u64>, max_bytes: usize) -> Vec<Entry> {
        let mut left = max_bytes;
        let mut expected = Vec::new();
        for index in range.start..range.end.min(self.end()) {
            let entry = self.get(index);
            if entry.encoded_len() > left && !expected.is_empty() {
                break;
            }
            left = left.saturating_sub(entry.encoded_len());
            expected.push(entry.clone());
        }
        expected
    }
}

/// The log, its disk, and what it must hold.
struct World {
    driven: Driven,
    model: Model,
    options: LogOptions,
}

impl World {
    fn new() -> Self {
        let options = LogOptions { segment_size: 8 << 10, tail_cache_max: 2500, ..options() };
        let driven = Driven::open(&SimDisk::new(), &options).expect("open");
        Self { driven, model: Model::default(), options }
    }

    fn append(&mut self, entries: Vec<Entry>) {
        self.driven.append(entries.clone()).expect("called").expect("appended");
        self.model.entries.extend(entries);
    }

    fn run(&mut self, call: impl AsyncFnOnce(Log) -> Done) {
        let log = self.driven.log.clone();
        self.driven.run(call(log)).expect("finished").expect("done");
    }

    fn reopen(&mut self, disk: &SimDisk) {
        self.driven = Driven::open(disk, &self.options).expect("open");
        // The newest commits may not have been written yet, but none may be invented.
        let committed = self.driven.log.committed();
        assert!(committed <= self.model.committed);
        if let Some(id) = self.model.committed {
            self.driven.log.set_committed(id).expect("readable");
        }
    }

    fn truncate(&mut self, count: u64) {
        let model = &self.model;
        let keep = model.end().saturating_sub(count).max(model.committed_end());
        let last = keep.checked_sub(1).map(|index| match model.boundary {
            Some(boundary) if index == boundary.index => boundary,
            _ => model.get(index).id,
        });
        self.run(async move |log| log.truncate_after(last).await);
        self.model.entries.truncate((keep - self.model.begin()) as usize);
        self.model.term += 1;
    }

    fn step(&mut self, op: &Op) -> Result<(), TestCaseError> {
        let (begin, end) = (self.model.begin(), self.model.end());
        let committed = self.model.committed_end();
        match *op {
            Op::Append { count, len, new_term } => {
                self.model.term += u64::from(new_term);
                self.append(records(self.model.term, end..end + count, len));
            }
            Op::Membership => self.append(vec![membership(self.model.term, end)]),
            Op::Batch { count, sent } => {
                let term = self.model.term;
                let record = |position: u32| {
                    let batch = Batch { position, count };
                    record_in(term, end + u64::from(position), 40, batch)
                };
                self.append((0..sent).map(record).collect());
                // A leader that sent only a part is gone.
                self.model.term += u64::from(sent < count);
            }
            Op::Truncate(count) => self.truncate(count),
            Op::Commit(count) => {
                let to = (committed + count).min(end);
                self.model.commit(to);
                if let Some(id) = self.model.committed {
                    self.driven.log.set_committed(id).expect("readable");
                }
            }
            Op::Purge(count) if committed > begin => {
                let upto = self.model.get((begin + count - 1).min(committed - 1)).id;
                self.run(async move |log| log.purge(upto).await);
                self.model.purge(upto);
            }
            Op::Purge(_) => {}
            Op::Install(ahead) => {
                self.model.term += 1;
                let upto = id(self.model.term, end + ahead);
                let stored = StoredMembership { id: id(0, end), payload: Bytes::from_static(b"m") };
                let membership = Some(stored.clone());
                self.run(async move |log| log.install(upto, membership).await);
                self.model.purge(upto);
                self.model.boundary_membership = Some(stored.id);
                self.model.committed = Some(upto);
            }
            Op::Vote => {
                self.model.term += 1;
                let vote = Vote { term: self.model.term, voted_for: replica(1), committed: false };
                self.run(async move |log| log.save_vote(vote).await);
                self.model.vote = Some(vote);
            }
            Op::Idle => self.driven.pass(Duration::from_millis(20)),
            Op::Reopen => {
                self.driven.close().expect("finished").expect("closed");
                let disk = self.driven.disk.clone();
                self.reopen(&disk);
            }
            Op::Crash(seed) => {
                let keeps = [CrashPolicy::LoseAll, CrashPolicy::KeepAll, CrashPolicy::Random(seed)];
                let disk = self.driven.disk.crash(&keeps[(seed % 3) as usize]);
                self.reopen(&disk);
            }
            Op::Read { from, len, max_bytes } => {
                let from = begin + from.min(end - begin);
                let read = self.driven.log.read(from, from + len, max_bytes, true).expect("read");
                prop_assert_eq!(read, self.model.expect_read(from..from + len, max_bytes));
            }
        }
        self.model.check(&self.driven.log)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_agrees_with_the_model(ops in ops()) {
        let mut world = World::new();
        for op in ops {
            world.step(&op)?;
        }
    }
}
