//! How a log follows the registry of topics. Its leader sees the home log's state on its own node, and proposes what
//! has changed since the version that the log has followed. A record that was made for another version changes nothing:
//! so one that is late, or comes from an earlier leader, brings no topic back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::super::State;
use super::super::apply::Arrived;
use super::super::machine::Shared;
use super::super::offsets::check_name;
use super::super::rules::Rules;
use super::registry::{Registered, Registry};
use super::{Topic, TopicConfig};
use crate::limits::{FOLLOWED_TOPICS_MAX, STORED_TOPIC_BYTES_MAX};
use crate::mutant::Mutant;

/// Most topics of one record. With names of 127 bytes they take less than 200 KiB.
pub(in crate::state) const RECORD_TOPICS_MAX: usize = 1024;
/// Topics that are put into one record; few in tests, which are about what goes into the next.
pub(crate) const TOPICS_OF_RECORD: usize = if cfg!(test) { 20 } else { RECORD_TOPICS_MAX };

/// What a topic of the registry is in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    incarnation: u64,
    /// A topic that the log has from before there was a registry keeps its messages.
    adopted: bool,
    config: TopicConfig,
}

impl Wanted {
    /// True if the log's topic is of this incarnation, or is taken over as it.
    fn continues(&self, topic: &Topic) -> bool {
        topic.incarnation == self.incarnation || topic.incarnation == 0 && self.adopted
    }

    /// True if the log's topic is this one already.
    fn is(&self, topic: &Topic) -> bool {
        topic.incarnation == self.incarnation && topic.config == self.config
    }
}

/// Topics to have, and topics to delete (without a `Wanted`), as of a version of the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Follow {
    /// The version that the log has followed.
    pub(in crate::state) from: u64,
    /// The version that it has followed then. The same as `from` if more is to come.
    pub(in crate::state) to: u64,
    pub(in crate::state) topics: Vec<(String, Option<Wanted>)>,
}

impl Registered {
    /// What it is in a log.
    pub(in crate::state) fn wanted(&self, log: u32) -> Wanted {
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
    pub(crate) fn unadopted(&self) -> Vec<(String, TopicConfig)> {
        let topics = self.topics.unadopted().take(TOPICS_OF_RECORD);
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
                let known = |name: &str, topic: &Topic| {
                    topic.incarnation > 0 || registry.has_deleted_unreported(name)
                };
                let own = self.topics.iter().filter(|(name, topic)| known(name, topic));
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
    pub(in crate::state) fn follow(
        &mut self,
        index: u64,
        follow: Follow,
        arrived: &mut Arrived<'_>,
    ) {
        let made_for_this = follow.from == self.followed || Mutant::StaleFollowApplied.is_active();
        let too_large = follow.topics.len() > RECORD_TOPICS_MAX && self.rules >= Rules::Version4;
        if !made_for_this || follow.to < follow.from || too_large {
            return;
        }
        self.settle(index, follow.topics, arrived);
        self.followed = follow.to;
    }

    /// Gives topics their decided states; one of an earlier incarnation ends first, with everything that it had.
    pub(in crate::state) fn settle(
        &mut self,
        index: u64,
        topics: Vec<(String, Option<Wanted>)>,
        arrived: &mut Arrived<'_>,
    ) {
        let ends = |name: &str, wanted: Option<&Wanted>| match (wanted, self.topics.get(name)) {
            (None, _) => true,
            (Some(wanted), Some(topic)) => {
                !wanted.continues(topic) && !Mutant::RecreatedTopicKeepsMessages.is_active()
            }
            (Some(_), None) => false,
        };
        let ended = topics.iter().filter(|(name, wanted)| ends(name, wanted.as_ref()));
        let ended: BTreeSet<_> = ended.map(|(name, _)| name.as_str()).collect();
        self.delete_topics(&ended, arrived);
        for (name, wanted) in topics {
            let Some(Wanted { incarnation, config, .. }) = wanted else { continue };
            let held = self.topics.get(&name);
            let fits = held.is_some()
                || self.topics.len() < FOLLOWED_TOPICS_MAX
                    && check_name("topic", &name, STORED_TOPIC_BYTES_MAX).is_ok();
            if fits || self.rules < Rules::Version4 {
                let since = held.map_or(index, |topic| topic.since);
                self.topics.set(name, config, incarnation, since);
            }
        }
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
