//! How far consumer groups have consumed the queues of topics. What a record costs does not depend on how many groups
//! there are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize, Serializer};

use super::command::Refusal;
use super::name::{Name, is_stand_in};
use crate::limits::{
    GROUP_BYTES_MAX, OFFSETS_BYTES_MAX, OFFSETS_MAX, QUEUES_MAX, STORED_TOPIC_BYTES_MAX,
    TOPICS_OF_GROUP_MAX,
};
use crate::mutant::Mutant;

/// About the memory that a group takes beside its name, a topic of a group beside its queues, and a queue's offset.
const GROUP_COST: usize = 128;
const TOPIC_COST: usize = 128;
const QUEUE_COST: usize = 16;
/// As many topics are removed from a group one by one.
const FEW_TOPICS: usize = 4;

/// From which name on, without end.
pub(crate) type NameBounds<'a> = (Bound<&'a str>, Bound<&'a str>);

/// All names.
#[cfg(test)]
pub(super) const ALL: NameBounds<'static> = (Bound::Unbounded, Bound::Unbounded);

/// What a group has consumed of one topic: offsets by queue, in the order of the queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Consumed {
    topic: Name,
    offsets: Vec<(u32, u64)>,
}

/// A group's topics, in the order of their names.
type OfGroup = Vec<Consumed>;

/// Consumed offsets of all groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<Name, OfGroup>")]
pub(super) struct Offsets {
    groups: BTreeMap<Name, OfGroup>,
    /// Topics, each with its groups: the same from the other side.
    by_topic: BTreeMap<Name, BTreeSet<Name>>,
    /// How many offsets there are.
    count: usize,
    /// About the memory that they take.
    bytes: usize,
}

impl Serialize for Offsets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.groups.serialize(serializer)
    }
}

impl From<BTreeMap<Name, OfGroup>> for Offsets {
    fn from(groups: BTreeMap<Name, OfGroup>) -> Self {
        let mut offsets = Self::default();
        for (group, topics) in groups {
            for Consumed { topic, offsets: of_topic } in topics {
                // The rules under which they were noted had their limits.
                for (queue, offset) in of_topic {
                    offsets.add(&group, &topic, queue, offset);
                }
            }
        }
        offsets
    }
}

/// Where a topic is among those of a group, or belongs.
fn place(of_group: &[Consumed], topic: &str) -> Result<usize, usize> {
    of_group.binary_search_by(|consumed| (*consumed.topic).cmp(topic))
}

fn full(what: impl Into<String>) -> Refusal {
    Refusal::Full(what.into())
}

impl Offsets {
    /// How far a group has consumed a queue.
    pub(super) fn get(&self, group: &str, topic: &str, queue: u32) -> Option<u64> {
        let of_group = self.groups.get(group)?;
        let offsets = &of_group[place(of_group, topic).ok()?].offsets;
        let at = offsets.binary_search_by_key(&queue, |(queue, _)| *queue).ok()?;
        Some(offsets[at].1)
    }

    /// Sets how far a group has consumed a queue.
    ///
    /// # Errors
    /// A name is too long or a queue's number too large, or there is no room for another offset.
    pub(super) fn set(
        &mut self,
        group: &str,
        topic: &str,
        queue: u32,
        offset: u64,
    ) -> Result<(), Refusal> {
        // A group or a topic that is noted already is within the limits.
        if let Some(held) = self.held(group, topic, queue) {
            *held = offset;
            return Ok(());
        }
        check_name("group", group, GROUP_BYTES_MAX)?;
        check_name("topic", topic, STORED_TOPIC_BYTES_MAX)?;
        if queue >= QUEUES_MAX {
            return Err(Refusal::TooLarge(format!("queue {queue} of a topic")));
        }
        self.check_count()?;
        let topics = self.groups.get(group).map_or(0, Vec::len);
        if topics >= TOPICS_OF_GROUP_MAX && !self.has_topic(group, topic) {
            let detail = format!(
                "group {group} has consumed {TOPICS_OF_GROUP_MAX} topics, which is the most"
            );
            return Err(full(detail));
        }
        if self.bytes + self.cost(group, topic) > OFFSETS_BYTES_MAX {
            return Err(full(format!("offsets take {OFFSETS_BYTES_MAX} bytes, which is the most")));
        }
        self.add(group, topic, queue, offset);
        Ok(())
    }

    /// Sets how far a group has consumed a queue, by the rules 2: only the number of offsets is limited.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn set_old(
        &mut self,
        group: &str,
        topic: &str,
        queue: u32,
        offset: u64,
    ) -> Result<(), Refusal> {
        if let Some(held) = self.held(group, topic, queue) {
            *held = offset;
            return Ok(());
        }
        self.check_count()?;
        self.add(group, topic, queue, offset);
        Ok(())
    }

    /// Forgets what is over a limit, and the offsets of topics that are not there; returns how many offsets went.
    pub(super) fn keep_within_limits(&mut self, is_there: impl Fn(&str) -> bool) -> usize {
        let fits = |group: &str, of: &Consumed| {
            !is_stand_in(group) && !is_stand_in(&of.topic) && is_there(&of.topic)
        };
        let all_fit = self.bytes <= OFFSETS_BYTES_MAX
            && self.groups.iter().all(|(group, topics)| {
                check_name("group", group, GROUP_BYTES_MAX).is_ok()
                    && topics.len() <= TOPICS_OF_GROUP_MAX
                    && topics.iter().all(|of| {
                        let last = of.offsets.last().map_or(0, |(queue, _)| *queue);
                        fits(group, of) && !of.topic.is_empty() && last < QUEUES_MAX
                    })
            });
        if all_fit {
            return 0;
        }
        let before = std::mem::take(self);
        for (group, topics) in &before.groups {
            for of in topics.iter().filter(|of| fits(group, of)) {
                for (queue, offset) in &of.offsets {
                    // What is refused is left out.
                    let _ = self.set(group, &of.topic, *queue, *offset);
                }
            }
        }
        before.count - self.count
    }

    /// Checks that another offset may be noted, whoever consumes.
    fn check_count(&self) -> Result<(), Refusal> {
        if self.count >= OFFSETS_MAX {
            return Err(full(format!("{OFFSETS_MAX} offsets are noted, which is the most")));
        }
        Ok(())
    }

    fn has_topic(&self, group: &str, topic: &str) -> bool {
        self.groups.get(group).is_some_and(|of_group| place(of_group, topic).is_ok())
    }

    /// About the memory that another queue of a group takes.
    fn cost(&self, group: &str, topic: &str) -> usize {
        match self.groups.get(group) {
            Some(of_group) if place(of_group, topic).is_ok() => QUEUE_COST,
            Some(_) => TOPIC_COST + topic.len() + QUEUE_COST,
            None => GROUP_COST + group.len() + TOPIC_COST + topic.len() + QUEUE_COST,
        }
    }

    /// Notes a queue that is not noted.
    fn add(&mut self, group: &str, topic: &str, queue: u32, offset: u64) {
        self.bytes += self.cost(group, topic);
        self.count += 1;
        self.insert(group, topic, queue, offset);
    }

    fn held(&mut self, group: &str, topic: &str, queue: u32) -> Option<&mut u64> {
        let of_group = self.groups.get_mut(group)?;
        let at = place(of_group, topic).ok()?;
        let offsets = &mut of_group[at].offsets;
        let at = offsets.binary_search_by_key(&queue, |(queue, _)| *queue).ok()?;
        Some(&mut offsets[at].1)
    }

    fn insert(&mut self, group: &str, topic: &str, queue: u32, offset: u64) {
        let name = match self.groups.get_key_value(group) {
            Some((name, _)) => name.clone(),
            None => group.into(),
        };
        let of_group = self.groups.entry(name.clone()).or_default();
        match place(of_group, topic) {
            Ok(at) => {
                let offsets = &mut of_group[at].offsets;
                let at = offsets.partition_point(|(other, _)| *other < queue);
                offsets.insert(at, (queue, offset));
            }
            Err(at) => {
                // One allocation for a topic's name, however many groups consume it.
                let known = self.by_topic.get_key_value(topic).map(|(known, _)| known.clone());
                let topic = known.unwrap_or_else(|| topic.into());
                self.by_topic.entry(topic.clone()).or_default().insert(name);
                // Most groups have one topic, and many have one queue of it.
                of_group.reserve_exact(usize::from(of_group.is_empty()));
                of_group.insert(at, Consumed { topic, offsets: vec![(queue, offset)] });
            }
        }
    }

    /// Forgets the offsets of topics.
    pub(super) fn remove_topics(&mut self, topics: &BTreeSet<&str>) {
        let mut groups = Vec::new();
        for topic in topics {
            groups.extend(self.by_topic.remove(*topic).unwrap_or_default());
        }
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            let Some(of_group) = self.groups.get_mut(&*group) else { continue };
            let mut gone = |of: &Consumed| {
                self.count -= of.offsets.len();
                self.bytes -= TOPIC_COST + of.topic.len() + QUEUE_COST * of.offsets.len();
            };
            if topics.len() <= FEW_TOPICS {
                for topic in topics {
                    if let Ok(at) = place(of_group, topic) {
                        gone(&of_group.remove(at));
                    }
                }
            } else {
                // In one pass: a group may have many of them.
                of_group.retain(|of| {
                    let stays = !topics.contains(&*of.topic);
                    if !stays {
                        gone(of);
                    }
                    stays
                });
            }
            if of_group.is_empty() {
                self.groups.remove(&*group);
                self.bytes -= GROUP_COST + group.len();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Groups that have consumed something, by name.
    pub(super) fn groups(&self, from: NameBounds<'_>) -> impl Iterator<Item = &str> {
        self.groups.range::<str, _>(from).map(|(group, _)| &**group)
    }

    /// True for a group that has consumed something.
    pub(super) fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    /// Topics that a group has consumed, by name.
    pub(super) fn topics_of_group(
        &self,
        group: &str,
        from: NameBounds<'_>,
    ) -> impl Iterator<Item = &str> {
        let topics = self.groups.get(group).map(Vec::as_slice).unwrap_or_default();
        let skipped = match from.0 {
            Bound::Unbounded => 0,
            Bound::Included(name) => topics.partition_point(|of| *of.topic < *name),
            Bound::Excluded(name) => topics.partition_point(|of| *of.topic <= *name),
        };
        topics[skipped..].iter().map(|consumed| &*consumed.topic)
    }

    /// Groups that have consumed a topic, by name.
    pub(super) fn groups_of_topic(
        &self,
        topic: &str,
        from: NameBounds<'_>,
    ) -> impl Iterator<Item = &str> {
        let groups = self.by_topic.get(topic);
        groups.into_iter().flat_map(move |groups| groups.range::<str, _>(from)).map(|name| &**name)
    }
}

/// Checks a name's length.
///
/// # Errors
/// It is empty or too long.
pub(super) fn check_name(what: &str, name: &str, bytes_max: usize) -> Result<(), Refusal> {
    if (1..=bytes_max).contains(&name.len()) || Mutant::RecordLimitsIgnored.is_active() {
        return Ok(());
    }
    let length = name.len();
    Err(Refusal::TooLarge(format!(
        "the name of a {what} has {length} bytes, and not 1 to {bytes_max}"
    )))
}
