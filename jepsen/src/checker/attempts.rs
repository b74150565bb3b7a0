//! Who tried to append what.

use super::NEVER;
use crate::history::{History, Operation, Outcome};

/// One value that somebody tried to append.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) value: u64,
    /// Which operation of the history.
    pub(super) operation: usize,
    /// Its place in its batch, from 0.
    pub(super) position: u64,
}

/// All attempts, by value.
pub(super) struct Attempts<'a> {
    pub(super) operations: &'a [Operation],
    sorted: Vec<Attempt>,
}

impl<'a> Attempts<'a> {
    /// All that was tried; or a value that was not its attempt's own.
    pub(super) fn new(history: &'a History) -> Result<Self, String> {
        let operations = history.operations.as_slice();
        let of = |(operation, op): (usize, &'a Operation)| {
            let values = op.action.values().iter().zip(0..);
            values.map(move |(&value, position)| Attempt { value, operation, position })
        };
        let mut sorted: Vec<_> = operations.iter().enumerate().flat_map(of).collect();
        sorted.sort_unstable_by_key(|attempt| (attempt.value, attempt.operation));
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].value == pair[1].value) {
            let (first, second) = (&operations[pair[0].operation], &operations[pair[1].operation]);
            return Err(format!("a value is not its attempt's own: {first:?}, {second:?}"));
        }
        Ok(Self { operations, sorted })
    }

    pub(super) fn of(&self, value: u64) -> Option<Attempt> {
        let found = self.sorted.binary_search_by_key(&value, |attempt| attempt.value);
        found.ok().and_then(|at| self.sorted.get(at)).copied()
    }

    pub(super) fn operation(&self, attempt: Attempt) -> &'a Operation {
        &self.operations[attempt.operation]
    }
}

impl Operation {
    /// When its effect was certain to be there: never, unless it is ok.
    pub(super) fn done(&self) -> u64 {
        self.ret.filter(|_| self.outcome == Outcome::Ok).unwrap_or(NEVER)
    }
}
