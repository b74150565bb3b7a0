//! Consumer groups, as far as the log knows them: by what they have consumed.

use std::collections::BTreeSet;

use super::topics::State;

impl State {
    /// Groups that have consumed something, by name.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &str> {
        self.offsets.keys().map(String::as_str)
    }

    /// True for a group that has consumed something.
    pub(crate) fn has_group(&self, group: &str) -> bool {
        self.offsets.contains_key(group)
    }

    /// Topics that a group has consumed.
    pub(crate) fn topics_of_group(&self, group: &str) -> BTreeSet<String> {
        let offsets = self.offsets.get(group).into_iter().flatten();
        offsets.map(|((topic, _), _)| topic.clone()).collect()
    }

    /// Groups that have consumed a topic.
    pub(crate) fn groups_of_topic(&self, topic: &str) -> BTreeSet<String> {
        let of_topic = |name: &(String, u32)| name.0 == topic;
        let groups = self.offsets.iter().filter(|(_, offsets)| offsets.keys().any(of_topic));
        groups.map(|(group, _)| group.clone()).collect()
    }
}
