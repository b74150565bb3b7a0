//! What records mean. Builds have changed that, and a log may begin with records of any of them: so the log itself says
//! which rules hold. It begins with the oldest, and a record raises them (`Change::Rules`), at the same place on every
//! node. A node that replays everything and one that goes on from an old checkpoint come to the same state.
//!
//! ```text
//! 2  anything is noted, whatever its size, and locks and offsets know of no topics (this file, `old_locks`)
//! 3  limits; the registry of topics; keys of delayed messages are those of the topic that they were sent to
//! 4  a deletion always leaves a note; what is not understood was written by a newer build
//! ```
//!
//! Builds with the rules 3 did not say so in the log: there the first record that older builds did not have raises them.

use serde::{Deserialize, Serialize};

use super::State;
use super::command::{Answer, Change, OffsetChange, Payload, Refusal};
use super::name::{bounded, is_stand_in};
use super::topics::TopicConfig;
use super::topics::topic_names::is_made_on_demand;
use crate::limits::{ADDR_BYTES_MAX, NODES_MAX, TOPICS_MAX};

/// The rules of one log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub(crate) enum Rules {
    #[default]
    Version2,
    Version3,
    Version4,
}

impl Rules {
    /// Those of this build.
    pub(crate) const NEWEST: Self = Self::Version4;

    /// The number that a record says.
    pub(crate) const fn version(self) -> u32 {
        match self {
            Self::Version2 => 2,
            Self::Version3 => 3,
            Self::Version4 => 4,
        }
    }

    /// The rules of a number; none if this build does not know them.
    fn of_version(version: u32) -> Option<Self> {
        [Self::Version2, Self::Version3, Self::Version4]
            .into_iter()
            .find(|rules| rules.version() == version)
    }

    /// The oldest rules under which there are such records; none if this build does not know them.
    pub(super) fn needed_by(payload: &Payload) -> Option<Self> {
        match payload {
            Payload::Change(Change::Rules { version }) => Self::of_version(*version),
            Payload::Change(Change::ReportedOffsets(_)) => Some(Self::Version4),
            Payload::Change(Change::Decide(_) | Change::Follow(_)) | Payload::Deliveries(_) => {
                Some(Self::Version3)
            }
            _ => Some(Self::Version2),
        }
    }
}

impl State {
    /// What records mean in this log.
    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    /// Raises the rules. What older ones let in, and newer ones do not, goes.
    pub(super) fn raise(&mut self, to: Rules) {
        if self.rules < Rules::Version3 && to >= Rules::Version3 {
            self.end_version_2();
        }
        if self.rules < Rules::Version4 && to >= Rules::Version4 {
            self.registry.end_version_3();
            // A replay knows nothing of what came under the rules 3 before the record that shows them, and takes it for what
            // came under the rules 2.
            self.topics.forget_origins();
        }
        self.rules = self.rules.max(to);
    }

    fn end_version_2(&mut self) {
        let topics = self.topics.iter().map(|(name, _)| name);
        let over = topics.filter(|name| name.is_empty() || is_stand_in(name));
        for name in over.map(str::to_owned).collect::<Vec<_>>() {
            self.topics.remove(&name);
        }
        let topics = &self.topics;
        // An offset of a topic that is gone would be where a group begins in the next one of that name.
        let left_out = self.offsets.keep_within_limits(|topic| {
            topics.get(topic).is_some() || is_made_on_demand(topic) && !is_stand_in(topic)
        });
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "offsets of older records were over the limits, or of topics that are gone"
            );
        }
        self.locks = std::mem::take(&mut self.old_locks).into_locks();
        self.nodes
            .retain(|_, addr| (1..=ADDR_BYTES_MAX).contains(&addr.len()) && !is_stand_in(addr));
        while self.nodes.len() > NODES_MAX {
            self.nodes.pop_first();
        }
    }

    /// Makes a change as it was made under the rules 2.
    pub(super) fn change_by_version_2(
        &mut self,
        change: Change,
        arrived: &mut super::apply::Arrived<'_>,
    ) -> Result<Answer, Refusal> {
        match change {
            Change::Lead { node, addr } => {
                self.nodes.insert(node, bounded(&addr).into_owned());
                self.leader = node;
            }
            Change::PutTopic { name, config } => self.put_old_topic(&name, config)?,
            Change::EnsureTopic { name, config } => {
                if self.topics.get(&bounded(&name)).is_none() {
                    self.put_old_topic(&name, config)?;
                }
            }
            Change::DeleteTopic { name } => self.delete_old_topic(&name, arrived),
            Change::Offsets(changes) => {
                for OffsetChange { group, topic, queue, offset } in changes {
                    self.offsets.set_old(&bounded(&group), &bounded(&topic), queue, offset)?;
                }
            }
            Change::Lock { request, now_ms } => {
                return Ok(Answer::Locked(self.old_locks.lock(request, now_ms)));
            }
            Change::Unlock(request) => self.old_locks.unlock(&request),
            Change::Decide(_) | Change::Follow(_) | Change::ReportedOffsets(_) => {
                debug_assert!(false, "it raises the rules first");
            }
            Change::Rules { .. } => {}
        }
        Ok(Answer::Done)
    }

    fn put_old_topic(&mut self, name: &str, config: TopicConfig) -> Result<(), Refusal> {
        let name = bounded(name);
        if self.topics.get(&name).is_none() && self.topics.len() >= TOPICS_MAX {
            return Err(Refusal::Full(format!("there are {TOPICS_MAX} topics, which is the most")));
        }
        self.topics.set(name.into_owned(), config, 0, 0);
        Ok(())
    }

    /// Locks stayed.
    fn delete_old_topic(&mut self, name: &str, arrived: &mut super::apply::Arrived<'_>) {
        let held = bounded(name);
        let queues = self.topics.remove(&held).map_or(0, |topic| topic.config.queues());
        (0..queues).for_each(|queue| arrived(name, queue));
        self.recent.forget_topic(name);
        self.offsets.remove_topics(&[&*held].into());
    }
}
