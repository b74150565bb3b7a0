//! What asynchronous flush may lose when too many voters lose their pages at once, and what readers may have seen of it.
//!
//! A [`Loss`] says when that was and which records no majority had flushed by then. Only appends that were called before
//! can be gone: what is written on a node after its cut is there until the next one. Reads that tell what is only
//! local may still be of the lost history afterwards, on a node that has not heard of the new one. A read barrier may
//! not once enough voters are trusted again.

use std::collections::BTreeSet;

use super::attempts::Attempts;
use crate::cluster::Loss;
use crate::history::{Action, History, Operation, Outcome};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Losses {
    losses: Vec<Loss>,
    /// Values that are never lost.
    flushed: BTreeSet<u64>,
}

impl Losses {
    pub(super) fn new(history: &History) -> Self {
        let flushed = history.flushed.iter().copied().collect();
        Self { losses: history.losses.clone(), flushed }
    }

    /// A batch that lost its end is gone as a whole, for those who read. Its begin may be trimmed since, and only readers
    /// have seen it.
    pub(super) fn with_whole_batches(mut self, history: &History, attempts: &Attempts<'_>) -> Self {
        let held = history.replicas.iter().flat_map(|replica| &replica.entries);
        let held = held.map(|entry| (entry.index, entry.value));
        let seen = history.operations.iter().filter(|op| op.outcome == Outcome::Ok).flat_map(given);
        let mut begins = vec![u64::MAX; self.losses.len()];
        for (index, value) in held.chain(seen) {
            let Some(part) = attempts.of(value) else { continue };
            let count = attempts.operation(part).action.values().len() as u64;
            let Some(begin) = index.checked_sub(part.position) else { continue };
            for (loss, lowest) in self.losses.iter().zip(&mut begins) {
                if (begin + 1..begin + count).contains(&loss.from) && index < loss.from {
                    *lowest = begin.min(*lowest);
                }
            }
        }
        for (loss, begin) in self.losses.iter_mut().zip(begins) {
            loss.from = loss.from.min(begin);
        }
        self
    }

    /// True if an acknowledged append at `index` may be gone.
    pub(super) fn may_lose(&self, op: &Operation, index: u64) -> bool {
        let acked = op.ret.unwrap_or(u64::MAX);
        // Of a batch the last record counts.
        let end = index + op.action.values().len() as u64;
        let lost = |loss: &Loss| end > loss.from && op.call <= loss.time && acked >= loss.since;
        let flushed = op.action.values().iter().any(|value| self.flushed.contains(value));
        !flushed && self.losses.iter().any(lost)
    }

    /// True if a reader may have seen something else at `index` than is there in the end.
    pub(super) fn may_have_read(&self, op: &Operation, index: u64) -> bool {
        let is_barrier =
            matches!(op.action, Action::Read { bound: Some(_), .. } | Action::Tail { .. });
        self.losses.iter().any(|loss| index >= loss.from && (!is_barrier || before_end(op, loss)))
    }

    /// True if a read that is over may have seen more than what comes before `place`, which was called later and was over
    /// at `ret`: it may have seen what was lost.
    pub(super) fn may_have_seen_more(
        &self,
        (call, is_barrier): (u64, bool),
        (place, ret): (u64, u64),
    ) -> bool {
        let ended = |loss: &Loss| loss.until.is_some_and(|until| call >= until);
        let seen =
            |loss: &Loss| place >= loss.from && ret >= loss.time && !(is_barrier && ended(loss));
        self.losses.iter().any(seen)
    }

    /// The lowest index at which there was more than one history; none if nothing may be lost.
    pub(super) fn first(&self) -> Option<u64> {
        self.losses.iter().map(|loss| loss.from).min()
    }

    /// True if what a node had committed or applied may go back at `time`.
    pub(super) fn may_rewind(&self, time: u64) -> bool {
        self.losses.iter().any(|loss| loss.time <= time)
    }
}

fn before_end(op: &Operation, loss: &Loss) -> bool {
    loss.until.is_none_or(|until| op.call < until)
}

/// The records that an operation gave or was told the place of, by index.
fn given(op: &Operation) -> Vec<(u64, u64)> {
    match &op.action {
        Action::Read { records, .. } | Action::Deliver { records, .. } => records.clone(),
        action => {
            let first = action.acknowledged().map(|(index, _)| index);
            first
                .into_iter()
                .flat_map(|index| (index..).zip(action.values().iter().copied()))
                .collect()
        }
    }
}
