//! Which consumer holds which queue. Locks that nobody renews are taken out as others are asked for, a few groups with
//! each request, so that abandoned ones do not use up the room.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use serde::{Deserialize, Serialize, Serializer};

use super::command::{LockRequest, Refusal};
use super::name::Name;
use super::offsets::check_name;
use crate::limits::{
    CLIENT_BYTES_MAX, GROUP_BYTES_MAX, LOCK_QUEUES_MAX, LOCKING_CLIENTS_MAX, LOCKING_GROUPS_MAX,
    LOCKS_BYTES_MAX, LOCKS_OF_GROUP_MAX, QUEUES_MAX, STORED_TOPIC_BYTES_MAX,
};
use crate::mutant::Mutant;

/// How long a queue stays locked without being renewed, as in RocketMQ.
pub(super) const LOCK_LEASE_MS: i64 = 60_000;
/// Groups that one request looks through for locks that were not renewed.
const SWEPT_GROUPS: usize = 2;
/// The same, while there is no room for another group.
const SWEPT_GROUPS_FULL: usize = 64;

/// About the memory that each of these takes beside its name.
const GROUP_COST: usize = 256;
const CLIENT_COST: usize = 64;
const TOPIC_COST: usize = 512;
const QUEUE_COST: usize = 48;

/// The holder of a queue, and when the lock was last renewed, by the leaders' lease clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    /// Its place among the group's clients.
    client: u32,
    since_ms: i64,
}

impl Holder {
    fn is_valid(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.since_ms) < LOCK_LEASE_MS
    }
}

/// A client that holds locks. Its id is here once, however many queues it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Client {
    id: String,
    /// Queues that it holds; without any, the place is free for another client.
    held: u32,
}

/// The locks of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OfGroup {
    clients: Vec<Client>,
    topics: BTreeMap<Name, BTreeMap<u32, Holder>>,
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
            for topic in held.topics.keys() {
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

/// What went with some locks of a group: about so much memory, and the last queue of these topics.
#[derive(Default)]
struct Freed {
    bytes: usize,
    topics: Vec<Name>,
}

impl OfGroup {
    fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.topics.values().flat_map(BTreeMap::values)
    }

    fn count(&self) -> usize {
        self.clients.iter().map(|client| client.held as usize).sum()
    }

    fn number(&self, client: &str) -> Option<u32> {
        let at = self.clients.iter().position(|held| held.held > 0 && held.id == client)?;
        u32::try_from(at).ok()
    }

    /// The client's place, and what a new one costs; none if there are too many.
    fn number_or_new(&mut self, client: &str) -> Option<(u32, usize)> {
        if let Some(number) = self.number(client) {
            return Some((number, 0));
        }
        let free = self.clients.iter().position(|held| held.held == 0);
        let at = free.unwrap_or(self.clients.len());
        if at >= LOCKING_CLIENTS_MAX {
            return None;
        }
        let new = Client { id: client.to_owned(), held: 0 };
        match self.clients.get_mut(at) {
            Some(place) => *place = new,
            None => self.clients.push(new),
        }
        Some((u32::try_from(at).ok()?, CLIENT_COST + client.len()))
    }

    /// One queue less for a client; returns what is saved.
    fn release(clients: &mut [Client], client: u32) -> usize {
        let Some(client) = clients.get_mut(client as usize) else { return 0 };
        client.held = client.held.saturating_sub(1);
        if client.held > 0 {
            return QUEUE_COST;
        }
        QUEUE_COST + CLIENT_COST + std::mem::take(&mut client.id).len()
    }

    /// Takes out locks that were not renewed within the lease.
    fn expire(&mut self, now_ms: i64) -> Freed {
        let mut freed = Freed::default();
        let clients = &mut self.clients;
        self.topics.retain(|topic, queues| {
            queues.retain(|_, holder| {
                let kept = holder.is_valid(now_ms);
                if !kept {
                    freed.bytes += Self::release(clients, holder.client);
                }
                kept
            });
            if queues.is_empty() {
                freed.bytes += TOPIC_COST + topic.len();
                freed.topics.push(topic.clone());
            }
            !queues.is_empty()
        });
        self.trim();
        freed
    }

    /// Takes out the locks of a topic; returns what is saved.
    fn remove_topic(&mut self, topic: &str) -> usize {
        let Some(queues) = self.topics.remove(topic) else { return 0 };
        let clients = &mut self.clients;
        let released = queues.values().map(|holder| Self::release(clients, holder.client));
        let saved = released.sum::<usize>() + TOPIC_COST + topic.len();
        self.trim();
        saved
    }

    /// Forgets places of clients that hold nothing, but for those with others behind them.
    fn trim(&mut self) {
        while self.clients.pop_if(|client| client.held == 0).is_some() {}
    }

    /// Takes a queue from a client, if it holds it; returns what is saved.
    fn unlock(&mut self, topic: &str, queue: u32, client: u32) -> usize {
        let Some(queues) = self.topics.get_mut(topic) else { return 0 };
        if queues.get(&queue).is_none_or(|holder| holder.client != client) {
            return 0;
        }
        queues.remove(&queue);
        let mut saved = Self::release(&mut self.clients, client);
        if queues.is_empty() {
            self.topics.remove(topic);
            saved += TOPIC_COST + topic.len();
        }
        saved
    }

    /// Gives a queue to a client, if it is free or the client's own already, and costs no more than `room`. Returns what
    /// it costs.
    fn take(&mut self, topic: &Name, queue: u32, new: Holder, room: usize) -> Option<usize> {
        let mut cost = QUEUE_COST;
        if let Some(queues) = self.topics.get_mut(topic) {
            if let Some(holder) = queues.get_mut(&queue) {
                if holder.client == new.client || Mutant::LockTakenFromOwner.is_active() {
                    *holder = new;
                    return Some(0);
                }
                return None;
            }
        } else {
            cost += TOPIC_COST + topic.len();
        }
        if cost > room {
            return None;
        }
        self.topics.entry(topic.clone()).or_default().insert(queue, new);
        self.clients[new.client as usize].held += 1;
        Some(cost)
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
        let holders = self.groups.values().flat_map(OfGroup::holders);
        holders.map(|holder| holder.since_ms).max().unwrap_or(0)
    }

    /// True if a consumer of the group holds a queue that was locked or renewed within the lease.
    pub(super) fn are_held(&self, group: &str, now_ms: i64) -> bool {
        let group = self.groups.get(group);
        group.is_some_and(|group| group.holders().any(|holder| holder.is_valid(now_ms)))
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
        if let Some((number, cost)) = held.number_or_new(&client) {
            self.bytes += cost;
            let holder = Holder { client: number, since_ms: now_ms };
            let mut count = held.count();
            for (topic, queue) in queues {
                let full = count >= LOCKS_OF_GROUP_MAX;
                let room = if full { 0 } else { LOCKS_BYTES_MAX.saturating_sub(self.bytes) };
                // One allocation for a topic's name, however many groups hold queues of it.
                let known = self.by_topic.get_key_value(&*topic).map(|(known, _)| known.clone());
                let known = known.unwrap_or_else(|| topic.as_str().into());
                if let Some(cost) = held.take(&known, queue, holder, room) {
                    self.bytes += cost;
                    count += usize::from(cost > 0);
                    if cost > QUEUE_COST {
                        self.by_topic.entry(known).or_default().insert(name.clone());
                    }
                    locked.push((topic, queue));
                }
            }
            if locked.is_empty() && cost > 0 {
                self.bytes -= cost;
                held.clients[number as usize].id = String::new();
                held.trim();
            }
        }
        self.drop_if_empty(&group);
        Ok(locked)
    }

    /// Gives queues back.
    pub(super) fn unlock(&mut self, request: &LockRequest) {
        let Some(held) = self.groups.get_mut(&*request.group) else { return };
        let Some(client) = held.number(&request.client) else { return };
        let mut freed = Vec::new();
        for (topic, queue) in &request.queues {
            let saved = held.unlock(topic, *queue, client);
            self.bytes -= saved;
            if saved > 0 && !held.topics.contains_key(&**topic) {
                freed.push(topic.as_str());
            }
        }
        held.trim();
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
        if self.groups.get(group).is_some_and(|held| held.topics.is_empty()) {
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
