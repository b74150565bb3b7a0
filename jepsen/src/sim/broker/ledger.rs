//! What clients asked and were told, and what nodes applied: the facts that are judged in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorumlog_broker::simulation::AppliedRecord;

use super::message::Message;

/// A log, a topic and a queue.
pub(super) type QueueName = (u32, String, u32);

/// What a producer was told of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing, or nothing yet: it may be stored or not.
    Nothing,
    /// It is not stored: the code of the answer.
    Refused(i64),
    /// It is in the log of a leader, and may be committed there: where.
    Appended { physicals: Vec<u64> },
    /// It is stored.
    Stored { offset: u64, physicals: Vec<u64> },
}

/// One attempt of a producer: a message, or several of a batch.
#[derive(Debug, Clone)]
pub(super) struct Send {
    pub(super) queue: QueueName,
    /// The numbers in the bodies.
    pub(super) ids: Vec<u64>,
    /// How long it waits before it is delivered; 0 for one that is there at once.
    pub(super) delay_ms: u64,
    pub(super) at_ms: u64,
    pub(super) told: Told,
}

/// What a consumer handed back, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HandedBack {
    pub(super) log: u32,
    pub(super) group: String,
    pub(super) id: u64,
    /// How often it was handed back then.
    pub(super) times: u32,
    /// It is a dead letter now; else it comes again later.
    pub(super) is_dead: bool,
}

/// What a consumer was told of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Returned {
    Unknown,
    Refused,
    Stored,
}

/// A message that was handed back.
#[derive(Debug, Clone)]
pub(super) struct Return {
    pub(super) what: HandedBack,
    pub(super) told: Returned,
    pub(super) at_ms: u64,
    /// What was applied of the log before.
    pub(super) behind: u64,
}

/// What is at an offset of a queue, as somebody saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: Option<u64>,
    pub(super) physical: u64,
    pub(super) stored_ms: i64,
}

impl From<&Message> for Held {
    fn from(message: &Message) -> Self {
        let &Message { id, physical, stored_ms, .. } = message;
        Self { id, physical, stored_ms }
    }
}

/// A queue as it was read in the end.
#[derive(Debug, Clone, Default)]
pub(super) struct FinalQueue {
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) messages: Vec<Message>,
}

/// All facts of a run.
#[derive(Debug, Default)]
pub(super) struct Facts {
    last_id: u64,
    pub(super) sends: Vec<Send>,
    /// What consumers saw.
    pub(super) seen: BTreeMap<(QueueName, u64), Held>,
    /// Where consumers were sent on without messages, and where some node's log began then.
    pub(super) skipped: Vec<(QueueName, Range<u64>, u64)>,
    pub(super) returned: Vec<Return>,
    /// How far the log of some node has ever begun, by the log. Each node trims its own, and what a leader has let go it neither
    /// gives nor delivers, though others may hold it.
    pub(super) begun: BTreeMap<u32, u64>,
    handed_back: BTreeSet<HandedBack>,
    /// Who owns queues, as far as the owners know.
    pub(super) owners: BTreeMap<QueueName, String>,
    /// What some node applied first, and when, by the log and the index.
    pub(super) applied: BTreeMap<(u32, u64), (u64, u64, AppliedRecord)>,
    /// Records that a second node applied too, and states of two nodes that were compared.
    pub(super) applied_twice: u64,
    pub(super) states_compared: u64,
    /// The administrator was told that a topic has more queues.
    pub(super) has_grown: bool,
    pub(super) in_the_end: BTreeMap<QueueName, FinalQueue>,
}

impl Facts {
    /// A number that no message has yet.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A send begins; gives its number.
    pub(super) fn sends(
        &mut self,
        queue: QueueName,
        ids: Vec<u64>,
        (delay_ms, at_ms): (u64, u64),
    ) -> usize {
        self.sends.push(Send { queue, ids, delay_ms, at_ms, told: Told::Nothing });
        self.sends.len() - 1
    }

    /// A message is about to be handed back; gives the number of that. None if it was before.
    pub(super) fn hands_back(&mut self, what: HandedBack, at_ms: u64) -> Option<usize> {
        if !self.handed_back.insert(what.clone()) {
            return None;
        }
        let behind = self.last_applied(what.log);
        self.returned.push(Return { what, told: Returned::Unknown, at_ms, behind });
        Some(self.returned.len() - 1)
    }

    /// The last record of a log that a node applied.
    fn last_applied(&self, log: u32) -> u64 {
        let applied = self.applied.range((log, 0)..(log + 1, 0));
        applied.last().map_or(0, |((_, index), _)| *index)
    }

    /// When a record was applied first.
    pub(super) fn applied_ms(&self, log: u32, index: u64) -> Option<u64> {
        self.applied.get(&(log, index)).map(|(_, at_ms, _)| *at_ms)
    }

    /// Somebody read this message.
    ///
    /// # Errors
    /// Something else was at its offset before.
    pub(super) fn sees(&mut self, log: u32, message: &Message) -> Result<(), String> {
        let queue = (log, message.topic.clone(), message.queue);
        let held = Held::from(message);
        let before = *self.seen.entry((queue, message.offset)).or_insert(held);
        if before == held {
            return Ok(());
        }
        let Message { topic, queue, offset, .. } = message;
        Err(format!("{topic} {queue} of log {log}: {before:?} at {offset}, and then {held:?}"))
    }
}

/// The facts, for all who note some.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Facts>);

impl Ledger {
    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
