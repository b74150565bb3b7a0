//! Topics: their settings and queues, and which of them all logs have.

pub(super) mod follow;
pub(super) mod registry;
pub(super) mod topic_names;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, Serializer};

use super::command::Refusal;
use super::offsets::{NameBounds, check_name};
use super::queue::Queue;
use crate::limits::{ALL_QUEUES_MAX, QUEUES_MAX, STORED_TOPIC_BYTES_MAX, TOPICS_MAX};
use topic_names::is_adoptable;

/// Where messages wait that are to be delivered later, a queue for each level.
pub(crate) const DELAY_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// Where delayed messages go if their topic is gone when they are due: the dead letters of the group that, in
/// RocketMQ, consumes delayed messages.
pub(crate) const DEAD_DELAYED_TOPIC: &str = "%DLQ%SCHEDULE_CONSUMER";
/// Seconds of each delay level, from 1.
const LEVEL_SECONDS: [i64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];
/// Delay levels.
pub(crate) const LEVELS: u8 = LEVEL_SECONDS.len() as u8;
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
    /// The version of the registry that made it; 0 for one on which the registry does not decide.
    pub(super) incarnation: u64,
    /// Index of the record that made it in this log; 0 if that is not known.
    pub(super) since: u64,
    pub(super) queues: Vec<Queue>,
}

impl Topic {
    /// True for a topic on which no registry decides: it is made on demand, or the registry has not taken it over yet.
    pub(crate) fn is_local(&self) -> bool {
        self.incarnation == 0
    }

    /// True if the registry has to take it over.
    fn is_unadopted(&self, name: &str) -> bool {
        self.is_local() && is_adoptable(name)
    }

    /// A queue that has had messages.
    pub(crate) fn queue(&self, queue: u32) -> Option<&Queue> {
        self.queues.get(queue as usize)
    }

    /// All queues that have had messages.
    pub(crate) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// Queues that it may have.
    fn room(&self) -> usize {
        self.queues.len().max(self.config.queues() as usize)
    }
}

/// All topics of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<String, Topic>")]
pub(super) struct Topics {
    by_name: BTreeMap<String, Topic>,
    /// Queues that they may have, all together.
    queues: usize,
    /// Those from before there was a registry, which it has not taken over.
    unadopted: BTreeSet<String>,
}

impl Serialize for Topics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_name.serialize(serializer)
    }
}

impl From<BTreeMap<String, Topic>> for Topics {
    fn from(by_name: BTreeMap<String, Topic>) -> Self {
        let queues = by_name.values().map(Topic::room).sum();
        let unadopted = by_name.iter().filter(|(name, topic)| topic.is_unadopted(name));
        let unadopted = unadopted.map(|(name, _)| name.clone()).collect();
        Self { by_name, queues, unadopted }
    }
}

impl Topics {
    pub(super) fn get(&self, name: &str) -> Option<&Topic> {
        self.by_name.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.by_name.iter().map(|(name, topic)| (name.as_str(), topic))
    }

    pub(super) fn from(&self, from: NameBounds<'_>) -> impl Iterator<Item = (&str, &Topic)> {
        self.by_name.range::<str, _>(from).map(|(name, topic)| (name.as_str(), topic))
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Those from before there was a registry, which it has not taken over, by name.
    pub(super) fn unadopted(&self) -> impl Iterator<Item = (&str, &Topic)> {
        let topic = |name: &String| self.by_name.get_key_value(name);
        self.unadopted.iter().filter_map(topic).map(|(name, topic)| (name.as_str(), topic))
    }

    /// Makes a topic, or changes its settings.
    ///
    /// # Errors
    /// Its name is too long, it has no queue or too many, or there is no room for it.
    pub(super) fn put(
        &mut self,
        index: u64,
        name: String,
        config: TopicConfig,
    ) -> Result<(), Refusal> {
        self.check(&name, &config)?;
        let (incarnation, since) =
            self.get(&name).map_or((0, index), |held| (held.incarnation, held.since));
        self.set(name, config, incarnation, since);
        Ok(())
    }

    /// Checks that there is room for a topic with such settings.
    ///
    /// # Errors
    /// As `put`.
    pub(super) fn check(&self, name: &str, config: &TopicConfig) -> Result<(), Refusal> {
        check_name("topic", name, STORED_TOPIC_BYTES_MAX)?;
        for queues in [config.read_queues, config.write_queues] {
            if queues > QUEUES_MAX {
                return Err(Refusal::TooLarge(format!("a topic of {queues} queues")));
            }
        }
        let held = self.by_name.get(name);
        if held.is_none() && self.by_name.len() >= TOPICS_MAX {
            return Err(Refusal::Full(format!("there are {TOPICS_MAX} topics, which is the most")));
        }
        // Queues that hold messages stay when the settings have fewer.
        let used = held.map_or(0, |held| held.queues.len());
        let (before, after) = (held.map_or(0, Topic::room), used.max(config.queues() as usize));
        if after > before && self.queues - before + after > ALL_QUEUES_MAX {
            let detail = format!("topics have {ALL_QUEUES_MAX} queues, which is the most");
            return Err(Refusal::Full(detail));
        }
        Ok(())
    }

    /// Makes a topic, or changes what it is, with the messages that it has.
    pub(super) fn set(&mut self, name: String, config: TopicConfig, incarnation: u64, since: u64) {
        if incarnation == 0 && is_adoptable(&name) {
            self.unadopted.insert(name.clone());
        } else {
            self.unadopted.remove(&name);
        }
        let topic = self.by_name.entry(name).or_insert_with(|| {
            let config = TopicConfig { read_queues: 0, write_queues: 0, ..config };
            Topic { config, incarnation, since, queues: Vec::new() }
        });
        self.queues -= topic.room();
        (topic.config, topic.incarnation, topic.since) = (config, incarnation, since);
        self.queues += topic.room();
    }

    /// Forgets which records made the topics. Nodes that replayed the records of older builds know, and those that went on
    /// from a checkpoint of version 2 do not.
    pub(super) fn forget_origins(&mut self) {
        self.by_name.values_mut().for_each(|topic| topic.since = 0);
    }

    /// Makes a topic whatever the number of topics: for one that cannot be done without.
    pub(super) fn put_anyway(&mut self, index: u64, name: &str, config: TopicConfig) {
        self.set(name.to_owned(), config, 0, index);
    }

    /// True if a queue of a topic can have messages, one that the topic has no more included.
    pub(super) fn can_hold(&self, topic: &str, queue: u32) -> bool {
        let Some(topic) = self.by_name.get(topic) else { return false };
        let more = (queue as usize + 1).saturating_sub(topic.room());
        queue < QUEUES_MAX && (more == 0 || self.queues + more <= ALL_QUEUES_MAX)
    }

    /// Makes room for messages of a queue that the topic has no more. False if there is none.
    pub(super) fn make_room(&mut self, topic: &str, queue: u32) -> bool {
        if !self.can_hold(topic, queue) {
            return false;
        }
        let Some(topic) = self.by_name.get_mut(topic) else { return false };
        let (before, wanted) = (topic.room(), queue as usize + 1);
        if wanted > before {
            topic.queues.resize_with(wanted, Queue::default);
            self.queues += wanted - before;
        }
        true
    }

    /// Forgets a topic.
    pub(super) fn remove(&mut self, name: &str) -> Option<Topic> {
        let removed = self.by_name.remove(name);
        self.unadopted.remove(name);
        self.queues -= removed.as_ref().map_or(0, Topic::room);
        removed
    }

    /// A queue that a topic may have, which is made if it got no message yet.
    pub(super) fn queue_or_new(&mut self, topic: &str, queue: u32) -> Option<&mut Queue> {
        let topic = self.by_name.get_mut(topic)?;
        let at = queue as usize;
        if at >= topic.room() {
            return None;
        }
        if topic.queues.len() <= at {
            topic.queues.resize_with(at + 1, Queue::default);
        }
        topic.queues.get_mut(at)
    }

    pub(super) fn queues_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.by_name.values_mut().flat_map(|topic| &mut topic.queues)
    }

    pub(super) fn queue_mut(&mut self, topic: &str, queue: u32) -> Option<&mut Queue> {
        self.by_name.get_mut(topic)?.queues.get_mut(queue as usize)
    }
}
