//! The committed position as it is stored.

use serde::{Deserialize, Serialize};

use super::entry::EntryId;

/// The last committed entry that a writer knew of. A number alone proves nothing of a log that has lost its tail since and
/// has another entry there by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Committed {
    #[default]
    Nothing,
    /// Builds before manifest 2 and vote 2 stored no term.
    Index(u64),
    Entry(EntryId),
}

impl Committed {
    /// One past its index.
    pub(crate) fn end(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Index(index) => index + 1,
            Self::Entry(id) => id.index + 1,
        }
    }
}

impl From<Option<EntryId>> for Committed {
    fn from(id: Option<EntryId>) -> Self {
        id.map_or(Self::Nothing, Self::Entry)
    }
}
