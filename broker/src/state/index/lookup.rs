//! Questions to the state that may need the index files. Files are read without the state's lock.

use super::super::machine::Shared;
use super::super::queue::{Chunk, Entry, Located, Sealed};
use super::keys::Sought;

/// A block of the index that is missing or damaged; it begins with the message at this physical offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost(pub(crate) u64);

/// Some messages of a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Number of the first message that the queue holds.
    pub(crate) min: u64,
    /// Number that its next message gets.
    pub(crate) max: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Shared {
    /// Messages of a queue from a number on: at most `count`, and at least one if there is any. Nothing from below
    /// the queue's first message.
    pub(crate) fn slice(
        &self,
        topic: &str,
        queue: u32,
        from: u64,
        count: usize,
    ) -> Result<Slice, Lost> {
        let (mut slice, sealed) = {
            let state = self.state();
            let Some(found) = state.queue(topic, queue) else { return Ok(Slice::default()) };
            let mut slice = Slice { min: found.min(), max: found.max(), entries: Vec::new() };
            match found.locate(from) {
                None => return Ok(slice),
                Some(Located::Memory(chunk)) => {
                    slice.entries.extend(chunk.from(from).take(count));
                    return Ok(slice);
                }
                Some(Located::File(sealed)) => (slice, sealed),
            }
        };
        let chunk = self.read_chunk(topic, queue, &sealed)?;
        slice.entries.extend(chunk.from(from).take(count));
        Ok(slice)
    }

    /// The message of a number.
    pub(crate) fn entry(
        &self,
        topic: &str,
        queue: u32,
        offset: u64,
    ) -> Result<Option<Entry>, Lost> {
        Ok(self.slice(topic, queue, offset, 1)?.entries.first().copied())
    }

    /// The message at a physical offset, if it is this queue's.
    pub(crate) fn find(
        &self,
        topic: &str,
        queue: u32,
        physical: u64,
    ) -> Result<Option<Entry>, Lost> {
        let (min, sealed) = {
            let state = self.state();
            let Some(found) = state.queue(topic, queue) else { return Ok(None) };
            let held = |entry: &Entry| entry.offset >= found.min();
            match found.locate_physical(physical) {
                Located::Memory(chunk) => return Ok(chunk.find(physical).filter(held)),
                Located::File(sealed) if sealed.base > physical => return Ok(None),
                Located::File(sealed) => (found.min(), sealed),
            }
        };
        let chunk = self.read_chunk(topic, queue, &sealed)?;
        Ok(chunk.find(physical).filter(|entry| entry.offset >= min))
    }

    /// The messages in memory that may have a key, and the first messages of the runs that may know more. Newest first.
    pub(crate) fn newest_with_key(&self, sought: &Sought) -> (Vec<u64>, Vec<u64>) {
        let state = self.state();
        (state.keys.find(sought), state.keys.runs_for(sought))
    }

    /// The messages of the run that begins with the message `first` that may have a key, newest first.
    pub(crate) fn with_key(&self, sought: &Sought, first: u64) -> Result<Vec<u64>, Lost> {
        let Some(run) = self.state().keys.run(first) else { return Ok(Vec::new()) };
        run.find(sought, &self.index).ok_or_else(|| {
            self.change(|state| state.keys.replace(&run, Some(run.nowhere())));
            self.index.note_lost();
            Lost(first)
        })
    }

    fn read_chunk(&self, topic: &str, queue: u32, sealed: &Sealed) -> Result<Chunk, Lost> {
        sealed.read(&self.index).ok_or_else(|| {
            // Only if it was not replaced or forgotten since.
            self.change(|state| {
                if let Some(found) = state.queue_mut(topic, queue)
                    && found.sealed().any(|held| held == sealed)
                {
                    found.replace(sealed.base, Some(sealed.nowhere()));
                }
            });
            self.index.note_lost();
            Lost(sealed.base)
        })
    }
}
