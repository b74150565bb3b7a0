//! Where entries lie in a segment: every one of the active segment, one for about every 16 KiB of a
//! sealed one.

use std::path::Path;

use bytes::Bytes;

use crate::error::StorageError;
use crate::format::footer::{Slot, check_footer, slot_at, slot_count};
use crate::format::manifest::SealedMeta;
use crate::format::segment_header::HEADER_BLOCK;

use super::cursor::{Cursor, Source};

/// Bytes of entries between two slots.
const SLOT_DISTANCE: u32 = 16 << 10;

/// Index of a sealed segment.
#[derive(Debug, Default)]
pub(crate) struct SparseIndex {
    /// As in a footer.
    slots: Vec<Slot>,
}

impl SparseIndex {
    /// Thins the offsets of the entries from a segment's first one on.
    pub(crate) fn from_offsets(offsets: &[u32]) -> Self {
        let mut index = Self::default();
        for (entry, &offset) in (0..).zip(offsets) {
            index.push(entry, offset);
        }
        index
    }

    /// Reads every header of a sealed segment.
    pub(crate) fn rebuild(
        path: &Path,
        meta: &SealedMeta,
        source: Source,
    ) -> Result<Self, StorageError> {
        let mut index = Self::default();
        let salt = meta.segment.salt;
        let mut cursor = Cursor::new(path, salt, source, HEADER_BLOCK as u64, meta.end);
        let mut entry = 0u32;
        while let Some((header, at)) = cursor.next()? {
            if header.id.index != meta.segment.base + u64::from(entry) {
                let why = format!("I2: entry {} out of its place", header.id.index);
                return Err(StorageError::corrupt(path, at, why));
            }
            let offset = u32::try_from(at).expect("a segment is shorter than 4 GiB");
            index.push(entry, offset);
            entry += 1;
        }
        if meta.segment.base + u64::from(entry) != meta.last.index + 1 {
            let why = format!("{entry} entries, and the manifest says otherwise");
            return Err(StorageError::corrupt(path, meta.end, why));
        }
        Ok(index)
    }

    fn push(&mut self, entry: u32, offset: u32) {
        if self.slots.last().is_none_or(|slot| offset - slot.offset >= SLOT_DISTANCE) {
            self.slots.push(Slot { entry, offset });
        }
    }

    /// Offset of the last known entry at or before the `entry`th of the segment.
    pub(crate) fn offset_before(&self, entry: u64) -> u64 {
        offset_before(self.slots.len(), |at| self.slots[at], entry)
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }
}

/// A footer that was found to be whole: looked up where it lies, so that a mapped one takes no memory.
#[derive(Debug)]
pub(crate) struct Footer(Bytes);

impl Footer {
    /// Checks that `bytes` is a footer of this segment.
    pub(crate) fn check(bytes: Bytes, meta: &SealedMeta) -> Option<Self> {
        let count = check_footer(&bytes).ok()?;
        let first = slot_at(&bytes, 0);
        let last = slot_at(&bytes, count.checked_sub(1)?);
        let entries = meta.last.index - meta.segment.base;
        let fits = first.entry == 0
            && u64::from(last.entry) <= entries
            && first.offset as usize >= HEADER_BLOCK
            && u64::from(last.offset) < meta.end;
        fits.then_some(Self(bytes))
    }

    /// Where it lies.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Offset of the last known entry at or before the `entry`th of the segment.
    pub(crate) fn offset_before(&self, entry: u64) -> u64 {
        offset_before(slot_count(self.0.len()), |at| slot_at(&self.0, at), entry)
    }
}

/// Binary search among `count` slots.
fn offset_before(count: usize, slot: impl Fn(usize) -> Slot, entry: u64) -> u64 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if u64::from(slot(middle).entry) <= entry { low = middle + 1 } else { high = middle }
    }
    low.checked_sub(1).map_or(HEADER_BLOCK as u64, |at| u64::from(slot(at).offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_lie_apart_and_lookups_find_the_one_before() {
        let offsets: Vec<u32> = (0..1000).map(|i| 4152 + i * 100).collect();
        let index = SparseIndex::from_offsets(&offsets);
        assert!(index.slots().len() < 10, "{}", index.slots().len());
        for entry in 0..1000u64 {
            let found = index.offset_before(entry);
            let exact = u64::from(offsets[entry as usize]);
            assert!(found <= exact && exact - found < 17 << 10, "{entry}");
        }
        assert_eq!(SparseIndex::default().offset_before(5), HEADER_BLOCK as u64);
    }
}
