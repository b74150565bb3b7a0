//! How a log follows the registry of topics. Its leader sees the home log's state on its own node, and proposes what
//! has changed since the version that the log has followed. A record that was made for another version changes nothing:
//! so one that is late, or comes from an earlier leader, brings no topic back.

use serde::{Deserialize, Serialize};

use super::apply::Arrived;
use super::machine::Shared;
use super::registry::{Registered, Registry, is_registered};
use super::topics::{State, Topic, TopicConfig};
use crate::mutant::Mutant;

/// Topics in one record. With names of 127 bytes they take less than 200 KiB.
pub(crate) const TOPICS_OF_RECORD: usize = if cfg!(test) { 20 } else { 1024 };

/// What a topic of the registry is in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    incarnation: u64,
    /// A topic that the log has from before there was a registry keeps its messages.
    adopted: bool,
    config: TopicConfig,
}

impl Wanted {
    /// True if the log's topic is this one already.
    fn is(&self, topic: &Topic) -> bool {
        topic.incarnation == self.incarnation && topic.config == self.config
    }
}

/// Topics to have, and topics to delete (without a `Wanted`), as of a version of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Follow {
    /// The version that the log has followed.
    from: u64,
    /// The version that it has followed then. The same as `from` if more is to come.
    to: u64,
    topics: Vec<(String, Option<Wanted>)>,
}

impl Follow {
    /// The topics to delete.
    pub(crate) fn deleted(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().filter(|(_, wanted)| wanted.is_none()).map(|(name, _)| name.as_str())
    }
}

impl Registered {
    /// What it is in a log.
    pub(super) fn wanted(&self, log: u32) -> Wanted {
        let Self { incarnation, adopted, .. } = *self;
        Wanted { incarnation, adopted, config: self.config(log) }
    }
}

impl State {
    /// The version of the registry that this log has followed. In the home log that is the registry's own.
    pub(crate) fn followed(&self) -> u64 {
        self.followed
    }

    /// Index of the record that made a topic, as it is now, in this log: messages before it are of an earlier topic
    /// of that name.
    pub(crate) fn topic_since(&self, name: &str) -> Option<u64> {
        self.topics.get(name).map(|topic| topic.since)
    }

    /// Some topics that this log has from before there was a registry, and that no registry has taken over.
    pub(crate) fn unadopted(&self, is_name: impl Fn(&str) -> bool) -> Vec<(String, TopicConfig)> {
        let unadopted = |(name, topic): &(&str, &Topic)| {
            topic.incarnation == 0 && is_registered(name) && is_name(name)
        };
        let topics = self.topics.iter().filter(unadopted).take(TOPICS_OF_RECORD);
        topics.map(|(name, topic)| (name.to_owned(), topic.config)).collect()
    }

    /// The next step for log number `log` to follow the registry; none if it has followed.
    fn next_follow(&self, registry: &Registry, log: u32) -> Option<Follow> {
        let from = self.followed;
        if registry.version() <= from {
            return None;
        }
        let wanted = |name: &str| registry.get(name).map(|topic| topic.wanted(log));
        let mut topics: Vec<_> = match registry.changed_since(from) {
            Some(names) => names.iter().map(|name| ((*name).to_owned(), wanted(name))).collect(),
            None => {
                let own = self.topics.iter().filter(|(_, topic)| topic.incarnation > 0);
                let gone = own.filter(|(name, _)| registry.get(name).is_none());
                let gone = gone.map(|(name, _)| (name.to_owned(), None));
                let differs = |(name, wanted): &(&String, Wanted)| {
                    self.topics.get(name).is_none_or(|topic| !wanted.is(topic))
                };
                let made = registry.topics().map(|(name, topic)| (name, topic.wanted(log)));
                let made = made.filter(differs).map(|(name, wanted)| (name.clone(), Some(wanted)));
                gone.chain(made).take(TOPICS_OF_RECORD + 1).collect()
            }
        };
        let all = topics.len() <= TOPICS_OF_RECORD;
        topics.truncate(TOPICS_OF_RECORD);
        Some(Follow { from, to: if all { registry.version() } else { from }, topics })
    }

    /// Follows the registry.
    pub(super) fn follow(&mut self, index: u64, follow: Follow, arrived: &mut Arrived<'_>) {
        let made_for_this = follow.from == self.followed || Mutant::StaleFollowApplied.is_active();
        if !made_for_this || follow.to < follow.from {
            return;
        }
        for (name, wanted) in follow.topics {
            self.settle(index, name, wanted, arrived);
        }
        self.followed = follow.to;
    }

    /// Gives a topic its decided state; a topic of an earlier incarnation ends first, with everything that it had.
    pub(super) fn settle(
        &mut self,
        index: u64,
        name: String,
        wanted: Option<Wanted>,
        arrived: &mut Arrived<'_>,
    ) {
        let Some(Wanted { incarnation, adopted, config }) = wanted else {
            self.delete_topic(&name, arrived);
            return;
        };
        let mut since = index;
        if let Some(topic) = self.topics.get(&name) {
            let taken_over = topic.incarnation == 0 && adopted;
            let same = topic.incarnation == incarnation || taken_over;
            if same || Mutant::RecreatedTopicKeepsMessages.is_active() {
                since = topic.since;
            } else {
                self.delete_topic(&name, arrived);
            }
        }
        self.topics.set(name, config, incarnation, since);
    }
}

impl Shared {
    /// The record to propose to log number `log`, whose state this is, so that it follows the registry in the home
    /// log's state; none if it has followed.
    pub(crate) fn next_follow(&self, home: &Self, log: u32) -> Option<Follow> {
        // Nobody else holds two states at once, and this one is always the second.
        let home = home.state();
        let state = self.state();
        state.next_follow(home.registry(), log)
    }
}
