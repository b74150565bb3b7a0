//! Locks as they were kept under the rules 2: one that was not renewed stayed until another client took its queue. They are
//! kept here until the rules are raised, and no longer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::command::LockRequest;
use super::super::locks::{LOCK_LEASE_MS, Locks};
use super::super::name::{Name, bounded, is_stand_in};
use crate::limits::{LOCK_QUEUES_MAX, LOCKING_GROUPS_MAX, LOCKS_OF_GROUP_MAX, OLD_LOCKS_MAX};
use crate::mutant::Mutant;

/// Who holds a queue, and when the lock was last renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OldHolder {
    client: Name,
    since_ms: i64,
}

impl OldHolder {
    fn is_valid(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.since_ms) < LOCK_LEASE_MS
    }
}

/// The locks of one group, by topic and queue.
type OfGroup = BTreeMap<(Name, u32), OldHolder>;

/// The locks of all groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct OldLocks {
    groups: BTreeMap<Name, OfGroup>,
    /// How many there are.
    count: usize,
}

impl OldLocks {
    /// A lock of a checkpoint of version 2, unless there are too many.
    pub(in crate::state) fn put(
        &mut self,
        group: &str,
        topic: &str,
        queue: u32,
        client: &str,
        since_ms: i64,
    ) {
        let [group, topic, client] = [group, topic, client].map(|name| Name::from(&*bounded(name)));
        let holder = OldHolder { client, since_ms };
        let held = self.groups.entry(group).or_default();
        let key = (topic, queue);
        if self.count < OLD_LOCKS_MAX
            || held.contains_key(&key)
            || Mutant::OldLocksUnbounded.is_active()
        {
            self.count += usize::from(held.insert(key, holder).is_none());
        }
    }

    /// A group of a checkpoint of version 2, which may hold nothing.
    pub(in crate::state) fn put_group(&mut self, group: &str) {
        self.groups.entry(Name::from(&*bounded(group))).or_default();
    }

    /// Gives the client what nobody else holds; returns what it holds of what it asked for.
    pub(in crate::state) fn lock(
        &mut self,
        request: LockRequest,
        now_ms: i64,
    ) -> Vec<(String, u32)> {
        let group = bounded(&request.group);
        if self.groups.len() >= LOCKING_GROUPS_MAX && !self.groups.contains_key(&*group) {
            return Vec::new();
        }
        let held = self.groups.entry(Name::from(&*group)).or_default();
        let client = Name::from(&*bounded(&request.client));
        let mut locked = Vec::new();
        for (topic, queue) in request.queues {
            let key = (Name::from(&*bounded(&topic)), queue);
            if held.len() >= LOCKS_OF_GROUP_MAX && !held.contains_key(&key) {
                let before = held.len();
                held.retain(|_, holder| holder.is_valid(now_ms));
                self.count -= before - held.len();
                if held.len() >= LOCKS_OF_GROUP_MAX {
                    break;
                }
            }
            let before = held.get(&key);
            let taken = before.is_some_and(|of| of.client != client && of.is_valid(now_ms));
            if taken || before.is_none() && self.count >= OLD_LOCKS_MAX {
                continue;
            }
            let holder = OldHolder { client: client.clone(), since_ms: now_ms };
            self.count += usize::from(held.insert(key, holder).is_none());
            locked.push((topic, queue));
        }
        locked
    }

    /// Gives queues back.
    pub(in crate::state) fn unlock(&mut self, request: &LockRequest) {
        let group = bounded(&request.group);
        let Some(held) = self.groups.get_mut(&*group) else { return };
        let client = bounded(&request.client);
        for (topic, queue) in &request.queues {
            let key = (Name::from(&*bounded(topic)), *queue);
            if held.get(&key).is_some_and(|holder| *holder.client == *client) {
                held.remove(&key);
                self.count -= 1;
            }
        }
        if held.is_empty() {
            self.groups.remove(&*group);
        }
    }

    /// The same locks under today's rules, each as of when it was renewed, and without those over a limit.
    pub(in crate::state) fn into_locks(self) -> Locks {
        let (mut locks, mut left_out) = (Locks::default(), 0);
        for (group, held) in self.groups {
            let mut requests: BTreeMap<(i64, Name), Vec<(String, u32)>> = BTreeMap::new();
            for ((topic, queue), OldHolder { client, since_ms }) in held {
                if [&group, &topic, &client].into_iter().any(|name| is_stand_in(name)) {
                    left_out += 1;
                    continue;
                }
                requests.entry((since_ms, client)).or_default().push((topic.to_string(), queue));
            }
            for ((since_ms, client), queues) in requests {
                for queues in queues.chunks(LOCK_QUEUES_MAX) {
                    let (group, client) = (group.to_string(), client.to_string());
                    let request = LockRequest { group, client, queues: queues.to_vec() };
                    let locked = locks.lock(request, since_ms).map_or(0, |locked| locked.len());
                    left_out += queues.len() - locked;
                }
            }
        }
        if left_out > 0 {
            tracing::warn!(left_out, "locks of older records were over the limits");
        }
        locks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_version_2_brings_no_more_locks_than_there_may_be() {
        let mut locks = OldLocks::default();
        let most = u32::try_from(OLD_LOCKS_MAX).expect("a number of queues");
        for queue in 0..most + 2 {
            locks.put("group", "topic", queue, "client", 7);
        }
        let held: usize = locks.groups.values().map(BTreeMap::len).sum();
        assert_eq!((locks.count, held), (OLD_LOCKS_MAX, OLD_LOCKS_MAX));
        // Those that are there are as the checkpoint has them last.
        locks.put("group", "topic", 3, "another", 8);
        let key = (Name::from("topic"), 3);
        assert_eq!(&*locks.groups["group"][&key].client, "another");
    }
}
