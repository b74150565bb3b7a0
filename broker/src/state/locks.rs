//! Which consumer holds which queue. Locks that nobody renews are taken out as others are asked for, a few groups with
//! each request, so that abandoned ones do not use up the room.

mod clients;
mod of_group;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use of_group::{Holder, OfGroup};
use serde::{Deserialize, Serialize, Serializer};

use super::command::{LockRequest, Refusal};
use super::name::Name;
use super::offsets::check_name;
use crate::limits::{
    CLIENT_BYTES_MAX, GROUP_BYTES_MAX, LOCK_QUEUES_MAX, LOCKING_GROUPS_MAX, LOCKS_BYTES_MAX,
    LOCKS_OF_GROUP_MAX, QUEUES_MAX, STORED_TOPIC_BYTES_MAX,
};

/// How long a queue stays locked without being renewed, as in RocketMQ.
pub(super) const LOCK_LEASE_MS: i64 = 60_000;
/// How old a lock is that a consumer renews; RocketMQ's renew theirs after 20 s.
const RENEWED_AFTER_MS: i64 = LOCK_LEASE_MS / 6;
/// Groups that one request looks through for locks that were not renewed.
const SWEPT_GROUPS: usize = 2;
/// The same, while there is no room for another group.
const SWEPT_GROUPS_FULL: usize = 64;

/// About the memory that each of these takes beside its name.
const GROUP_COST: usize = 256;
const CLIENT_COST: usize = 64;
const TOPIC_COST: usize = 512;
const QUEUE_COST: usize = 48;

#[cfg(test)]
thread_local! {
    /// Locks that were looked at by their time: what a record costs beside the queues that it names.
    pub(super) static EXAMINED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts a lock that is looked at by its time.
fn note_examined() {
    #[cfg(test)]
    EXAMINED.set(EXAMINED.get() + 1);
}

/// The locks of all groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Form")]
pub(super) struct Locks {
    groups: BTreeMap<Name, OfGroup>,
    /// Topics, each with the groups that hold queues of it: the same from the other side.
    by_topic: BTreeMap<Name, BTreeSet<Name>>,
    /// The group that was looked through last.
    swept: Option<Name>,
    /// About the memory that they take.
    bytes: usize,
}

/// What a checkpoint has of it.
#[derive(Deserialize)]
struct Form(BTreeMap<Name, OfGroup>, Option<Name>, usize);

impl From<Form> for Locks {
    fn from(Form(groups, swept, bytes): Form) -> Self {
        let mut by_topic: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for (group, held) in &groups {
            for topic in held.topics() {
                by_topic.entry(topic.clone()).or_default().insert(group.clone());
            }
        }
        Self { groups, by_topic, swept, bytes }
    }
}

impl Serialize for Locks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.groups, &self.swept, self.bytes).serialize(serializer)
    }
}

impl LockRequest {
    /// Checks that it is within the limits.
    ///
    /// # Errors
    /// It is not.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_name("group", &self.group, GROUP_BYTES_MAX)?;
        check_name("client", &self.client, CLIENT_BYTES_MAX)?;
        if self.queues.len() > LOCK_QUEUES_MAX {
            let count = self.queues.len();
            let detail =
                format!("{count} queues to lock at once, and the limit is {LOCK_QUEUES_MAX}");
            return Err(Refusal::TooLarge(detail));
        }
        for (topic, queue) in &self.queues {
            check_name("topic", topic, STORED_TOPIC_BYTES_MAX)?;
            if *queue >= QUEUES_MAX {
                return Err(Refusal::TooLarge(format!("queue {queue} of a topic")));
            }
        }
        Ok(())
    }
}

impl Locks {
    /// When the newest lock was taken or renewed; 0 if nothing is locked.
    pub(super) fn newest_ms(&self) -> i64 {
        self.groups.values().filter_map(OfGroup::newest_ms).max().unwrap_or(0)
    }

    /// True if a consumer of the group holds a queue that was locked or renewed within the lease.
    pub(super) fn are_held(&self, group: &str, now_ms: i64) -> bool {
        self.groups.get(group).is_some_and(|group| group.is_held(now_ms))
    }

    /// True if the client holds all that it asks for, and has not renewed any of it lately.
    pub(super) fn are_renewed_by(&self, request: &LockRequest, now_ms: i64) -> bool {
        let Some(held) = self.groups.get(&*request.group) else { return false };
        let Some(client) = held.clients.place(&request.client) else { return false };
        let is_due = |holder: Holder| {
            let age_ms = now_ms.saturating_sub(holder.since_ms);
            holder.client == client && (RENEWED_AFTER_MS..LOCK_LEASE_MS).contains(&age_ms)
        };
        let mut queues = request.queues.iter();
        queues.all(|(topic, queue)| held.holder(topic, *queue).is_some_and(is_due))
    }

    /// Gives the client what nobody else holds; returns what it holds of what it asked for.
    ///
    /// # Errors
    /// The request is over a limit, or there is no room for another group or client.
    pub(super) fn lock(
        &mut self,
        request: LockRequest,
        now_ms: i64,
    ) -> Result<Vec<(String, u32)>, Refusal> {
        request.check()?;
        self.sweep(now_ms, SWEPT_GROUPS);
        let LockRequest { group, client, queues } = request;
        if !self.groups.contains_key(&*group) {
            if self.groups.len() >= LOCKING_GROUPS_MAX {
                self.sweep(now_ms, SWEPT_GROUPS_FULL);
            }
            if self.groups.len() >= LOCKING_GROUPS_MAX {
                let detail = format!("{LOCKING_GROUPS_MAX} groups hold locks, which is the most");
                return Err(Refusal::Full(detail));
            }
            self.bytes += GROUP_COST + group.len();
            self.groups.insert((&*group).into(), OfGroup::default());
        }
        // What was not renewed is free for everybody.
        self.expire(&group, now_ms);
        let Some((name, _)) = self.groups.get_key_value(&*group) else { return Ok(Vec::new()) };
        let name = name.clone();
        let Some(held) = self.groups.get_mut(&*group) else { return Ok(Vec::new()) };
        let mut locked = Vec::new();
        if let Some((place, cost)) = held.clients.place_or_new(&client) {
            self.bytes += cost;
            let holder = Holder { client: place, since_ms: now_ms };
            for (topic, queue) in queues {
                let full = held.clients.held() >= LOCKS_OF_GROUP_MAX;
                let room = if full { 0 } else { LOCKS_BYTES_MAX.saturating_sub(self.bytes) };
                // One allocation for a topic's name, however many groups hold queues of it.
                let known = self.by_topic.get_key_value(&*topic).map(|(known, _)| known.clone());
                let known = known.unwrap_or_else(|| topic.as_str().into());
                if let Some(cost) = held.take(&known, queue, holder, room) {
                    self.bytes += cost;
                    if cost > QUEUE_COST {
                        self.by_topic.entry(known).or_default().insert(name.clone());
                    }
                    locked.push((topic, queue));
                }
            }
            if locked.is_empty() && cost > 0 {
                self.bytes -= cost;
                held.clients.drop_new(place);
            }
        }
        self.drop_if_empty(&group);
        Ok(locked)
    }

    /// Gives queues back.
    pub(super) fn unlock(&mut self, request: &LockRequest) {
        let Some(held) = self.groups.get_mut(&*request.group) else { return };
        let Some(client) = held.clients.place(&request.client) else { return };
        let mut freed = Vec::new();
        for (topic, queue) in &request.queues {
            let saved = held.unlock(topic, *queue, client);
            self.bytes -= saved;
            if saved > 0 && !held.has_topic(topic) {
                freed.push(topic.as_str());
            }
        }
        held.clients.trim();
        freed.into_iter().for_each(|topic| self.unlink(topic, &request.group));
        self.drop_if_empty(&request.group);
    }

    /// Forgets the locks of a topic that is gone. What that costs depends on how many there are.
    pub(super) fn remove_topic(&mut self, topic: &str) {
        for group in self.by_topic.remove(topic).unwrap_or_default() {
            let Some(held) = self.groups.get_mut(&*group) else { continue };
            self.bytes -= held.remove_topic(topic);
            self.drop_if_empty(&group);
        }
    }

    /// Takes out what was not renewed in a group.
    fn expire(&mut self, group: &str, now_ms: i64) {
        let Some(held) = self.groups.get_mut(group) else { return };
        let freed = held.expire(now_ms);
        self.bytes -= freed.bytes;
        freed.topics.iter().for_each(|topic| self.unlink(topic, group));
    }

    /// The group holds no queue of a topic any more.
    fn unlink(&mut self, topic: &str, group: &str) {
        let Some(groups) = self.by_topic.get_mut(topic) else { return };
        groups.remove(group);
        if groups.is_empty() {
            self.by_topic.remove(topic);
        }
    }

    fn drop_if_empty(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(|held| held.is_empty()) {
            self.groups.remove(group);
            self.bytes -= GROUP_COST + group.len();
        }
    }

    /// Takes out what was not renewed in the next groups.
    fn sweep(&mut self, now_ms: i64, groups: usize) {
        for _ in 0..groups {
            let from = self.swept.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.groups.range::<str, _>((from, Bound::Unbounded)).next();
            let Some(name) = next.map(|(name, _)| name.clone()) else {
                self.swept = None;
                return;
            };
            self.expire(&name, now_ms);
            self.drop_if_empty(&name);
            self.swept = Some(name);
        }
    }

    #[cfg(test)]
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Topics of which queues are held.
    #[cfg(test)]
    pub(super) fn topics(&self) -> usize {
        self.by_topic.len()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
