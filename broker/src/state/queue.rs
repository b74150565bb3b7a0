//! Where the n-th message of a queue lies in the log. The newest places are in memory; of the others it is only
//! known in which block of the index files they lie: 40 bytes for 512 messages.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::index::index_files::{Block, IndexFiles, Kind, Place};

/// Messages of one chunk.
pub(super) const CHUNK_ENTRIES: usize = 512;
/// Bytes of a message's place in a block.
const ENTRY_BYTES: usize = 8;
/// Bits of a physical offset that count messages within one record of the log.
const PART_BITS: u32 = 12;

/// A message's physical offset: its record's index in the log, and its place in the record.
pub(crate) fn physical(index: u64, part: usize) -> u64 {
    index << PART_BITS | part as u64
}

/// The index of the record that a physical offset is in.
pub(crate) fn index_of(physical: u64) -> u64 {
    physical >> PART_BITS
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
        index_of(self.physical)
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

/// Places of consecutive messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub(super) first: u64,
    pub(super) base: u64,
    /// When the first one was stored, or one before it later.
    pub(super) stored_ms: i64,
    pub(super) entries: Vec<(u32, i32)>,
}

impl Chunk {
    /// Takes the next message; false if it must go to another chunk.
    pub(super) fn push(&mut self, physical: u64, tags: i32) -> bool {
        let delta = physical.checked_sub(self.base).and_then(|delta| u32::try_from(delta).ok());
        match delta.filter(|_| self.entries.len() < CHUNK_ENTRIES) {
            Some(delta) => {
                self.entries.push((delta, tags));
                true
            }
            None => false,
        }
    }

    fn entry(&self, at: usize) -> Option<Entry> {
        let (delta, tags) = *self.entries.get(at)?;
        let offset = self.first + at as u64;
        Some(Entry { offset, physical: self.base + u64::from(delta), tags })
    }

    /// The messages from a number on.
    pub(super) fn from(&self, offset: u64) -> impl Iterator<Item = Entry> + '_ {
        let skipped = usize::try_from(offset.saturating_sub(self.first)).unwrap_or(usize::MAX);
        (skipped..self.entries.len()).map_while(|at| self.entry(at))
    }

    /// The message at a physical offset.
    pub(super) fn find(&self, physical: u64) -> Option<Entry> {
        let delta = u32::try_from(physical.checked_sub(self.base)?).ok()?;
        let at = self.entries.binary_search_by_key(&delta, |entry| entry.0).ok()?;
        self.entry(at)
    }

    /// How many of its messages lie in records below `begin`.
    pub(super) fn gone(&self, begin: u64) -> u64 {
        let is_gone = |entry: &(u32, i32)| index_of(self.base + u64::from(entry.0)) < begin;
        self.entries.partition_point(is_gone) as u64
    }

    /// Writes it to the index files.
    pub(super) fn seal(&self, index: &IndexFiles) -> Sealed {
        let span = self.entries.last().map_or(0, |last| last.0);
        let mut body = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for (delta, tags) in &self.entries {
            body.extend(delta.to_le_bytes());
            body.extend(tags.to_le_bytes());
        }
        let range = (self.base, self.base + u64::from(span));
        Sealed {
            first: self.first,
            base: self.base,
            stored_ms: self.stored_ms,
            span,
            count: self.entries.len() as u32,
            place: index.append(Kind::Places, range, &body, &[]),
        }
    }
}

/// A chunk in the index files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub(super) first: u64,
    pub(super) base: u64,
    pub(super) stored_ms: i64,
    span: u32,
    pub(super) count: u32,
    place: Place,
}

impl Sealed {
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// The same, found missing or damaged.
    pub(super) fn nowhere(self) -> Self {
        Self { place: Place::NOWHERE, ..self }
    }

    /// Physical offset of its last message.
    pub(super) fn last(&self) -> u64 {
        self.base + u64::from(self.span)
    }

    /// True if its file is here.
    pub(super) fn is_held(&self, index: &IndexFiles) -> bool {
        index.holds(self.place)
    }

    /// The places; none if they are not there or damaged.
    pub(super) fn read(&self, index: &IndexFiles) -> Option<Chunk> {
        let block = Block { kind: Kind::Places, first: self.base, place: self.place };
        let body = index.read(block, self.count as usize * ENTRY_BYTES)?;
        let (words, _) = body.as_chunks::<4>();
        let pairs = words.chunks_exact(2);
        let entries =
            pairs.map(|pair| (u32::from_le_bytes(pair[0]), i32::from_le_bytes(pair[1]))).collect();
        let Self { first, base, stored_ms, .. } = *self;
        Some(Chunk { first, base, stored_ms, entries })
    }
}

/// Where places are to be looked for.
pub(super) enum Located<'a> {
    Memory(&'a Chunk),
    File(Sealed),
}

/// The messages of one queue that the log still holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queue {
    min: u64,
    max: u64,
    sealed: VecDeque<Sealed>,
    /// The newest messages.
    open: Chunk,
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

    /// Takes the next message; returns its number. `stored_ms` never goes back.
    pub(super) fn push(
        &mut self,
        physical: u64,
        tags: i32,
        stored_ms: i64,
        index: &IndexFiles,
    ) -> u64 {
        let offset = self.max;
        if self.open.entries.is_empty() || !self.open.push(physical, tags) {
            if !self.open.entries.is_empty() {
                self.sealed.push_back(self.open.seal(index));
            }
            // Its memory is used again.
            self.open.entries.clear();
            self.open.entries.push((0, tags));
            (self.open.first, self.open.base, self.open.stored_ms) = (offset, physical, stored_ms);
        }
        self.max += 1;
        offset
    }

    /// Where the message of a number is to be looked for.
    pub(super) fn locate(&self, offset: u64) -> Option<Located<'_>> {
        if !(self.min..self.max).contains(&offset) {
            return None;
        }
        let at = self.sealed.partition_point(|sealed| sealed.end() <= offset);
        Some(self.located(at))
    }

    /// An index of the log at or before that of the message of a number and behind those of most that came before; that
    /// of the first message held if the log does not hold this one any more. None if it is yet to come.
    pub(super) fn index_before(&self, offset: u64) -> Option<u64> {
        let offset = offset.max(self.min);
        match self.locate(offset)? {
            Located::Memory(chunk) => chunk.from(offset).next().map(|entry| entry.index()),
            Located::File(sealed) => Some(index_of(sealed.base)),
        }
    }

    /// Where the message at a physical offset is, if it is this queue's.
    pub(super) fn locate_physical(&self, physical: u64) -> Located<'_> {
        self.located(self.sealed.partition_point(|sealed| sealed.last() < physical))
    }

    fn located(&self, at: usize) -> Located<'_> {
        self.sealed.get(at).map_or(Located::Memory(&self.open), |sealed| Located::File(*sealed))
    }

    /// The numbers among which is the first message that was stored at a time or later, and the one behind them
    /// is it if none of them is.
    pub(crate) fn around(&self, stored_ms: i64) -> (u64, u64) {
        let behind = self.sealed.partition_point(|sealed| sealed.stored_ms < stored_ms);
        let open_is_before = behind == self.sealed.len() && self.open.stored_ms < stored_ms;
        let end = match self.sealed.get(behind) {
            Some(sealed) => sealed.first,
            None if open_is_before || self.open.entries.is_empty() => self.max,
            None => self.open.first,
        };
        let start = match behind.checked_sub(1).and_then(|at| self.sealed.get(at)) {
            _ if open_is_before => self.open.first,
            Some(sealed) => sealed.first,
            None => self.min,
        };
        (start.clamp(self.min, self.max), end.clamp(self.min, self.max))
    }

    /// The chunk of which the records below `begin` are a part, if it is one in the files.
    pub(super) fn straddling(&self, begin: u64) -> Option<Sealed> {
        let at = self.sealed.partition_point(|sealed| index_of(sealed.last()) < begin);
        self.sealed.get(at).copied().filter(|sealed| index_of(sealed.base) < begin)
    }

    /// Forgets messages whose record lies below `begin`: the log does not hold it any more. `gone` says of chunks in
    /// the files, by their bases, how many of their messages these are; without that they count as held a while longer.
    pub(super) fn prune(&mut self, begin: u64, gone: &BTreeMap<u64, u64>) {
        let below = self.sealed.partition_point(|sealed| index_of(sealed.last()) < begin);
        let first = |at: usize| self.sealed.get(at).map(|sealed| (sealed.first, sealed.base));
        let min = match first(below) {
            Some((first, base)) => first + gone.get(&base).copied().unwrap_or(0),
            None if self.open.entries.is_empty() => self.max,
            None => self.open.first + self.open.gone(begin),
        };
        self.sealed.drain(..below);
        self.min = self.min.max(min);
        if self.min == self.max {
            self.open.entries = Vec::new();
        }
    }

    /// The chunks in the files.
    pub(super) fn sealed(&self) -> impl Iterator<Item = &Sealed> {
        self.sealed.iter()
    }

    /// Puts a chunk that was made again in the place of the one with the same base, and with none removes it.
    pub(super) fn replace(&mut self, base: u64, with: Option<Sealed>) {
        let Ok(at) = self.sealed.binary_search_by_key(&base, |sealed| sealed.base) else { return };
        match with {
            Some(sealed) => self.sealed[at] = sealed,
            None => drop(self.sealed.remove(at)),
        }
    }
}
