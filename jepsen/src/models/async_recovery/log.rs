//! A log of few entries, and who holds what.

use std::fmt;

use super::bounds::{ENTRIES_MAX, NODES_MAX};

/// An entry: the term that appended it, and whether its caller asked for a flush. Term 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Entry {
    pub(super) term: u8,
    pub(super) sync: bool,
}

/// A log. Its first entry has index 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Log {
    len: u8,
    entries: [Entry; ENTRIES_MAX],
}

impl Log {
    /// Index of the last entry; 0 without one.
    pub(super) fn len(&self) -> u8 {
        self.len
    }

    /// The entry at an index; that of term 0 where there is none.
    pub(super) fn at(&self, index: u8) -> Entry {
        match usize::from(index).checked_sub(1) {
            Some(at) if index <= self.len => self.entries[at],
            _ => Entry::default(),
        }
    }

    /// The term of the entry at an index; 0 where there is none.
    pub(super) fn term(&self, index: u8) -> u8 {
        self.at(index).term
    }

    /// Term and index of the last entry, by which Raft compares logs.
    pub(super) fn last(&self) -> (u8, u8) {
        (self.term(self.len), self.len)
    }

    /// True if both logs have the same entry at an index, or the index is 0.
    pub(super) fn agrees(&self, other: &Self, index: u8) -> bool {
        index == 0 || (index <= self.len && self.term(index) == other.term(index))
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.entries[usize::from(self.len)] = entry;
        self.len += 1;
    }

    /// Keeps the first `len` entries.
    pub(super) fn truncate(&mut self, len: u8) {
        if len < self.len {
            self.entries[usize::from(len)..].fill(Entry::default());
            self.len = len;
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries[..usize::from(self.len)].iter();
        let shown = entries.map(|e| format!("{}{}", e.term, if e.sync { "s" } else { "" }));
        write!(f, "[{}]", shown.collect::<Vec<_>>().join(" "))
    }
}

/// A set of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct NodeSet(u8);

impl NodeSet {
    pub(super) fn insert(&mut self, node: usize) {
        self.0 |= 1 << node;
    }

    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The same with node `i` called `to[i]`.
    pub(super) fn renamed(self, to: &[usize]) -> Self {
        let mut renamed = Self::default();
        let held = (0..to.len()).filter(|node| self.0 & (1 << node) != 0);
        held.for_each(|node| renamed.insert(to[node]));
        renamed
    }
}

/// An index for each node.
pub(super) type Indexes = [u8; NODES_MAX];
