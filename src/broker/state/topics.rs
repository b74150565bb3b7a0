//! The state: topics, offsets of consumer groups, locks, and how far each delay level was delivered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::queue::Queue;
use super::recent::Recent;
use super::voids::Voids;

/// Where messages wait that are to be delivered later, a queue for each level.
pub(crate) const DELAY_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Seconds of each delay level, from 1.
const LEVEL_SECONDS: [i64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];
/// Delay levels.
pub(crate) const LEVELS: u8 = LEVEL_SECONDS.len() as u8;
/// Most queues of a topic.
pub(crate) const QUEUES_MAX: u32 = 1024;
/// How long a queue stays locked without being renewed, as in RocketMQ.
pub(crate) const LOCK_LEASE_MS: i64 = 60_000;
/// Most topics of a log.
pub(super) const TOPICS_MAX: usize = 65_536;
/// Most groups that hold locks.
pub(super) const LOCKING_GROUPS_MAX: usize = 16_384;
/// Most queues that one group's consumers hold.
pub(super) const LOCKS_MAX: usize = 16_384;
/// Most consumed offsets of a log.
pub(super) const OFFSETS_MAX: usize = 1 << 20;

/// Delay of a level in milliseconds; levels above the last are the last.
pub(crate) fn level_delay_ms(level: u8) -> i64 {
    let at = usize::from(level.clamp(1, LEVELS)) - 1;
    LEVEL_SECONDS[at] * 1000
}

/// Settings of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicConfig {
    pub(crate) read_queues: u32,
    pub(crate) write_queues: u32,
    /// 4 readable, 2 writable, 6 both.
    pub(crate) perm: u32,
    pub(crate) ordered: bool,
}

impl TopicConfig {
    /// A topic to read and write with so many queues.
    pub(crate) fn with_queues(queues: u32) -> Self {
        let queues = queues.clamp(1, QUEUES_MAX);
        Self { read_queues: queues, write_queues: queues, perm: 6, ordered: false }
    }

    /// One above the highest queue that may hold messages.
    pub(crate) fn queues(&self) -> u32 {
        self.read_queues.max(self.write_queues).min(QUEUES_MAX)
    }
}

/// A topic and its queues; those that got no message yet may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Topic {
    pub(crate) config: TopicConfig,
    pub(super) queues: Vec<Queue>,
}

impl Topic {
    /// A queue that has had messages.
    pub(crate) fn queue(&self, queue: u32) -> Option<&Queue> {
        self.queues.get(queue as usize)
    }

    /// All queues that have had messages.
    pub(crate) fn queues(&self) -> &[Queue] {
        &self.queues
    }
}

/// Who holds a queue, and when the lock was last renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    pub(super) client: String,
    pub(super) since_ms: i64,
}

/// Everything that a log's records made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(super) topics: BTreeMap<String, Topic>,
    /// Group, then topic and queue.
    pub(super) offsets: BTreeMap<String, BTreeMap<(String, u32), u64>>,
    pub(super) locks: BTreeMap<String, BTreeMap<(String, u32), Holder>>,
    /// Nodes that have led, and where they serve clients.
    pub(super) nodes: BTreeMap<u64, String>,
    /// The last node that said that it leads.
    pub(super) leader: u64,
    /// For each delay level, how many messages of its queue were delivered.
    pub(super) delivered: BTreeMap<u8, u64>,
    /// The newest time of storing.
    pub(super) stored_ms: i64,
    /// Keys of messages that are not to be stored twice.
    pub(super) recent: Recent,
    /// Keys of all messages, to find them by.
    pub(super) keys: Keys,
    /// Records that stored nothing.
    pub(super) voids: Voids,
}

impl State {
    /// A topic.
    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// All topics, by name.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.topics.iter().map(|(name, topic)| (name.as_str(), topic))
    }

    /// A queue that has had messages.
    pub(crate) fn queue(&self, topic: &str, queue: u32) -> Option<&Queue> {
        self.topics.get(topic)?.queue(queue)
    }

    /// How far a group has consumed a queue.
    pub(crate) fn offset(&self, group: &str, topic: &str, queue: u32) -> Option<u64> {
        self.offsets.get(group)?.get(&(topic.to_owned(), queue)).copied()
    }

    /// Where a node serves clients, if it has ever led.
    pub(crate) fn address(&self, node: u64) -> Option<&str> {
        self.nodes.get(&node).map(String::as_str)
    }

    /// The last node that said that it leads; 0 before the first.
    pub(crate) fn leader(&self) -> u64 {
        self.leader
    }

    /// How many messages of a level's queue were delivered.
    pub(crate) fn delivered(&self, level: u8) -> u64 {
        self.delivered.get(&level).copied().unwrap_or(0)
    }

    /// The newest time of storing.
    pub(crate) fn stored_ms(&self) -> i64 {
        self.stored_ms
    }

    /// Forgets messages whose records the log does not hold any more. What is left is what readers see, so this
    /// need not happen at the same time everywhere.
    /// `gone` is as in [`Queue::prune`].
    pub(super) fn prune(&mut self, begin: u64, gone: &BTreeMap<u64, u64>) {
        let topics = self.topics.values_mut();
        topics.flat_map(|topic| &mut topic.queues).for_each(|queue| queue.prune(begin, gone));
        self.keys.prune(begin);
        self.voids.prune(begin);
    }

    pub(super) fn queue_mut(&mut self, topic: &str, queue: u32) -> Option<&mut Queue> {
        self.topics.get_mut(topic)?.queues.get_mut(queue as usize)
    }
}
