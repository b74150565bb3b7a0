//! The memberships that a log holds, so that the one as of any index is known without reading.

use bytes::Bytes;

use crate::format::entry::{Entry, EntryId, EntryKind};
use crate::format::manifest::MembershipMeta;

/// A membership entry: its id (none for the implicit empty one) and its encoded payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredMembership {
    pub(crate) id: EntryId,
    pub(crate) payload: Bytes,
}

impl StoredMembership {
    /// The membership in an entry, if it is one.
    pub(in crate::log) fn of(entry: &Entry) -> Option<Self> {
        (entry.kind == EntryKind::Membership)
            .then(|| Self { id: entry.id, payload: entry.payload.clone() })
    }

    pub(in crate::log) fn from_meta(meta: MembershipMeta) -> Self {
        Self { id: meta.id, payload: meta.payload.into() }
    }

    pub(in crate::log) fn to_meta(&self) -> MembershipMeta {
        MembershipMeta { id: self.id, payload: self.payload.to_vec() }
    }
}

/// Memberships in the order of their indexes.
#[derive(Debug, Clone, Default)]
pub(in crate::log) struct Memberships {
    /// The last one at or below the boundary.
    boundary: Option<StoredMembership>,
    behind: Vec<StoredMembership>,
}

impl Memberships {
    pub(in crate::log) fn new(
        boundary: Option<StoredMembership>,
        behind: Vec<StoredMembership>,
    ) -> Self {
        Self { boundary, behind }
    }

    pub(in crate::log) fn boundary(&self) -> Option<&StoredMembership> {
        self.boundary.as_ref()
    }

    pub(in crate::log) fn behind(&self) -> &[StoredMembership] {
        &self.behind
    }

    /// The last one at or below `index`.
    pub(in crate::log) fn at(&self, index: u64) -> Option<&StoredMembership> {
        let count = self.behind.partition_point(|membership| membership.id.index <= index);
        let boundary = self.boundary.as_ref().filter(|boundary| boundary.id.index <= index);
        self.behind[..count].last().or(boundary)
    }

    /// Takes the memberships among new entries.
    pub(in crate::log) fn extend(&mut self, entries: &[Entry]) {
        self.behind.extend(entries.iter().filter_map(StoredMembership::of));
    }

    /// Drops those at or behind the position `end`.
    pub(in crate::log) fn truncate(&mut self, end: u64) {
        self.behind.retain(|membership| membership.id.index < end);
    }

    /// Moves the boundary up to `upto`.
    pub(in crate::log) fn purge(&mut self, upto: u64) {
        let count = self.behind.partition_point(|membership| membership.id.index <= upto);
        if let Some(last) = self.behind.drain(..count).next_back() {
            self.boundary = Some(last);
        }
    }

    /// Adds one that a leader sent, if it is not there.
    pub(in crate::log) fn insert(&mut self, membership: StoredMembership) {
        let at = self.behind.partition_point(|held| held.id.index < membership.id.index);
        let held = self.behind.get(at).is_some_and(|held| held.id.index == membership.id.index);
        let below = self.boundary.as_ref().is_some_and(|b| b.id.index >= membership.id.index);
        if !held && !below {
            self.behind.insert(at, membership);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(index: u64) -> StoredMembership {
        StoredMembership { id: EntryId { term: 1, index }, payload: Bytes::new() }
    }

    fn indexes(memberships: &Memberships) -> Vec<Option<u64>> {
        let at = |index| memberships.at(index).map(|membership| membership.id.index);
        [0, 3, 5, 9].map(at).to_vec()
    }

    #[test]
    fn the_one_as_of_an_index_survives_truncation_and_purge() {
        let mut held = Memberships::new(None, vec![membership(1), membership(5)]);
        held.insert(membership(3));
        held.insert(membership(3));
        assert_eq!(indexes(&held), [None, Some(3), Some(5), Some(5)]);
        held.truncate(5);
        assert_eq!(indexes(&held), [None, Some(3), Some(3), Some(3)]);
        held.purge(4);
        assert_eq!(held.boundary(), Some(&membership(3)));
        assert_eq!(held.at(9), Some(&membership(3)));
        held.insert(membership(2));
        assert!(held.behind().is_empty(), "the boundary's is newer");
    }
}
