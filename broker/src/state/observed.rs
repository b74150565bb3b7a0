//! A log's state machine under observation: a simulation is told what each record came to and which state it left, and
//! compares that between nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use quorumlog::{ApplyError, FlushFiles, LogName, Record, StateMachine, codec};
use serde::Serialize;

use super::State;
use super::command::Payload;
use super::machine::{Shared, decode};
use super::queue::Queue;
use super::topics::Topic;

/// What a node applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedRecord {
    /// The record's index.
    pub index: u64,
    /// Hash of its bytes.
    pub record: u64,
    /// Hash of what it came to.
    pub answer: u64,
    /// Delayed messages that a delivery passed over, since the leader's log did not hold them any more.
    pub passed_over: u64,
    /// Hashes of the parts of the state after it, by their names; empty if nobody asked for them.
    pub state: Vec<(&'static str, u64)>,
}

/// Gets a log's name and what was applied.
type Told = dyn Fn(&str, AppliedRecord) + Send + Sync;

/// Is told of each record that a broker's log is given.
#[derive(Clone)]
pub struct Observer {
    every: u64,
    told: Arc<Told>,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Observer {
    /// `told` gets the log's name and what was applied. The state is hashed at indexes that `every` divides, which is not 0.
    pub fn new(every: u64, told: impl Fn(&str, AppliedRecord) + Send + Sync + 'static) -> Self {
        Self { every, told: Arc::new(told) }
    }

    /// `machine` under observation; `shared` is its state.
    pub(super) fn observe(
        &self,
        log: &LogName,
        machine: Box<dyn StateMachine>,
        shared: Arc<Shared>,
    ) -> Box<dyn StateMachine> {
        Box::new(Observed { observer: self.clone(), log: log.clone(), machine, shared, index: 0 })
    }
}

struct Observed {
    observer: Observer,
    log: LogName,
    machine: Box<dyn StateMachine>,
    shared: Arc<Shared>,
    /// Of the record that was applied last.
    index: u64,
}

impl StateMachine for Observed {
    fn apply(&mut self, record: &Record) -> Result<Bytes, ApplyError> {
        let before = match Payload::decode(record.payload.clone()) {
            Ok(Payload::Deliveries(all)) => {
                Some((all.level, all.offset, self.shared.state().delivered(all.level)))
            }
            _ => None,
        };
        let answer = self.machine.apply(record)?;
        let passed_over = before.map_or(0, |(level, offset, delivered)| {
            let is_done = self.shared.state().delivered(level) > delivered;
            if is_done { offset.saturating_sub(delivered) } else { 0 }
        });
        let index = record.index;
        self.index = index;
        let state = match index.is_multiple_of(self.observer.every) {
            true => parts(&self.shared.state(), index),
            false => Vec::new(),
        };
        let (record, answer_hash) = (hash(&record.payload), hash(&answer));
        (self.observer.told)(
            self.log.as_str(),
            AppliedRecord { index, record, answer: answer_hash, passed_over, state },
        );
        Ok(answer)
    }

    fn takes_client_appends(&self) -> bool {
        self.machine.takes_client_appends()
    }

    /// What it holds is the state, or the log stops.
    fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.machine.checkpoint(&mut bytes)?;
        let (held, _) = decode(&mut &bytes[..])?;
        let state = parts(&self.shared.state(), self.index);
        assert_eq!(parts(&held, self.index), state, "a checkpoint does not hold the state");
        out.write_all(&bytes)
    }

    fn flush_files(&self) -> FlushFiles {
        self.machine.flush_files()
    }

    fn needs_from(&self) -> Option<u64> {
        self.machine.needs_from()
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.machine.restore(from)
    }
}

/// Hashes of what must be the same on every node that has applied `index`. Each node forgets the places of messages as its own
/// log begins later, and divides them into chunks and files in its own way. So of a queue only the next offset counts.
fn parts(state: &State, index: u64) -> Vec<(&'static str, u64)> {
    let mut state = state.clone();
    state.prune(index + 1, &BTreeMap::new());
    let State {
        topics,
        offsets,
        locks,
        nodes,
        leader,
        delivered,
        stored_ms,
        recent,
        keys,
        voids,
        registry,
        followed,
        rules,
        old_locks,
    } = &state;
    vec![
        (
            "topics",
            hash_of(&topics.iter().map(|(name, topic)| of_topic(name, topic)).collect::<Vec<_>>()),
        ),
        ("offsets", hash_of(offsets)),
        ("locks", hash_of(&(locks, old_locks))),
        ("nodes", hash_of(&(nodes, leader))),
        ("delivered", hash_of(delivered)),
        ("stored time", hash_of(stored_ms)),
        ("recent keys", hash_of(recent)),
        ("keys", hash_of(&(keys, voids))),
        ("registry", hash_of(&(registry, followed, rules))),
    ]
}

fn of_topic<'a>(name: &'a str, topic: &'a Topic) -> impl Serialize + use<'a> {
    let ends: Vec<u64> = topic.queues.iter().map(Queue::max).collect();
    (name, topic.config, topic.incarnation, topic.since, ends)
}

fn hash_of(part: &impl Serialize) -> u64 {
    hash(&codec::encode(part))
}

/// The same in each run of a build.
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
