//! What the log held in the end, as far as readers could see it.

use std::collections::BTreeMap;
use std::ops::Range;

use super::attempts::{Attempt, Attempts};
use super::losses::Losses;
use crate::cluster::{Entry, EntryKind, Replica};
use crate::history::{Action, History, Outcome};
use crate::report::{Anomaly, Violations};

/// The log's records, in the order of their indexes.
pub(super) struct Truth {
    /// Index and value: what was there in the end, and before it what was seen first.
    pub(super) records: Vec<(u64, u64)>,
    /// Value and index of the same, by value.
    pub(super) positions: Vec<(u64, u64)>,
    /// What was there in the end. What lies below was trimmed.
    pub(super) held: Range<u64>,
    /// Below this, retention was allowed to trim.
    pub(super) trimmable: u64,
    pub(super) losses: Losses,
}

/// One account of what was there in the end.
struct Source {
    name: String,
    time: u64,
    range: Range<u64>,
    records: Vec<(u64, u64)>,
}

impl Truth {
    /// Puts together what the final reads and the replicas say, and reports where they contradict each other.
    ///
    /// The one that reaches farthest counts, and the others must agree with it where they overlap.
    pub(super) fn new(
        history: &History,
        attempts: &Attempts<'_>,
        violations: &mut Violations,
    ) -> Result<Self, String> {
        let mut sources = sources(history, attempts, violations);
        sources.sort_by_key(|source| source.range.end);
        let Some(last) = sources.pop() else {
            return Err("nothing says what the log held in the end".to_owned());
        };
        let first_time = sources.iter().map(|source| source.time).min().unwrap_or(last.time);
        in_time(history, first_time.min(last.time))?;
        let (mut records, mut held) = (last.records, last.range);
        // The one that begins first is taken next, so that it fills in what the last no longer holds.
        sources.sort_by_key(|source| source.range.start);
        let mut claims = Vec::new();
        for source in &sources {
            let overlap = source.range.start.max(held.start)..source.range.end.min(held.end);
            compare(source, &last.name, slice(&records, &overlap), &overlap, violations);
            let older = source.range.start..source.range.end.min(held.start);
            if source.range.end >= held.start && !older.is_empty() {
                records = [slice(&source.records, &older), &records].concat();
                held.start = older.start;
            } else {
                claims.extend_from_slice(slice(&source.records, &older));
            }
        }
        let trimmable = history.trims.iter().map(|trim| trim.before).max().unwrap_or(0);
        let losses = Losses::new(history).with_whole_batches(history, attempts);
        let mut truth = Self { records, positions: Vec::new(), held, trimmable, losses };
        truth.add_trimmed(history, claims, violations);
        truth.sort_positions(violations);
        Ok(truth)
    }

    /// Adds what was said about the indexes that nobody holds any more.
    fn add_trimmed(
        &mut self,
        history: &History,
        mut claims: Vec<(u64, u64)>,
        violations: &mut Violations,
    ) {
        let start = self.held.start;
        let trimmed = |record: &&(u64, u64)| record.0 < start;
        for op in history.operations.iter().filter(|op| op.outcome == Outcome::Ok) {
            match &op.action {
                Action::Read { records, .. } | Action::Deliver { records, .. } => {
                    claims.extend(records.iter().filter(trimmed));
                }
                action => {
                    let Some((index, _)) = action.acknowledged() else { continue };
                    let placed = (index..).zip(action.values().iter().copied());
                    claims.extend(placed.take_while(|record| record.0 < start));
                }
            }
        }
        // Of what was lost and trimmed nobody can tell which came first.
        let first_lost = self.losses.first().unwrap_or(u64::MAX);
        claims.retain(|claim| claim.0 < first_lost);
        // Stable: of several values the one that was seen first counts.
        claims.sort_by_key(|claim| claim.0);
        let mut older: Vec<(u64, u64)> = Vec::new();
        for (index, value) in claims {
            match older.last() {
                Some(&(before, seen)) if before == index => {
                    if seen != value {
                        let detail = || format!("both {seen} and {value} were seen");
                        violations.add(Anomaly::InconsistentOffsets, Some(index), detail);
                    }
                }
                _ => older.push((index, value)),
            }
        }
        older.append(&mut self.records);
        self.records = older;
    }

    fn sort_positions(&mut self, violations: &mut Violations) {
        self.positions = self.records.iter().map(|&(index, value)| (value, index)).collect();
        self.positions.sort_unstable();
        for pair in self.positions.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let (value, first) = pair[0];
            let detail = || format!("{value} lies at {first} already");
            violations.add(Anomaly::Duplicate, Some(pair[1].1), detail);
        }
    }

    /// The value at an index.
    pub(super) fn at(&self, index: u64) -> Option<u64> {
        let found = self.records.binary_search_by_key(&index, |record| record.0);
        found.ok().map(|at| self.records[at].1)
    }

    /// The first index of a value.
    pub(super) fn position(&self, value: u64) -> Option<u64> {
        let at = self.positions.partition_point(|position| position.0 < value);
        self.positions.get(at).filter(|position| position.0 == value).map(|position| position.1)
    }
}

/// The records of `records` that lie in `range`.
pub(super) fn slice<'a>(records: &'a [(u64, u64)], range: &Range<u64>) -> &'a [(u64, u64)] {
    let start = records.partition_point(|record| record.0 < range.start);
    let end = records.partition_point(|record| record.0 < range.end);
    &records[start..end.max(start)]
}

/// What everybody saw, and what the log held when all was over, are not the same if somebody went on.
fn in_time(history: &History, end: u64) -> Result<(), String> {
    for op in history.operations.iter().filter(|op| op.outcome == Outcome::Ok) {
        let is_final = matches!(op.action, Action::FinalRead { .. });
        if !is_final && op.ret.is_some_and(|ret| ret > end) {
            return Err(format!("it ended after the end of the log was taken: {op:?}"));
        }
    }
    Ok(())
}

fn sources(history: &History, attempts: &Attempts<'_>, violations: &mut Violations) -> Vec<Source> {
    let mut sources = Vec::new();
    for op in history.operations.iter().filter(|op| op.outcome == Outcome::Ok) {
        let Action::FinalRead { from, to, records } = &op.action else { continue };
        for pair in records.windows(2).filter(|pair| pair[0].0 >= pair[1].0) {
            let detail = || format!("the final read gave it after {}", pair[0].0);
            violations.add(Anomaly::NonmonotonicPoll, Some(pair[1].0), detail);
        }
        let records = records.clone();
        let name = format!("process {}'s final read", op.process);
        sources.push(Source { name, time: op.call, range: *from..(*to).max(*from), records });
    }
    for replica in &history.replicas {
        let records = visible(replica, attempts, violations);
        let range = replica.begin..replica.committed.max(replica.begin);
        let name = format!("node {}", replica.node);
        sources.push(Source { name, time: replica.time, range, records });
    }
    for source in &mut sources {
        source.clean(violations);
    }
    sources
}

impl Source {
    /// Keeps one record for each index of the range.
    fn clean(&mut self, violations: &mut Violations) {
        let Self { name, range, records, .. } = self;
        records.sort_unstable();
        records.retain(|&(index, value)| {
            let inside = range.contains(&index);
            if !inside {
                let detail = || format!("{name} gave {value} outside of {range:?}");
                violations.add(Anomaly::PrecommittedRead, Some(index), detail);
            }
            inside
        });
        records.dedup_by(|next, kept| {
            if next.0 == kept.0 && next.1 != kept.1 {
                let detail = || format!("{name} gave both {} and {}", kept.1, next.1);
                violations.add(Anomaly::InconsistentOffsets, Some(kept.0), detail);
            }
            next.0 == kept.0
        });
    }
}

/// Index and value of the committed records of a replica, without those of batches that a dead leader left broken:
/// a first part in a row, which readers never see.
fn visible(
    replica: &Replica,
    attempts: &Attempts<'_>,
    violations: &mut Violations,
) -> Vec<(u64, u64)> {
    let of_batch = |entry: &Entry| {
        let attempt = attempts.of(entry.value).filter(|_| entry.kind == EntryKind::Record)?;
        (attempts.operation(attempt).action.values().len() > 1).then_some(attempt)
    };
    let committed = |entry: &&Entry| entry.index < replica.committed;
    let mut visible = Vec::new();
    let mut batches: BTreeMap<usize, Vec<(Attempt, Entry)>> = BTreeMap::new();
    for entry in replica.entries.iter().filter(committed) {
        match of_batch(entry) {
            Some(part) => batches.entry(part.operation).or_default().push((part, *entry)),
            None if entry.kind == EntryKind::Record => visible.push((entry.index, entry.value)),
            None => {}
        }
    }
    for (operation, parts) in batches {
        let count = attempts.operations[operation].action.values().len() as u64;
        let (first, entry) = parts[0];
        let in_row = parts.iter().zip(0..).all(|((part, held), place)| {
            part.position == first.position + place
                && held.index == entry.index + place
                && held.term == entry.term
        });
        let from_start = first.position == 0 || entry.index == replica.begin;
        if !(in_row && from_start) {
            let detail = || format!("node {} holds parts of the batch at {parts:?}", replica.node);
            violations.add(Anomaly::TornBatch, Some(entry.index), detail);
        }
        let whole = first.position + parts.len() as u64 == count;
        if whole || !in_row {
            visible.extend(parts.iter().map(|(_, entry)| (entry.index, entry.value)));
        }
    }
    visible
}

/// Reports where `source` and what is known already differ within `range`, which both hold.
fn compare(
    source: &Source,
    other: &str,
    known: &[(u64, u64)],
    range: &Range<u64>,
    violations: &mut Violations,
) {
    let mut report = |index, here: Option<u64>, there: Option<u64>| {
        let text = |value: Option<u64>| value.map_or("nothing".to_owned(), |v| v.to_string());
        let (here, there) = (text(here), text(there));
        let detail = || format!("{} has {here}, and {other} has {there}", source.name);
        violations.add(Anomaly::InconsistentOffsets, Some(index), detail);
    };
    let (mut here, mut there) = (slice(&source.records, range), known);
    while let Some(index) = here.iter().take(1).chain(there.first()).map(|record| record.0).min() {
        let values = (take(&mut here, index), take(&mut there, index));
        if values.0 != values.1 {
            report(index, values.0, values.1);
        }
    }
}

/// Takes the first record's value if it lies at `index`.
fn take(records: &mut &[(u64, u64)], index: u64) -> Option<u64> {
    let (&(at, value), rest) = records.split_first()?;
    (at == index).then(|| {
        *records = rest;
        value
    })
}
