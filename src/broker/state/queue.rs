//! Where the n-th message of a queue lies in the log.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Messages of one chunk.
const CHUNK_ENTRIES: usize = 512;
/// Bits of a physical offset that count messages within one record of the log.
const PART_BITS: u32 = 12;

/// A message's physical offset: its record's index in the log, and its place in the record.
pub(crate) fn physical(index: u64, part: usize) -> u64 {
    index << PART_BITS | part as u64
}

/// Messages in one record of the log, at most.
pub(crate) const PARTS_MAX: usize = 1 << PART_BITS;

/// A message of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its number in the queue.
    pub(crate) offset: u64,
    /// Its physical offset.
    pub(crate) physical: u64,
    /// Java's hash of its tags; 0 without any.
    pub(crate) tags: i32,
}

impl Entry {
    /// Index of its record in the log.
    pub(crate) fn index(&self) -> u64 {
        self.physical >> PART_BITS
    }

    /// Its place in the record.
    pub(crate) fn part(&self) -> usize {
        (self.physical & (PARTS_MAX as u64 - 1)) as usize
    }

    /// The message at a physical offset, of which nothing else is known.
    pub(crate) fn at(physical: u64) -> Self {
        Self { offset: 0, physical, tags: 0 }
    }
}

/// Consecutive messages: eight bytes for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Chunk {
    first: u64,
    base: u64,
    entries: Vec<(u32, i32)>,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let (delta, tags) = *self.entries.get(at)?;
        let offset = self.first + at as u64;
        Some(Entry { offset, physical: self.base + u64::from(delta), tags })
    }

    fn last(&self) -> Option<Entry> {
        self.entry(self.entries.len().checked_sub(1)?)
    }
}

/// The messages of one queue that the log still holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queue {
    min: u64,
    max: u64,
    chunks: VecDeque<Chunk>,
}

impl Queue {
    /// Number of the first message that is held.
    pub(crate) fn min(&self) -> u64 {
        self.min
    }

    /// Number that the next message gets.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// Takes the next message; returns its number.
    pub(crate) fn push(&mut self, physical: u64, tags: i32) -> u64 {
        let delta = |chunk: &Chunk| {
            let room = chunk.entries.len() < CHUNK_ENTRIES;
            u32::try_from(physical.checked_sub(chunk.base)?).ok().filter(|_| room)
        };
        let offset = self.max;
        match self.chunks.back_mut().and_then(|chunk| delta(chunk).map(|delta| (chunk, delta))) {
            Some((chunk, delta)) => chunk.entries.push((delta, tags)),
            None => {
                if let Some(full) = self.chunks.back_mut() {
                    full.entries.shrink_to_fit();
                }
                let entries = vec![(0, tags)];
                self.chunks.push_back(Chunk { first: offset, base: physical, entries });
            }
        }
        self.max += 1;
        offset
    }

    /// The message of a number.
    pub(crate) fn get(&self, offset: u64) -> Option<Entry> {
        if !(self.min..self.max).contains(&offset) {
            return None;
        }
        let at = self.chunks.partition_point(|chunk| chunk.end() <= offset);
        let chunk = self.chunks.get(at)?;
        chunk.entry(usize::try_from(offset.checked_sub(chunk.first)?).ok()?)
    }

    /// The messages from a number on.
    pub(crate) fn from(&self, offset: u64) -> impl Iterator<Item = Entry> + '_ {
        let offset = offset.max(self.min);
        let at = self.chunks.partition_point(|chunk| chunk.end() <= offset);
        let chunks = self.chunks.iter().skip(at);
        let entries =
            chunks.flat_map(|chunk| (0..chunk.entries.len()).map_while(|at| chunk.entry(at)));
        entries.skip_while(move |entry| entry.offset < offset)
    }

    /// The message at a physical offset.
    pub(crate) fn find(&self, physical: u64) -> Option<Entry> {
        let at = self
            .chunks
            .partition_point(|chunk| chunk.last().is_some_and(|last| last.physical < physical));
        let chunk = self.chunks.get(at)?;
        let delta = u32::try_from(physical.checked_sub(chunk.base)?).ok()?;
        let at = chunk.entries.binary_search_by_key(&delta, |entry| entry.0).ok()?;
        chunk.entry(at).filter(|entry| entry.offset >= self.min)
    }

    /// Forgets messages whose record lies below `begin`: the log does not hold it any more.
    pub(crate) fn prune(&mut self, begin: u64) {
        while let Some(chunk) = self.chunks.front() {
            let gone = chunk
                .entries
                .iter()
                .take_while(|(delta, _)| (chunk.base + u64::from(*delta)) >> PART_BITS < begin);
            let gone = gone.count();
            self.min = self.min.max(chunk.first + gone as u64);
            if gone < chunk.entries.len() {
                return;
            }
            self.chunks.pop_front();
        }
    }
}
