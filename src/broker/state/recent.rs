//! Keys of the messages that were stored last, so that a producer's retry does not store another copy.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::command::Placed;

/// Keys that are remembered. At a thousand messages a second that is more than a minute: a producer tries again for seconds.
pub(super) const KEYS_MAX: usize = 65_536;

/// Topic and unique key.
type Key = (String, String);

/// Where the last messages are, by their keys. The oldest is forgotten for the newest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recent {
    order: VecDeque<Key>,
    places: BTreeMap<Key, Placed>,
}

impl Recent {
    /// Where a message of this key is.
    pub(super) fn get(&self, key: &Key) -> Option<Placed> {
        self.places.get(key).copied()
    }

    /// Remembers a key that is not remembered.
    pub(super) fn put(&mut self, key: Key, placed: Placed) {
        while self.order.len() >= KEYS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.places.remove(&oldest);
            }
        }
        self.order.push_back(key.clone());
        self.places.insert(key, placed);
    }

    /// Forgets the keys of a topic that is gone.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.order.retain(|(of, _)| of != topic);
        self.places.retain(|(of, _), _| of != topic);
    }
}
