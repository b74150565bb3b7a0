//! Keys of the messages that were stored last, so that a producer's retry does not store another copy. Of a key only a
//! digest is kept: what one costs does not depend on its length.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize, Serializer};
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

/// A key's number in their order, and where its message is.
#[derive(Debug, Clone, Copy)]
struct Remembered {
    number: u64,
    placed: Placed,
}

/// Where the last messages are, by their keys. The oldest is forgotten for the newest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Form")]
pub(super) struct Recent {
    /// The keys by number, oldest first.
    order: BTreeMap<u64, Digest>,
    places: BTreeMap<Digest, Remembered>,
    next: u64,
}

/// What a checkpoint has of it: the keys in their order, and their places.
#[derive(Deserialize)]
struct Form(VecDeque<Digest>, BTreeMap<Digest, Placed>);

impl From<Form> for Recent {
    fn from(Form(order, places): Form) -> Self {
        let mut recent = Self::default();
        for key in order {
            if let Some(placed) = places.get(&key) {
                recent.put(key, *placed);
            }
        }
        recent
    }
}

impl Serialize for Recent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let order: Vec<_> = self.order.values().collect();
        let places: BTreeMap<_, _> =
            self.places.iter().map(|(key, remembered)| (key, remembered.placed)).collect();
        (order, places).serialize(serializer)
    }
}

/// Numbers begin again with a restart, and say nothing but the order.
impl PartialEq for Recent {
    fn eq(&self, other: &Self) -> bool {
        let places = |of: &Self, key| of.places.get(key).map(|remembered| remembered.placed);
        self.order.values().eq(other.order.values())
            && self.order.values().all(|key| places(self, key) == places(other, key))
    }
}

impl Eq for Recent {}

impl Recent {
    /// Where a message of this key is.
    pub(super) fn get(&self, key: &Digest) -> Option<Placed> {
        self.places.get(key).map(|remembered| remembered.placed)
    }

    /// Remembers a key that is not remembered.
    pub(super) fn put(&mut self, key: Digest, placed: Placed) {
        while self.order.len() >= KEYS_MAX {
            if let Some((_, oldest)) = self.order.pop_first() {
                self.places.remove(&oldest);
            }
        }
        self.order.insert(self.next, key);
        self.places.insert(key, Remembered { number: self.next, placed });
        self.next += 1;
    }

    /// Forgets the keys of a topic that is gone. What that costs depends on how many it has.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        if Mutant::KeysOfDeletedTopicRemembered.is_active() {
            return;
        }
        let topic = digest(&[topic]);
        let [first, last] = [0, u8::MAX].map(|byte| Digest { topic, key: [byte; DIGEST_BYTES] });
        let gone = self.places.range(first..=last).map(|(key, held)| (*key, held.number));
        for (key, number) in gone.collect::<Vec<_>>() {
            self.places.remove(&key);
            self.order.remove(&number);
        }
    }
}
