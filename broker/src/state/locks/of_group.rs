//! The locks of one group. What a record costs does not depend on how many queues the group holds: an index by time
//! has those that nobody renews at its beginning.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, Serializer};

use super::clients::Clients;
use super::{LOCK_LEASE_MS, QUEUE_COST, TOPIC_COST, note_examined};
use crate::mutant::Mutant;
use crate::state::name::Name;

/// The holder of a queue, and when the lock was last renewed, by the leaders' lease clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// Its place among the group's clients.
    pub(super) client: u32,
    pub(super) since_ms: i64,
}

fn is_valid(since_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(since_ms) < LOCK_LEASE_MS
}

type OfTopic = BTreeMap<u32, Holder>;

/// The locks of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Form")]
pub(super) struct OfGroup {
    pub(super) clients: Clients,
    topics: BTreeMap<Name, OfTopic>,
    /// All locks by when they were last renewed: the same once more, and in no checkpoint.
    by_time: BTreeSet<(i64, Name, u32)>,
}

/// What a checkpoint has of it.
#[derive(Deserialize)]
struct Form(Clients, BTreeMap<Name, OfTopic>);

impl From<Form> for OfGroup {
    fn from(Form(clients, topics): Form) -> Self {
        let locks = topics.iter().flat_map(|(topic, queues)| {
            queues.iter().map(|(queue, holder)| (holder.since_ms, topic.clone(), *queue))
        });
        let by_time = locks.collect();
        Self { clients, topics, by_time }
    }
}

impl Serialize for OfGroup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.clients, &self.topics).serialize(serializer)
    }
}

/// What went with some locks of a group: about so much memory, and the last queue of these topics.
#[derive(Default)]
pub(super) struct Freed {
    pub(super) bytes: usize,
    pub(super) topics: Vec<Name>,
}

impl OfGroup {
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// True if queues of a topic are held.
    pub(super) fn has_topic(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Topics of which queues are held.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Name> {
        self.topics.keys()
    }

    pub(super) fn holder(&self, topic: &str, queue: u32) -> Option<Holder> {
        self.topics.get(topic)?.get(&queue).copied()
    }

    /// When the newest lock was taken or renewed.
    pub(super) fn newest_ms(&self) -> Option<i64> {
        note_examined();
        self.by_time.last().map(|(since_ms, ..)| *since_ms)
    }

    /// True if a queue was locked or renewed within the lease.
    pub(super) fn is_held(&self, now_ms: i64) -> bool {
        self.newest_ms().is_some_and(|newest_ms| is_valid(newest_ms, now_ms))
    }

    /// Takes out locks that were not renewed within the lease. It looks at those and the next one.
    pub(super) fn expire(&mut self, now_ms: i64) -> Freed {
        let is_over = |lock: &&(i64, Name, u32)| !is_valid(lock.0, now_ms);
        let looked_at = self.by_time.iter().inspect(|_| note_examined());
        let over = looked_at
            .take_while(|lock| is_over(lock) || Mutant::AllLocksLookedAt.is_active())
            .filter(is_over);
        let over: Vec<_> = over.cloned().collect();
        let mut freed = Freed::default();
        for lock in over {
            self.by_time.remove(&lock);
            let (_, topic, queue) = lock;
            let Some(queues) = self.topics.get_mut(&*topic) else { continue };
            if let Some(holder) = queues.remove(&queue) {
                freed.bytes += self.clients.release(holder.client);
            }
            if queues.is_empty() {
                self.topics.remove(&*topic);
                freed.bytes += TOPIC_COST + topic.len();
                freed.topics.push(topic);
            }
        }
        self.clients.trim();
        freed
    }

    /// Takes out the locks of a topic; returns what is saved.
    pub(super) fn remove_topic(&mut self, topic: &str) -> usize {
        let Some((name, queues)) = self.topics.remove_entry(topic) else { return 0 };
        let mut saved = TOPIC_COST + topic.len();
        for (queue, holder) in queues {
            self.by_time.remove(&(holder.since_ms, name.clone(), queue));
            saved += self.clients.release(holder.client);
        }
        self.clients.trim();
        saved
    }

    /// Takes a queue from a client, if it holds it; returns what is saved.
    pub(super) fn unlock(&mut self, topic: &str, queue: u32, client: u32) -> usize {
        let name = self.topics.get_key_value(topic).map(|(name, _)| name.clone());
        let Some((name, queues)) = name.zip(self.topics.get_mut(topic)) else { return 0 };
        let Some(holder) = queues.get(&queue).copied().filter(|holder| holder.client == client)
        else {
            return 0;
        };
        queues.remove(&queue);
        let mut saved = self.clients.release(client);
        if queues.is_empty() {
            self.topics.remove(topic);
            saved += TOPIC_COST + topic.len();
        }
        self.by_time.remove(&(holder.since_ms, name, queue));
        saved
    }

    /// Gives a queue to a client, if it is free or the client's own already, and costs no more than `room`. Returns what
    /// it costs.
    pub(super) fn take(
        &mut self,
        topic: &Name,
        queue: u32,
        new: Holder,
        room: usize,
    ) -> Option<usize> {
        let mut cost = QUEUE_COST;
        if let Some(queues) = self.topics.get_mut(&**topic) {
            if let Some(holder) = queues.get_mut(&queue) {
                if holder.client == new.client || Mutant::LockTakenFromOwner.is_active() {
                    self.by_time.remove(&(holder.since_ms, topic.clone(), queue));
                    self.by_time.insert((new.since_ms, topic.clone(), queue));
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
        self.by_time.insert((new.since_ms, topic.clone(), queue));
        self.clients.take(new.client);
        Some(cost)
    }
}
