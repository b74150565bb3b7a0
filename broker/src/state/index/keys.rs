//! Which messages have a key. The newest are in memory; the others in runs in the index files, each of which
//! is a table by the first byte of a key's hash. 40 bytes in memory for 65,536 keys.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::queue::index_of;
use super::index_files::{Block, IndexFiles, Kind, Place};

/// Keys of one run; few in tests, which are about what is between runs.
pub(in crate::state) const RUN_KEYS: usize = if cfg!(test) { 2_048 } else { 65_536 };
/// Parts of a run, by the first byte of a hash.
const BUCKETS: usize = 256;
/// Of each bucket: where it ends, counted in keys, and the CRC of its keys.
const BUCKET_BYTES: usize = 8;
/// Bytes of a run's table.
const TABLE_BYTES: usize = BUCKETS * BUCKET_BYTES;
/// Bytes of a key: hash, second of storing, physical offset.
const KEY_BYTES: usize = 16;

/// A message's key: its hash, the second in which the message was stored, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct Key {
    pub(in crate::state) hash: u32,
    second: u32,
    pub(in crate::state) physical: u64,
}

/// A time in seconds, as it is stored with a key.
fn second(ms: i64) -> u32 {
    u32::try_from(ms.div_euclid(1000).max(0)).unwrap_or(u32::MAX)
}

/// Hash of a topic's key.
pub(in crate::state) fn hash_of(topic: &str, key: &str) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(topic.as_bytes());
    // No name of a topic has it.
    crc.update(&[0]);
    crc.update(key.as_bytes());
    crc.finalize()
}

impl Key {
    pub(in crate::state) fn new(hash: u32, stored_ms: i64, physical: u64) -> Self {
        Self { hash, second: second(stored_ms), physical }
    }

    fn bucket(&self) -> usize {
        (self.hash >> 24) as usize
    }

    fn bytes(&self) -> [u8; KEY_BYTES] {
        let mut bytes = [0; KEY_BYTES];
        bytes[..4].copy_from_slice(&self.hash.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.second.to_le_bytes());
        bytes[8..].copy_from_slice(&self.physical.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8; KEY_BYTES]) -> Self {
        let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        let physical = u64::from_le_bytes(std::array::from_fn(|i| bytes[8 + i]));
        Self { hash: half(0), second: half(4), physical }
    }
}

/// What is looked for: a key of a topic, in a range of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sought {
    hash: u32,
    from: u32,
    to: u32,
}

impl Sought {
    pub(crate) fn new(topic: &str, key: &str, begin_ms: i64, end_ms: i64) -> Self {
        Self { hash: hash_of(topic, key), from: second(begin_ms), to: second(end_ms) }
    }

    fn is(&self, key: &Key) -> bool {
        key.hash == self.hash && (self.from..=self.to).contains(&key.second)
    }
}

/// Keys in the index files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct Run {
    pub(in crate::state) first: u64,
    pub(in crate::state) last: u64,
    from: u32,
    to: u32,
    place: Place,
}

impl Run {
    /// Writes keys in the order of their messages, of which the first one is `first` or was.
    pub(in crate::state) fn write(first: u64, keys: &[Key], index: &IndexFiles) -> Self {
        let mut buckets: Vec<Vec<u8>> = vec![Vec::new(); BUCKETS];
        keys.iter().for_each(|key| buckets[key.bucket()].extend(key.bytes()));
        let mut table = Vec::with_capacity(TABLE_BYTES);
        let mut end = 0;
        for bucket in &buckets {
            end += (bucket.len() / KEY_BYTES) as u32;
            table.extend(end.to_le_bytes());
            table.extend(crc32fast::hash(bucket).to_le_bytes());
        }
        let seconds = keys.iter().map(|key| key.second);
        let last = keys.last().map_or(first, |key| key.physical);
        Self {
            first,
            last,
            from: seconds.clone().min().unwrap_or(0),
            to: seconds.max().unwrap_or(0),
            place: index.append(Kind::Keys, (first, last), &table, &buckets.concat()),
        }
    }

    /// The same, found missing or damaged.
    pub(in crate::state) fn nowhere(self) -> Self {
        Self { place: Place::NOWHERE, ..self }
    }

    /// True if its file is here.
    pub(in crate::state) fn is_held(&self, index: &IndexFiles) -> bool {
        index.holds(self.place)
    }

    fn may_hold(&self, sought: &Sought) -> bool {
        self.from <= sought.to && sought.from <= self.to
    }

    /// The messages that may be meant, newest first; none if the run is not there or damaged.
    pub(in crate::state) fn find(&self, sought: &Sought, index: &IndexFiles) -> Option<Vec<u64>> {
        let block = Block { kind: Kind::Keys, first: self.first, place: self.place };
        let table = index.read(block, TABLE_BYTES)?;
        let bucket = (sought.hash >> 24) as usize;
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| table[at + i]));
        let end = |bucket: usize| word(bucket * BUCKET_BYTES) as usize * KEY_BYTES;
        let start = bucket.checked_sub(1).map_or(0, end);
        let length = end(bucket).checked_sub(start)?;
        let keys = index.read_tail(block, TABLE_BYTES, start, length)?;
        if crc32fast::hash(&keys) != word(bucket * BUCKET_BYTES + 4) {
            return None;
        }
        let (keys, _) = keys.as_chunks::<KEY_BYTES>();
        let keys = keys.iter().rev().map(Key::read);
        Some(keys.filter(|key| sought.is(key)).map(|key| key.physical).collect())
    }
}

/// The keys of the messages that the log still holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct Keys {
    runs: VecDeque<Run>,
    /// The newest.
    open: Vec<Key>,
}

impl Keys {
    /// Takes a key of a message, which is none before one that was taken.
    pub(in crate::state) fn push(&mut self, key: Key, index: &IndexFiles) {
        self.open.push(key);
        if self.open.len() >= RUN_KEYS {
            let first = self.open[0].physical;
            self.runs.push_back(Run::write(first, &self.open, index));
            self.open.clear();
        }
    }

    /// The messages in memory that may be meant, newest first.
    pub(in crate::state) fn find(&self, sought: &Sought) -> Vec<u64> {
        let newest_first = self.open.iter().rev();
        newest_first.filter(|key| sought.is(key)).map(|key| key.physical).collect()
    }

    /// First messages of the runs that may know more, newest first.
    pub(in crate::state) fn runs_for(&self, sought: &Sought) -> Vec<u64> {
        self.runs.iter().rev().filter(|run| run.may_hold(sought)).map(|run| run.first).collect()
    }

    /// The run that begins with a message.
    pub(in crate::state) fn run(&self, first: u64) -> Option<Run> {
        self.runs.binary_search_by_key(&first, |run| run.first).ok().map(|at| self.runs[at])
    }

    /// Forgets runs that are all about messages whose record lies below `begin`.
    pub(in crate::state) fn prune(&mut self, begin: u64) {
        let below = self.runs.partition_point(|run| index_of(run.last) < begin);
        self.runs.drain(..below);
        let below = self.open.partition_point(|key| index_of(key.physical) < begin);
        self.open.drain(..below);
    }

    /// The runs.
    pub(in crate::state) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter()
    }

    /// Puts a run that was made again in the place of the old one, and with none removes it.
    pub(in crate::state) fn replace(&mut self, old: &Run, with: Option<Run>) {
        let Some(at) = self.runs.iter().position(|run| run == old) else { return };
        match with {
            Some(run) => self.runs[at] = run,
            None => drop(self.runs.remove(at)),
        }
    }
}
