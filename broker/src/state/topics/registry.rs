//! The registry of topics. One log, the home log, decides which topics there are, in the order of its records; every
//! other log follows what it decided (`follow`). So a topic begins and ends once for all logs.
//!
//! Topics that are made on demand are not registered. Each log makes its own when it needs one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::super::State;
use super::super::apply::Arrived;
use super::super::command::{Answer, Refusal};
use super::super::offsets::{NameBounds, check_name};
use super::super::rules::Rules;
use super::TopicConfig;
use super::topic_names::is_registered;
use crate::limits::{
    ADOPTED_QUEUES_MAX, ADOPTED_TOPICS_MAX, ALL_QUEUES_MAX, DELETED_NAMES_MAX,
    SETTINGS_OF_LOGS_MAX, STORED_TOPIC_BYTES_MAX, TOPICS_MAX,
};
use crate::mutant::Mutant;

/// The log that decides on topics, by its number.
pub(crate) const HOME_LOG: u32 = 0;
/// Most logs whose settings may differ from those of a topic.
pub(crate) const LOGS_MAX: u32 = 1024;
/// Decisions that are remembered. A log that has missed more compares all its topics with the registry.
pub(in crate::state) const DECISIONS_MAX: usize = if cfg!(test) { 16 } else { 1024 };

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
    /// One of so many logs has no more topics to take over.
    Adopted { log: u32, logs: u32 },
}

/// A topic of all logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registered {
    /// The version that made it. A topic of the same name that was made again has a higher one.
    pub(in crate::state) incarnation: u64,
    /// It was taken over with the messages that logs had of it.
    pub(in crate::state) adopted: bool,
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

/// How far the registry has come with taking over the topics of logs. Until all logs have reported theirs, it remembers
/// what was deleted: a log that reports late must not bring that back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Adoption {
    is_done: bool,
    /// Logs that have reported everything.
    logs: BTreeSet<u32>,
    deleted: BTreeSet<String>,
}

impl Adoption {
    /// Remembers a deletion.
    ///
    /// # Errors
    /// Too many are remembered. To forget one could bring its topic back, so that nothing more is deleted until all
    /// logs have reported.
    fn note_deleted(&mut self, name: &str) -> Result<(), Refusal> {
        if self.is_done || self.deleted.contains(name) {
            return Ok(());
        }
        if self.deleted.len() >= DELETED_NAMES_MAX {
            if Mutant::DeletedNamesForgotten.is_active() {
                self.deleted.pop_first();
            } else {
                let detail = format!(
                    "{DELETED_NAMES_MAX} topics were deleted before all logs had reported theirs, which is the most"
                );
                return Err(Refusal::Full(detail));
            }
        }
        self.deleted.insert(name.to_owned());
        Ok(())
    }

    fn note_reported(&mut self, log: u32, logs: u32) {
        if log >= logs || logs > LOGS_MAX || self.is_done {
            return;
        }
        self.logs.insert(log);
        if (0..logs).all(|log| self.logs.contains(&log)) {
            *self = Self { is_done: true, ..Self::default() };
        }
    }
}

/// How a topic comes to be registered, and how much there may be then.
struct Origin {
    adopted: bool,
    topics_max: usize,
    queues_max: usize,
}

impl Origin {
    const MADE: Self = Self { adopted: false, topics_max: TOPICS_MAX, queues_max: ALL_QUEUES_MAX };
    const ADOPTED: Self =
        Self { adopted: true, topics_max: ADOPTED_TOPICS_MAX, queues_max: ADOPTED_QUEUES_MAX };
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
    /// Settings of single logs, of all topics together.
    of_logs: usize,
    adoption: Adoption,
}

/// The registry in a checkpoint of version 3.
#[derive(Deserialize)]
pub(in crate::state) struct RegistryVersion3 {
    topics: BTreeMap<String, Registered>,
    queues: usize,
    taken: VecDeque<Taken>,
    version: u64,
    forgotten: u64,
}

impl From<RegistryVersion3> for Registry {
    fn from(old: RegistryVersion3) -> Self {
        let RegistryVersion3 { topics, queues, taken, version, forgotten } = old;
        let of_logs = topics.values().map(|topic| topic.of_log.len()).sum();
        Self { topics, queues, taken, version, forgotten, of_logs, adoption: Adoption::default() }
    }
}

impl Registry {
    /// Under the rules 3, the decisions that are remembered said what was deleted.
    pub(in crate::state) fn end_version_3(&mut self) {
        let deleted = self.taken.iter().filter(|taken| taken.deleted);
        self.adoption.deleted = deleted.map(|taken| taken.name.clone()).collect();
    }

    /// True once all logs have reported the topics that they had from before there was a registry.
    pub(crate) fn has_adopted_all(&self) -> bool {
        self.adoption.is_done
    }

    /// True for a topic that was deleted, as far as logs may still have to report it.
    pub(in crate::state) fn has_deleted_unreported(&self, name: &str) -> bool {
        self.adoption.deleted.contains(name)
    }

    /// True if a log has reported all its topics.
    pub(crate) fn has_adopted(&self, log: u32) -> bool {
        self.adoption.is_done || self.adoption.logs.contains(&log)
    }

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

    /// The names of its topics, from a name on.
    pub(crate) fn names_from(&self, from: NameBounds<'_>) -> impl Iterator<Item = &str> {
        self.topics.range::<str, _>(from).map(|(name, _)| name.as_str())
    }

    /// The topics that were decided on after a version, each once; none if that is not remembered.
    pub(in crate::state) fn changed_since(&self, version: u64) -> Option<Vec<&str>> {
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

    /// True if a topic of this name is there, or may be added.
    fn has_room_for(&self, name: &str, origin: &Origin) -> bool {
        self.topics.len() < origin.topics_max || self.topics.contains_key(name)
    }

    /// Makes a topic, or changes its settings in a log, and counts what it adds. More than the most of something may be
    /// there already: then it only must not grow.
    fn set(
        &mut self,
        version: u64,
        rules: Rules,
        (name, log): (&str, u32),
        config: TopicConfig,
        origin: &Origin,
    ) -> Result<(), Refusal> {
        let full = |count: usize, what: &str| {
            Err(Refusal::Full(format!("there are {count} {what}, which is the most")))
        };
        if !self.has_room_for(name, origin) {
            return full(origin.topics_max, "topics");
        }
        let held = self.topics.get(name);
        let before = held.map_or((0, 0), |held| (held.room(), held.of_log.len()));
        let mut topic = held.cloned().unwrap_or_else(|| Registered::new(version, config));
        topic.adopted |= origin.adopted;
        topic.set(log, config);
        let queues = self.queues - before.0 + topic.room();
        if queues > self.queues.max(origin.queues_max) {
            return full(origin.queues_max, "queues of topics");
        }
        let of_logs = self.of_logs - before.1 + topic.of_log.len();
        if rules >= Rules::Version4 && of_logs > self.of_logs.max(SETTINGS_OF_LOGS_MAX) {
            return full(SETTINGS_OF_LOGS_MAX, "settings of single logs");
        }
        (self.queues, self.of_logs) = (queues, of_logs);
        self.topics.insert(name.to_owned(), topic);
        Ok(())
    }

    /// Makes a topic, or changes its settings in a log.
    fn put(
        &mut self,
        version: u64,
        rules: Rules,
        (name, log): (&str, u32),
        config: TopicConfig,
    ) -> Result<(), Refusal> {
        check_name("topic", name, STORED_TOPIC_BYTES_MAX)?;
        self.set(version, rules, (name, log), config, &Origin::MADE)?;
        self.note(version, name.to_owned(), false);
        Ok(())
    }

    /// Decides. Returns the names of the topics that may have changed.
    fn decide(
        &mut self,
        version: u64,
        rules: Rules,
        decision: Decision,
    ) -> Result<Vec<String>, Refusal> {
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
                self.put(version, rules, (&name, HOME_LOG), config)?;
                Ok(vec![name])
            }
            Decision::Put { name, log, config } => {
                self.put(version, rules, (&name, log), config)?;
                Ok(vec![name])
            }
            Decision::Delete { name } => {
                // Also of a topic that no log has reported yet: it would come back when one does.
                let unknown = !self.topics.contains_key(&name);
                if unknown
                    && (rules < Rules::Version4 || Mutant::UnknownDeletionNotNoted.is_active())
                {
                    return Ok(Vec::new());
                }
                if rules >= Rules::Version4 {
                    check_name("topic", &name, STORED_TOPIC_BYTES_MAX)?;
                    self.adoption.note_deleted(&name)?;
                }
                if let Some(topic) = self.topics.remove(&name) {
                    self.queues -= topic.room();
                    self.of_logs -= topic.of_log.len();
                }
                self.note(version, name.clone(), true);
                Ok(vec![name])
            }
            Decision::Adopted { log, logs } => {
                self.adoption.note_reported(log, logs);
                Ok(Vec::new())
            }
            Decision::Adopt { topics, .. }
                if rules >= Rules::Version4 && topics.len() > super::follow::RECORD_TOPICS_MAX =>
            {
                Err(Refusal::TooLarge(format!("{} topics in one decision", topics.len())))
            }
            Decision::Adopt { log, topics } => {
                let names = topics.iter().map(|(name, _)| name.clone()).collect();
                for (name, config) in topics {
                    self.adopt(version, rules, (name, log), config);
                }
                Ok(names)
            }
        }
    }

    /// Takes over a topic, unless it was deleted before the log came to report it. There may be more of them than
    /// topics that can be made, though anybody can ask for it: so there is a limit to these, too.
    fn adopt(
        &mut self,
        version: u64,
        rules: Rules,
        (name, log): (String, u32),
        config: TopicConfig,
    ) {
        let checked = rules >= Rules::Version4;
        let is_name = !checked || check_name("topic", &name, STORED_TOPIC_BYTES_MAX).is_ok();
        if !is_registered(&name) || !is_name {
            return;
        }
        if !self.has_room_for(&name, &Origin::ADOPTED) {
            // It stays the log's own: nothing is lost.
            return;
        }
        let was_deleted = match checked {
            true => self.adoption.deleted.contains(&name),
            false => self.was_deleted_since(&name, 0),
        };
        let taken_over = |registry: &mut Self| {
            registry.set(version, rules, (&name, log), config, &Origin::ADOPTED).is_ok()
        };
        if !was_deleted && !taken_over(self) {
            // It stays the log's own, as above.
            return;
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
    pub(in crate::state) fn decide(
        &mut self,
        index: u64,
        decision: Decision,
        arrived: &mut Arrived<'_>,
    ) -> Result<Answer, Refusal> {
        self.adopt_own(index, &decision);
        let changed = self.registry.decide(index, self.rules, decision)?;
        let wanted = |name: String| {
            let wanted = self.registry.get(&name).map(|topic| topic.wanted(HOME_LOG));
            (name, wanted)
        };
        let topics = changed.into_iter().map(wanted).collect();
        self.settle(index, topics, arrived);
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
        self.registry.adopt(index, self.rules, (name.clone(), HOME_LOG), topic.config);
    }
}
