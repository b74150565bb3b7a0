//! A state machine whose state tells which records it was built from, and in which order.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use quorumlog::{ApplyError, NodeId, Record, StateMachine};

/// What one node's state machine has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// Records applied, those of a checkpoint included.
    pub(crate) count: u64,
    /// Depends on the index, the bytes and the order of all of them.
    pub(crate) digest: u64,
}

/// State of one node's machine, and how it came to be.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) tally: Tally,
    /// Records applied since the node was opened.
    pub(crate) replayed: u64,
    /// Checkpoints restored since the node was opened.
    pub(crate) restored: u64,
}

/// The machines of all nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tallies(Arc<Mutex<HashMap<NodeId, Seen>>>);

impl Tallies {
    /// A new machine for a node that opens.
    pub(crate) fn machine(&self, node: NodeId) -> Box<dyn StateMachine> {
        self.all().insert(node, Seen::default());
        Box::new(Machine { node, tallies: self.clone(), tally: Tally::default() })
    }

    pub(crate) fn of(&self, node: NodeId) -> Seen {
        self.all().get(&node).copied().unwrap_or_default()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<NodeId, Seen>> {
        self.0.lock().expect("no panic under this lock")
    }
}

struct Machine {
    node: NodeId,
    tallies: Tallies,
    tally: Tally,
}

impl StateMachine for Machine {
    /// Answers with the number of records so far.
    fn apply(&mut self, record: &Record) -> Result<Bytes, ApplyError> {
        let mut digest = self.tally.digest ^ record.index;
        for byte in record.payload.iter() {
            digest = (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
        self.tally = Tally { count: self.tally.count + 1, digest };
        let mut all = self.tallies.all();
        let seen = all.entry(self.node).or_default();
        seen.tally = self.tally;
        seen.replayed += 1;
        Ok(Bytes::from(self.tally.count.to_string()))
    }

    fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} {}", self.tally.count, self.tally.digest)
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut text = String::new();
        from.read_to_string(&mut text)?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let (Some(Ok(count)), Some(Ok(digest)), None) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(io::Error::other(format!("{text:?} is no checkpoint")));
        };
        self.tally = Tally { count, digest };
        let mut all = self.tallies.all();
        let seen = all.entry(self.node).or_default();
        seen.tally = self.tally;
        seen.restored += 1;
        Ok(())
    }
}
