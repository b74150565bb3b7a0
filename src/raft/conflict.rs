//! What to do about a leader whose history contradicts what this node shows as committed.

use std::fmt;

use crate::format::entry::EntryId;

/// An entry that this node takes for committed, and what a leader has at its index. It can happen only after so many logs
/// have lost unflushed records at once that the leader was elected without some that were acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The entry here.
    pub(crate) held: EntryId,
    /// The leader's.
    pub(crate) leaders: EntryId,
    /// The last entry that this node takes for committed.
    pub(crate) committed: EntryId,
    /// One past the last index that a majority has flushed, as far as this node knows.
    pub(crate) stable: u64,
}

impl Conflict {
    /// True if even what a majority had flushed is contradicted. No loss of unflushed records explains that.
    pub(crate) fn is_damage(&self) -> bool {
        self.held.index < self.stable
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { held, leaders, committed, stable } = self;
        write!(
            f,
            "entry {} is of term {} here and of term {} on the leader; committed up to {}, and known to be flushed on a \
             majority below {stable}",
            held.index, held.term, leaders.term, committed.index
        )
    }
}
