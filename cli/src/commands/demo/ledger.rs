//! What the demo knows about each record: its checksum, and how its appends ended.

/// How the appends of one record ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::commands) struct Entry {
    /// CRC-32 of the payload.
    pub(in crate::commands) crc: u32,
    /// Index and term of the acknowledgement.
    pub(in crate::commands) acknowledged: Option<(u64, u64)>,
    /// One past the highest index that was acknowledged before the acknowledged append began: the
    /// record must lie at or above it.
    pub(in crate::commands) floor: u64,
    /// Appends that may have happened without an acknowledgement.
    pub(in crate::commands) unknown: u32,
}

/// All records, by their number.
#[derive(Debug, Clone, Default)]
pub(in crate::commands) struct Ledger {
    entries: Vec<Entry>,
    /// One past the highest acknowledged index.
    end: u64,
}

impl Ledger {
    pub(in crate::commands) fn new(records: u64) -> Self {
        Self { entries: vec![Entry::default(); records as usize], end: 0 }
    }

    /// Before an append of record `id`: returns the floor to give with its acknowledgement. A number beyond those
    /// that were planned makes room for itself.
    pub(in crate::commands) fn begin(&mut self, id: u64, crc: u32) -> u64 {
        if id as usize >= self.entries.len() {
            self.entries.resize(id as usize + 1, Entry::default());
        }
        self.entries[id as usize].crc = crc;
        self.end
    }

    pub(in crate::commands) fn acknowledge(&mut self, id: u64, index: u64, term: u64, floor: u64) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.acknowledged = Some((index, term));
            entry.floor = floor;
        }
        self.end = self.end.max(index + 1);
    }

    pub(in crate::commands) fn unknown(&mut self, id: u64) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.unknown += 1;
        }
    }

    pub(in crate::commands) fn get(&self, id: u64) -> Option<&Entry> {
        self.entries.get(id as usize)
    }

    /// Numbers and entries.
    pub(in crate::commands) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        (0..).zip(&self.entries)
    }
}
