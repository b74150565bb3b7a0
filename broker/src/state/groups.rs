//! Consumer groups, as far as the log knows them: by what they have consumed.

use super::State;
use super::offsets::NameBounds;

impl State {
    /// How far a group has consumed a queue.
    pub(crate) fn offset(&self, group: &str, topic: &str, queue: u32) -> Option<u64> {
        self.offsets.get(group, topic, queue)
    }

    /// Groups that have consumed something, by name.
    pub(crate) fn groups(&self, from: NameBounds<'_>) -> impl Iterator<Item = &str> {
        self.offsets.groups(from)
    }

    /// True for a group that has consumed something.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.offsets.has_group(group)
    }

    /// Topics that a group has consumed, by name.
    pub(crate) fn topics_of_group(
        &self,
        group: &str,
        from: NameBounds<'_>,
    ) -> impl Iterator<Item = &str> {
        self.offsets.topics_of_group(group, from)
    }

    /// Groups that have consumed a topic, by name.
    pub(crate) fn groups_of_topic(
        &self,
        topic: &str,
        from: NameBounds<'_>,
    ) -> impl Iterator<Item = &str> {
        self.offsets.groups_of_topic(topic, from)
    }
}
