//! Makes index blocks again from the log, several in one pass: those that were damaged, or whose file is gone.

use std::collections::BTreeMap;
use std::ops::Range;

use quorumlog::Record;

use super::super::apply::Incoming;
use super::super::command::Payload;
use super::super::machine::Shared;
use super::super::queue::{Chunk, Sealed, index_of, physical};
use super::keys::{Key, Run};
use super::voids::Voids;

/// Chunks of one pass.
const CHUNKS_MAX: usize = 64;
/// Runs of one pass.
const RUNS_MAX: usize = 4;
/// Records that a pass reads beyond those of its first block.
const RECORDS_MAX: u64 = 1 << 18;

struct WantedChunk {
    topic: String,
    queue: u32,
    sealed: Sealed,
    found: Chunk,
    /// There are more messages in its range than it had.
    over: bool,
}

/// One pass: the blocks that are wanted, and what was found for them.
pub(crate) struct Rebuild {
    /// The number of the state that it was begun for.
    number: u64,
    chunks: Vec<WantedChunk>,
    /// The chunks of each queue.
    of_queue: BTreeMap<(String, u32), Vec<usize>>,
    runs: Vec<(Run, Vec<Key>)>,
    voids: Voids,
    records: Range<u64>,
}

/// A block that is not there.
enum Lost<'a> {
    Chunk { topic: &'a str, queue: u32, sealed: &'a Sealed },
    Run(&'a Run),
}

impl Lost<'_> {
    /// First and last message.
    fn bounds(&self) -> (u64, u64) {
        match self {
            Self::Chunk { sealed, .. } => (sealed.base, sealed.last()),
            Self::Run(run) => (run.first, run.last),
        }
    }
}

impl Shared {
    /// Begins a pass at the first block that is lost, of those that begin at a physical offset or later. None if
    /// none is lost.
    pub(crate) fn begin_rebuild(&self, from: u64) -> Option<Rebuild> {
        let state = self.state();
        let mut lost: Vec<Lost<'_>> = Vec::new();
        for (topic, config) in state.topics() {
            for (queue, places) in (0..).zip(config.queues()) {
                let sealed = places.sealed().filter(|sealed| sealed.base >= from);
                let sealed = sealed.filter(|sealed| !sealed.is_held(&self.index));
                lost.extend(sealed.map(|sealed| Lost::Chunk { topic, queue, sealed }));
            }
        }
        let runs = state.keys.runs().filter(|run| run.first >= from);
        lost.extend(runs.filter(|run| !run.is_held(&self.index)).map(Lost::Run));
        lost.sort_unstable_by_key(Lost::bounds);
        let first = lost.first()?.bounds();
        let end = index_of(first.1) + RECORDS_MAX;
        let mut pass = Rebuild {
            number: self.number(),
            chunks: Vec::new(),
            of_queue: BTreeMap::new(),
            runs: Vec::new(),
            voids: state.voids.clone(),
            records: index_of(first.0)..index_of(first.1) + 1,
        };
        for block in lost {
            let bounds = block.bounds();
            if bounds != first && index_of(bounds.1) > end {
                continue;
            }
            match block {
                Lost::Chunk { topic, queue, sealed } if pass.chunks.len() < CHUNKS_MAX => {
                    pass.want_chunk(topic, queue, *sealed);
                }
                Lost::Run(run) if pass.runs.len() < RUNS_MAX => pass.runs.push((*run, Vec::new())),
                Lost::Chunk { .. } | Lost::Run(_) => continue,
            }
            pass.records.end = pass.records.end.max(index_of(bounds.1) + 1);
        }
        Some(pass)
    }

    /// Ends a pass that has read everything that the log still held from `begin` on. True if every block was made
    /// again and written, or is not needed any more. What was made for another state than there is now is dropped.
    pub(crate) fn finish_rebuild(&self, pass: Rebuild, begin: u64) -> bool {
        let mut all = true;
        for wanted in pass.chunks {
            let (topic, queue, base) = (wanted.topic.clone(), wanted.queue, wanted.sealed.base);
            let Some(made) = wanted.checked(begin) else {
                tracing::error!(topic, queue, base, "a part of the index cannot be made again");
                all = false;
                continue;
            };
            let sealed = made.map(|chunk| chunk.seal(&self.index));
            all &= sealed.is_none_or(|sealed| sealed.is_held(&self.index));
            all &= self.change(|state| {
                let same = self.number() == pass.number;
                if let Some(queue) = state.queue_mut(&topic, queue).filter(|_| same) {
                    queue.replace(base, sealed);
                }
                same
            });
        }
        for (old, keys) in pass.runs {
            let run = (!keys.is_empty()).then(|| Run::write(old.first, &keys, &self.index));
            all &= run.is_none_or(|run| run.is_held(&self.index));
            all &= self.change(|state| {
                let same = self.number() == pass.number;
                if same {
                    state.keys.replace(&old, run);
                }
                same
            });
        }
        all
    }
}

impl Rebuild {
    /// The records to read.
    pub(crate) fn records(&self) -> Range<u64> {
        self.records.clone()
    }

    fn want_chunk(&mut self, topic: &str, queue: u32, sealed: Sealed) {
        let of_queue = self.of_queue.entry((topic.to_owned(), queue)).or_default();
        of_queue.push(self.chunks.len());
        let found = Chunk { first: sealed.first, stored_ms: sealed.stored_ms, ..Chunk::default() };
        self.chunks.push(WantedChunk {
            topic: topic.to_owned(),
            queue,
            sealed,
            found,
            over: false,
        });
    }

    /// Takes the next record of the log.
    pub(crate) fn take(&mut self, record: &Record) {
        if self.voids.contains(record.index) {
            return;
        }
        // What is not understood was passed over when it was applied, or stopped the log.
        let Ok(payload) = Payload::decode(record.payload.clone()) else { return };
        for (part, message) in payload.messages().iter().enumerate() {
            let Ok(message) = Incoming::read(message) else { continue };
            let at = physical(record.index, part);
            for (run, keys) in &mut self.runs {
                if (run.first..=run.last).contains(&at) {
                    keys.extend(message.keys_at(at));
                }
            }
            let queue = (message.topic.to_string(), message.queue);
            let Some(of_queue) = self.of_queue.get(&queue) else { continue };
            for wanted in of_queue {
                self.chunks[*wanted].take(at, message.tags);
            }
        }
    }
}

impl WantedChunk {
    fn take(&mut self, at: u64, tags: i32) {
        if !(self.sealed.base..=self.sealed.last()).contains(&at) {
            return;
        }
        if self.found.entries.is_empty() {
            self.found.base = at;
        }
        self.over |= !self.found.push(at, tags);
    }

    /// The chunk as it was, without messages that the log has dropped: within the result none if those are all.
    /// None if it is not what it was.
    fn checked(mut self, begin: u64) -> Option<Option<Chunk>> {
        let found = self.found.entries.len() as u64;
        let missing = u64::from(self.sealed.count).checked_sub(found).filter(|_| !self.over)?;
        if missing > 0 && index_of(self.sealed.base) >= begin {
            return None;
        }
        self.found.first += missing;
        Some(Some(self.found).filter(|chunk| !chunk.entries.is_empty()))
    }
}
