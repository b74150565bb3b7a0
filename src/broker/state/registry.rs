//! The registry of topics. One log, the home log, decides which topics there are, in the order of its records; every
//! other log follows what it decided (`follow`). So a topic begins and ends once for all logs.
//!
//! Topics that are made on demand are not registered. Each log makes its own when it needs one.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::apply::Arrived;
use super::command::{Answer, Refusal};
use super::offsets::check_name;
use super::topics::{DELAY_TOPIC, State, TopicConfig};
use crate::broker::limits::{
    ADOPTED_QUEUES_MAX, ADOPTED_TOPICS_MAX, ALL_QUEUES_MAX, STORED_TOPIC_BYTES_MAX, TOPICS_MAX,
};
use crate::mutant::Mutant;

/// The log that decides on topics, by its number.
pub(crate) const HOME_LOG: u32 = 0;
/// Most logs whose settings may differ from those of a topic.
const LOGS_MAX: u32 = 1024;
/// Decisions that are remembered. A log that has missed more compares all its topics with the registry.
pub(super) const DECISIONS_MAX: usize = if cfg!(test) { 16 } else { 1024 };

pub(crate) const RETRY_PREFIX: &str = "%RETRY%";
pub(crate) const DEAD_PREFIX: &str = "%DLQ%";
/// Where clients send traces.
pub(crate) const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";

/// True for topics that are there as soon as somebody needs them.
pub(crate) fn is_made_on_demand(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX) || topic.starts_with(DEAD_PREFIX) || topic == TRACE_TOPIC
}

/// True for topics on which the home log decides.
pub(crate) fn is_registered(topic: &str) -> bool {
    !is_made_on_demand(topic) && topic != DELAY_TOPIC
}

/// What the home log is asked to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Decision {
    /// Make a topic if there is none. It is refused if a topic of this name was deleted after version `seen` of the
    /// registry: the caller did not know that.
    Ensure { name: String, config: TopicConfig, seen: u64 },
    /// Make a topic, or change its settings in one log.
    Put { name: String, log: u32, config: TopicConfig },
    /// Delete a topic in all logs.
    Delete { name: String },
    /// Take over topics that a log has from before there was a registry.
    Adopt { log: u32, topics: Vec<(String, TopicConfig)> },
}

/// A topic of all logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registered {
    /// The version that made it. A topic of the same name that was made again has a higher one.
    pub(super) incarnation: u64,
    /// It was taken over with the messages that logs had of it.
    pub(super) adopted: bool,
    config: TopicConfig,
    /// Settings of logs where they differ.
    of_log: BTreeMap<u32, TopicConfig>,
}

impl Registered {
    fn new(incarnation: u64, config: TopicConfig) -> Self {
        Self { incarnation, adopted: false, config, of_log: BTreeMap::new() }
    }

    /// Its settings in a log.
    pub(crate) fn config(&self, log: u32) -> TopicConfig {
        self.of_log.get(&log).copied().unwrap_or(self.config)
    }

    /// Most queues that it has in a log.
    fn room(&self) -> usize {
        let queues = self.of_log.values().map(TopicConfig::queues).max().unwrap_or(0);
        queues.max(self.config.queues()) as usize
    }

    fn set(&mut self, log: u32, config: TopicConfig) {
        if config == self.config {
            self.of_log.remove(&log);
        } else if log < LOGS_MAX {
            self.of_log.insert(log, config);
        }
    }
}

/// A decision that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    version: u64,
    name: String,
    deleted: bool,
}

/// Which topics there are. Empty in all logs but the home log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registry {
    topics: BTreeMap<String, Registered>,
    /// Queues that they may have in a log, all together.
    queues: usize,
    /// The newest decisions, oldest first.
    taken: VecDeque<Taken>,
    /// Index of the home log's record that changed it last.
    version: u64,
    /// Of decisions up to here some are not remembered.
    forgotten: u64,
}

impl Registry {
    /// Index of the home log's record that changed it last.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// A topic.
    pub(crate) fn get(&self, name: &str) -> Option<&Registered> {
        self.topics.get(name)
    }

    /// All topics, by name.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&String, &Registered)> {
        self.topics.iter()
    }

    /// The topics that were decided on after a version, each once; none if that is not remembered.
    pub(super) fn changed_since(&self, version: u64) -> Option<Vec<&str>> {
        if version < self.forgotten {
            return None;
        }
        let newer = self.taken.partition_point(|taken| taken.version <= version);
        let mut names: Vec<_> =
            self.taken.range(newer..).map(|taken| taken.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    /// True if a topic of this name was deleted after a version, as far as that is remembered.
    fn was_deleted_since(&self, name: &str, version: u64) -> bool {
        let newer = self.taken.partition_point(|taken| taken.version <= version);
        self.taken.range(newer..).any(|taken| taken.deleted && taken.name == name)
    }

    fn note(&mut self, version: u64, name: String, deleted: bool) {
        while self.taken.len() >= DECISIONS_MAX {
            let oldest = self.taken.pop_front();
            self.forgotten = oldest.map_or(self.forgotten, |oldest| oldest.version);
        }
        self.taken.push_back(Taken { version, name, deleted });
        self.version = version;
    }

    /// Makes a topic, or changes its settings in a log.
    fn put(
        &mut self,
        version: u64,
        name: &str,
        log: u32,
        config: TopicConfig,
    ) -> Result<(), Refusal> {
        check_name("topic", name, STORED_TOPIC_BYTES_MAX)?;
        let held = self.topics.get(name);
        if held.is_none() && self.topics.len() >= TOPICS_MAX {
            let detail = format!("there are {TOPICS_MAX} topics, which is the most");
            return Err(Refusal::Full(detail));
        }
        let before = held.map_or(0, Registered::room);
        let mut topic = held.cloned().unwrap_or_else(|| Registered::new(version, config));
        topic.set(log, config);
        let queues = self.queues - before + topic.room();
        if queues > self.queues.max(ALL_QUEUES_MAX) {
            let detail = format!("topics have {ALL_QUEUES_MAX} queues, which is the most");
            return Err(Refusal::Full(detail));
        }
        self.queues = queues;
        self.topics.insert(name.to_owned(), topic);
        self.note(version, name.to_owned(), false);
        Ok(())
    }

    /// Decides. Returns the names of the topics that may have changed.
    fn decide(&mut self, version: u64, decision: Decision) -> Result<Vec<String>, Refusal> {
        match decision {
            Decision::Ensure { name, config, seen } => {
                if self.topics.contains_key(&name) {
                    return Ok(Vec::new());
                }
                let forgotten = seen < self.forgotten;
                let stale = forgotten || self.was_deleted_since(&name, seen);
                if stale && !Mutant::StaleSendRevivesTopic.is_active() {
                    return Err(Refusal::NoTopic(name));
                }
                self.put(version, &name, HOME_LOG, config)?;
                Ok(vec![name])
            }
            Decision::Put { name, log, config } => {
                self.put(version, &name, log, config)?;
                Ok(vec![name])
            }
            Decision::Delete { name } => {
                let Some(topic) = self.topics.remove(&name) else { return Ok(Vec::new()) };
                self.queues -= topic.room();
                self.note(version, name.clone(), true);
                Ok(vec![name])
            }
            Decision::Adopt { log, topics } => {
                let names = topics.iter().map(|(name, _)| name.clone()).collect();
                for (name, config) in topics {
                    self.adopt(version, name, log, config);
                }
                Ok(names)
            }
        }
    }

    /// Takes over a topic, unless it was deleted before the log came to report it. There may be more of them than
    /// topics that can be made, though anybody can ask for it: so there is a limit to these, too.
    fn adopt(&mut self, version: u64, name: String, log: u32, config: TopicConfig) {
        if !is_registered(&name) {
            return;
        }
        if self.topics.len() >= ADOPTED_TOPICS_MAX && !self.topics.contains_key(&name) {
            // It stays the log's own: nothing is lost.
            return;
        }
        if !self.was_deleted_since(&name, 0) {
            let held = self.topics.remove(&name);
            let before = held.as_ref().map_or(0, Registered::room);
            let mut topic = held.clone().unwrap_or_else(|| Registered::new(version, config));
            topic.adopted = true;
            topic.set(log, config);
            let queues = self.queues - before + topic.room();
            if queues > self.queues.max(ADOPTED_QUEUES_MAX) {
                // It stays the log's own, as above.
                self.topics.extend(held.map(|held| (name, held)));
                return;
            }
            self.queues = queues;
            self.topics.insert(name.clone(), topic);
        }
        // The log follows in any case: it has the topic, and keeps or deletes it.
        self.note(version, name, false);
    }
}

impl State {
    /// The registry; empty if this is not the home log's state.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Takes a decision, and follows it in the home log itself.
    pub(super) fn decide(
        &mut self,
        index: u64,
        decision: Decision,
        arrived: &mut Arrived<'_>,
    ) -> Result<Answer, Refusal> {
        self.adopt_own(index, &decision);
        for name in self.registry.decide(index, decision)? {
            let wanted = self.registry.get(&name).map(|topic| topic.wanted(HOME_LOG));
            self.settle(index, name, wanted, arrived);
        }
        self.followed = self.registry.version();
        Ok(Answer::Decided { version: self.registry.version() })
    }

    /// A topic that the home log has from before there was a registry is taken over before anything is decided on it.
    fn adopt_own(&mut self, index: u64, decision: &Decision) {
        let (Decision::Ensure { name, .. }
        | Decision::Put { name, .. }
        | Decision::Delete { name }) = decision
        else {
            return;
        };
        let Some(topic) = self.topics.get(name).filter(|topic| topic.incarnation == 0) else {
            return;
        };
        self.registry.adopt(index, name.clone(), HOME_LOG, topic.config);
    }
}
