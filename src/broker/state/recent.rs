//! Keys of the messages that were stored last, so that a producer's retry does not store another copy. Of a key only a
//! digest is kept: what one costs does not depend on its length.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::command::Placed;
use crate::mutant::Mutant;

/// Keys that are remembered. At a thousand messages a second that is more than a minute: a producer tries again for seconds.
pub(super) const KEYS_MAX: usize = 65_536;

/// Bytes of a SHA-256 digest that are kept. Producers choose keys, so that two with one digest must be beyond anybody's
/// means: the second message would count as a copy of the first.
const DIGEST_BYTES: usize = 16;

/// A topic and a unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Digest {
    /// Of the topic alone, so that its keys lie together.
    topic: [u8; 8],
    key: [u8; DIGEST_BYTES],
}

/// The first bytes of a digest of `parts`, each with its length.
fn digest<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update((part.len() as u64).to_le_bytes());
        sha.update(part.as_bytes());
    }
    let whole = sha.finalize();
    std::array::from_fn(|at| whole[at])
}

impl Digest {
    /// The digest of a topic's key.
    pub(super) fn of(topic: &str, key: &str) -> Self {
        Self { topic: digest(&[topic]), key: digest(&[topic, key]) }
    }
}

/// Where the last messages are, by their keys. The oldest is forgotten for the newest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recent {
    order: VecDeque<Digest>,
    places: BTreeMap<Digest, Placed>,
}

impl Recent {
    /// Where a message of this key is.
    pub(super) fn get(&self, key: &Digest) -> Option<Placed> {
        self.places.get(key).copied()
    }

    /// Remembers a key that is not remembered.
    pub(super) fn put(&mut self, key: Digest, placed: Placed) {
        while self.order.len() >= KEYS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.places.remove(&oldest);
            }
        }
        self.order.push_back(key);
        self.places.insert(key, placed);
    }

    /// Forgets the keys of a topic that is gone.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        let topic = digest(&[topic]);
        let bounds = [0, u8::MAX].map(|byte| Digest { topic, key: [byte; DIGEST_BYTES] });
        let [first, last] = bounds;
        let none = self.places.range(first..=last).next().is_none();
        if none || Mutant::KeysOfDeletedTopicRemembered.is_active() {
            return;
        }
        self.order.retain(|key| key.topic != topic);
        self.places.retain(|key, _| key.topic != topic);
    }
}
