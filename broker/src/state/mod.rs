//! What a log's records make of it: topics, queues, groups, offsets, locks. The same on every node.

mod apply;
mod arrivals;
mod command;
mod groups;
mod index;
mod locks;
mod machine;
mod name;
#[cfg(feature = "simulation")]
mod observed;
mod offsets;
mod older;
mod queue;
mod recent;
mod rules;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use index::keys::Keys;
use index::voids::Voids;
use locks::Locks;
use offsets::{NameBounds, Offsets};
use older::old_locks::OldLocks;
use recent::Recent;
use topics::registry::Registry;
use topics::{Topic, Topics};

pub(super) use command::{
    Answer, Change, LockRequest, Placed, Refusal, ReportedOffset, change, deliveries, message_at,
    messages, messages_of,
};
pub(super) use index::keys::Sought;
pub(super) use index::lookup::Lost;
pub(crate) use machine::Machines;
pub(super) use machine::Shared;
#[cfg(feature = "simulation")]
pub use observed::{AppliedRecord, Observer};
pub(super) use queue::{Entry, PARTS_MAX, Queue, physical};
pub(super) use rules::Rules;
pub(super) use topics::follow::TOPICS_OF_RECORD;
pub(super) use topics::registry::{Decision, HOME_LOG, LOGS_MAX};
pub(super) use topics::topic_names::{
    AUTO_CREATE_TOPIC, DEAD_PREFIX, RETRY_PREFIX, TRACE_TOPIC, is_made_on_demand, is_plain,
    is_registered, is_reserved,
};
pub(super) use topics::{DEAD_DELAYED_TOPIC, DELAY_TOPIC, LEVELS, TopicConfig, level_delay_ms};

/// Everything that a log's records made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    topics: Topics,
    offsets: Offsets,
    locks: Locks,
    /// Nodes that have led, the newest of them, and where they serve clients.
    nodes: BTreeMap<u64, String>,
    /// The last node that said that it leads.
    leader: u64,
    /// For each delay level, how many messages of its queue were delivered.
    delivered: BTreeMap<u8, u64>,
    /// The newest time of storing.
    stored_ms: i64,
    /// Keys of messages that are not to be stored twice.
    recent: Recent,
    /// Keys of all messages, to find them by.
    keys: Keys,
    /// Records that stored nothing.
    voids: Voids,
    /// Which topics all logs have. Empty but in the home log.
    registry: Registry,
    /// The version of the registry that this log has followed.
    followed: u64,
    /// What the next record means.
    rules: Rules,
    /// Locks by the rules 2; none under newer ones.
    old_locks: OldLocks,
}

impl State {
    /// A topic.
    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// All topics, by name.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.topics.iter()
    }

    /// Topics from a name on.
    pub(crate) fn topics_from(&self, from: NameBounds<'_>) -> impl Iterator<Item = (&str, &Topic)> {
        self.topics.from(from)
    }

    /// True if a queue of a topic can have messages, one that the topic has no more included.
    pub(crate) fn can_hold(&self, topic: &str, queue: u32) -> bool {
        self.topics.can_hold(topic, queue)
    }

    /// A queue that has had messages.
    pub(crate) fn queue(&self, topic: &str, queue: u32) -> Option<&Queue> {
        self.topics.get(topic)?.queue(queue)
    }

    /// Where a node serves clients, if it has ever led.
    pub(crate) fn address(&self, node: u64) -> Option<&str> {
        self.nodes.get(&node).map(String::as_str)
    }

    /// The last node that said that it leads; 0 before the first.
    pub(crate) fn leader(&self) -> u64 {
        self.leader
    }

    /// When the newest lock was taken or renewed, by the leaders' lease clock; 0 if nothing is locked.
    pub(crate) fn newest_lock_ms(&self) -> i64 {
        self.locks.newest_ms()
    }

    /// True if a consumer of the group holds a queue that was locked or renewed within the lease.
    pub(crate) fn holds_locks(&self, group: &str, now_ms: i64) -> bool {
        self.locks.are_held(group, now_ms)
    }

    /// A state in which a client holds what it asks for.
    #[cfg(test)]
    pub(crate) fn with_locks(request: LockRequest, now_ms: i64) -> Self {
        let mut state = Self::default();
        assert!(state.locks.lock(request, now_ms).is_ok());
        state
    }

    /// True if a client asks for locks that it holds, and not again and again.
    pub(crate) fn are_renewals(&self, request: &LockRequest, now_ms: i64) -> bool {
        self.locks.are_renewed_by(request, now_ms)
    }

    /// How many messages of a level's queue were delivered.
    pub(crate) fn delivered(&self, level: u8) -> u64 {
        self.delivered.get(&level).copied().unwrap_or(0)
    }

    /// Where in the log the first message lies that waits for its delivery, or somewhat before. None if none waits.
    pub(crate) fn waits_from(&self) -> Option<u64> {
        let first = |level: u8| {
            self.queue(DELAY_TOPIC, u32::from(level) - 1)?.index_before(self.delivered(level))
        };
        (1..=LEVELS).filter_map(first).min()
    }

    /// The newest time of storing.
    pub(crate) fn stored_ms(&self) -> i64 {
        self.stored_ms
    }

    /// Forgets messages whose records the log does not hold any more. What is left is what readers see, so this
    /// need not happen at the same time everywhere.
    /// `gone` is as in [`Queue::prune`].
    fn prune(&mut self, begin: u64, gone: &BTreeMap<u64, u64>) {
        self.topics.queues_mut().for_each(|queue| queue.prune(begin, gone));
        self.keys.prune(begin);
        self.voids.prune(begin);
    }

    fn queue_mut(&mut self, topic: &str, queue: u32) -> Option<&mut Queue> {
        self.topics.queue_mut(topic, queue)
    }
}
