//! A state machine that hashes its records, so that the states of nodes can be compared.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorumlog::{ApplyError, Record, StateMachine};

use crate::value_of;

/// A state: depends on the index, the bytes and the order of all records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) records: u64,
    pub(crate) last: u64,
    pub(crate) digest: u64,
}

impl State {
    fn apply(&mut self, record: &Record) {
        let digest = self.digest.rotate_left(7) ^ record.index ^ value_of(&record.payload);
        self.digest = digest.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.records += 1;
        self.last = record.index;
    }
}

/// What the machine of a node has come to, and how.
#[derive(Debug, Clone, Default)]
struct Life {
    state: State,
    /// Indexes of the records that it was given one by one.
    applied: Vec<u64>,
    /// Those below are in the state that it was given as a whole.
    from: u64,
}

/// The machine of every node.
#[derive(Debug, Clone, Default)]
pub(crate) struct States(Arc<Mutex<BTreeMap<u64, Life>>>);

impl States {
    /// The machine of a node that opens.
    pub(crate) fn machine(&self, node: u64) -> Box<dyn StateMachine> {
        self.all().insert(node, Life::default());
        Box::new(Machine { node, states: self.clone(), state: State::default() })
    }

    /// What a node's machine has come to.
    pub(crate) fn of(&self, node: u64) -> State {
        self.all().get(&node).map(|life| life.state).unwrap_or_default()
    }

    /// Compares what a node's machine was given with `read`, the indexes of all records in `range` that readers get.
    pub(crate) fn compare(&self, node: u64, range: Range<u64>, read: &[u64]) -> Result<(), String> {
        let all = self.all();
        let Some(Life { applied, from, .. }) = all.get(&node) else { return Ok(()) };
        let both = range.start.max(*from)..range.end;
        let only = |indexes: &[u64], others: &[u64]| -> Vec<u64> {
            let inside = indexes.iter().copied().filter(|index| both.contains(index));
            inside.filter(|index| others.binary_search(index).is_err()).take(10).collect()
        };
        let (unread, unapplied) = (only(applied, read), only(read, applied));
        if unread.is_empty() && unapplied.is_empty() {
            return Ok(());
        }
        Err(format!(
            "it was given {unread:?} that nobody can read, and was not given {unapplied:?}"
        ))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Life>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Machine {
    node: u64,
    states: States,
    state: State,
}

impl StateMachine for Machine {
    fn apply(&mut self, record: &Record) -> Result<Bytes, ApplyError> {
        self.state.apply(record);
        let mut all = self.states.all();
        let life = all.entry(self.node).or_default();
        life.state = self.state;
        life.applied.push(record.index);
        Ok(Bytes::copy_from_slice(&self.state.digest.to_le_bytes()))
    }

    fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()> {
        let State { records, last, digest } = self.state;
        for number in [records, last, digest] {
            out.write_all(&number.to_le_bytes())?;
        }
        Ok(())
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut numbers = [0; 3];
        for number in &mut numbers {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes)?;
            *number = u64::from_le_bytes(bytes);
        }
        let [records, last, digest] = numbers;
        self.state = State { records, last, digest };
        let from = if records == 0 { 0 } else { last + 1 };
        let life = Life { state: self.state, applied: Vec::new(), from };
        self.states.all().insert(self.node, life);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64, payload: &'static [u8]) -> Record {
        Record::new(index, 1, Bytes::from_static(payload))
    }

    #[test]
    fn what_a_machine_was_given_is_what_readers_get() {
        let states = States::default();
        let mut machine = states.machine(1);
        let _ = machine.apply(&record(1, b"a"));
        let _ = machine.apply(&record(4, b"b"));
        let mut saved = Vec::new();
        machine.checkpoint(&mut saved).expect("a vector takes all");
        let _ = machine.apply(&record(6, b"c"));
        assert_eq!(states.compare(1, 0..7, &[1, 4, 6]), Ok(()));
        assert_eq!(states.compare(1, 2..6, &[4]), Ok(()));
        let error = states.compare(1, 0..7, &[1, 5, 6]).expect_err("4 and 5 differ");
        assert!(error.contains("given [4] that") && error.ends_with("given [5]"), "{error}");
        machine.restore(&mut saved.as_slice()).expect("it was just written");
        let _ = machine.apply(&record(6, b"c"));
        assert_eq!(states.compare(1, 0..7, &[6]), Ok(()), "the others came with the state");
    }

    #[test]
    fn states_differ_with_records_and_their_order_and_survive_a_checkpoint() {
        let states = States::default();
        let mut one = states.machine(1);
        let _ = one.apply(&record(1, b"a"));
        let _ = one.apply(&record(2, b"b"));
        let mut other = states.machine(2);
        let _ = other.apply(&record(1, b"b"));
        let _ = other.apply(&record(2, b"a"));
        assert_ne!(states.of(1), states.of(2));
        let mut saved = Vec::new();
        one.checkpoint(&mut saved).expect("a vector takes all");
        other.restore(&mut saved.as_slice()).expect("it was just written");
        assert_eq!(states.of(1), states.of(2));
    }
}
