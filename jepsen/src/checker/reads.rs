//! C6: readers saw what the log holds: nothing else, nothing less, and in its order.

use std::collections::BTreeMap;
use std::ops::Range;

use super::truth::{Truth, slice};
use crate::history::{Action, History, Operation, Outcome};
use crate::report::{Anomaly, Violations};

/// Where a subscription began, and which index it has to give next.
struct Position {
    start: u64,
    next: u64,
    /// It was given something that was lost.
    saw_lost: bool,
}

/// How many records readers were given, or why that cannot be judged.
pub(super) fn check(
    history: &History,
    truth: &Truth,
    violations: &mut Violations,
) -> Result<u64, String> {
    let mut subscriptions: BTreeMap<u64, Position> = BTreeMap::new();
    let mut examined = 0;
    for op in history.operations.iter().filter(|op| op.outcome == Outcome::Ok) {
        match &op.action {
            Action::Read { from, to, records, bound } => {
                examined += records.len() as u64;
                let range = *from..(*to).max(*from);
                beyond(op, bound.unwrap_or(0).max(*to), truth, violations);
                Given { op, range, records, saw_lost: false }.check(truth, violations);
            }
            Action::Tail { bound } => beyond(op, bound.unwrap_or(0), truth, violations),
            Action::Deliver { subscription, start, records } => {
                examined += records.len() as u64;
                let position = subscriptions.entry(*subscription);
                let position =
                    position.or_insert(Position { start: *start, next: *start, saw_lost: false });
                if position.start != *start {
                    return Err(format!("the subscription started twice: {op:?}"));
                }
                let Some(end) = records.iter().map(|record| record.0.saturating_add(1)).max()
                else {
                    continue;
                };
                let range = position.next..end.max(position.next);
                beyond(op, end, truth, violations);
                let given = Given { op, range, records, saw_lost: position.saw_lost };
                position.saw_lost = given.check(truth, violations);
                position.next = end.max(position.next);
            }
            _ => {}
        }
    }
    Ok(examined)
}

/// What was said to be committed is still there in the end.
fn beyond(op: &Operation, to: u64, truth: &Truth, violations: &mut Violations) {
    if to > truth.held.end && !truth.losses.may_have_read(op, to - 1) {
        let detail = || format!("the log ends at {}: {op:?}", truth.held.end);
        violations.add(Anomaly::PrecommittedRead, Some(to), detail);
    }
}

/// What a reader was given for a range of indexes.
struct Given<'a> {
    op: &'a Operation,
    range: Range<u64>,
    records: &'a [(u64, u64)],
    /// The reader was given something that was lost.
    saw_lost: bool,
}

impl Given<'_> {
    /// True if the reader has been given something that was lost.
    fn check(&self, truth: &Truth, violations: &mut Violations) -> bool {
        let Self { op, range, records, .. } = self;
        let process = op.process;
        for pair in records.windows(2).filter(|pair| pair[0].0 >= pair[1].0) {
            let detail = || format!("process {process} was given it after {}", pair[0].0);
            violations.add(Anomaly::NonmonotonicPoll, Some(pair[1].0), detail);
        }
        let mut sorted;
        let mut given = *records;
        if !records.is_sorted() {
            sorted = records.to_vec();
            sorted.sort_unstable();
            given = &sorted;
        }
        for &(index, _) in given.iter().take_while(|record| record.0 < range.start) {
            let start = range.start;
            let detail = || format!("process {process} was given it behind {start}");
            violations.add(Anomaly::NonmonotonicPoll, Some(index), detail);
        }
        for &(index, value) in given.iter().rev().take_while(|record| record.0 >= range.end) {
            let end = range.end;
            let detail = || format!("{value}, and committed was {end}: {op:?}");
            violations.add(Anomaly::PrecommittedRead, Some(index), detail);
        }
        // Of what was lost and trimmed nobody can tell what it was in the end.
        let unknown = truth.losses.first().map_or(0..0, |first| first..truth.held.start);
        let known: Vec<_> = slice(given, range)
            .iter()
            .filter(|record| !unknown.contains(&record.0))
            .copied()
            .collect();
        self.walk(&known, truth, violations)
    }

    /// Goes through what was given, and through what the log holds.
    fn walk(&self, mut given: &[(u64, u64)], truth: &Truth, violations: &mut Violations) -> bool {
        let process = self.op.process;
        let mut saw_lost = self.saw_lost;
        // Once the reader was given what was lost, nothing of the history in force can follow unless it is told.
        let mut held = slice(&truth.records, &self.range);
        loop {
            match (given.first(), held.first()) {
                (Some(&(index, value)), Some(&(at, known))) if index == at => {
                    if value == known {
                        if saw_lost {
                            let detail = || format!("process {process} was given {value}");
                            violations.add(Anomaly::CrossedLoss, Some(index), detail);
                        }
                    } else if self.is_of_another_history(index, truth) {
                        saw_lost = true;
                    } else {
                        let detail = || format!("process {process} was given {value} for {known}");
                        violations.add(Anomaly::InconsistentOffsets, Some(index), detail);
                    }
                    held = &held[1..];
                    // The same index again is out of order, and was reported.
                    given = &given[1..];
                    while given.first().is_some_and(|record| record.0 == index) {
                        given = &given[1..];
                    }
                }
                (Some(&(index, value)), next) if next.is_none_or(|next| index < next.0) => {
                    if self.is_of_another_history(index, truth) {
                        saw_lost = true;
                    } else {
                        let detail = || format!("process {process} was given {value}");
                        violations.add(Anomaly::PrecommittedRead, Some(index), detail);
                    }
                    given = &given[1..];
                }
                (next, Some(&(at, value))) => {
                    // Not one by one: a read may have been given nothing of a long log.
                    let skipped = next.map_or(held.len(), |next| {
                        held.partition_point(|record| record.0 < next.0)
                    });
                    if self.is_of_another_history(at, truth) {
                        saw_lost = true;
                    } else {
                        let detail = || {
                            let more = skipped - 1;
                            format!("process {process} was not given {value}, nor {more} more")
                        };
                        violations.add(Anomaly::PollSkip, Some(at), detail);
                    }
                    held = &held[skipped..];
                }
                (_, None) => return saw_lost,
            }
        }
    }

    /// True if the reader may have seen something else here than is there in the end.
    fn is_of_another_history(&self, index: u64, truth: &Truth) -> bool {
        truth.losses.may_have_read(self.op, index)
    }
}
