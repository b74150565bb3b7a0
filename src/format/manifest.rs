//! The manifest: which segments a log consists of, and where it begins. docs/storage.md 4.5.

use serde::{Deserialize, Serialize};

use super::committed::Committed;
use super::entry::EntryId;
use super::envelope::Envelope;
use super::{FormatError, codec, field};

const WHAT: &str = "manifest";
const ENVELOPE: Envelope = Envelope { what: WHAT, magic: *b"QLMF", version: 2 };
const ENVELOPE_V1: Envelope = Envelope { version: 1, ..ENVELOPE };

/// Everything that a log's directory must hold besides the vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) log_id: u64,
    /// Never used before.
    pub(crate) next_segment_id: u64,
    /// The last committed entry known when this was written.
    pub(crate) committed: Committed,
    /// One past the last index that a majority had flushed, as far as that was known.
    pub(crate) stable: u64,
    pub(crate) boundary: Option<Boundary>,
    /// In the order of their indexes.
    pub(crate) sealed: Vec<SealedMeta>,
    pub(crate) active: SegmentMeta,
    /// The memberships that lie in the sealed segments, oldest first. May name more, from the active one.
    pub(crate) memberships: Vec<MembershipMeta>,
}

/// The manifest of version 1.
#[derive(Deserialize)]
struct ManifestV1 {
    log_id: u64,
    next_segment_id: u64,
    /// One past the last committed index.
    committed: u64,
    boundary: Option<Boundary>,
    sealed: Vec<SealedMeta>,
    active: SegmentMeta,
    memberships: Vec<MembershipMeta>,
}

impl From<ManifestV1> for Manifest {
    fn from(old: ManifestV1) -> Self {
        Self {
            log_id: old.log_id,
            next_segment_id: old.next_segment_id,
            committed: old.committed.checked_sub(1).map_or(Committed::Nothing, Committed::Index),
            stable: 0,
            boundary: old.boundary,
            sealed: old.sealed,
            active: old.active,
            memberships: old.memberships,
        }
    }
}

/// Where the log begins: behind this entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Boundary {
    pub(crate) id: EntryId,
    /// Membership as of it.
    pub(crate) membership: Option<MembershipMeta>,
    /// A checkpoint as of exactly this id was held when this was written: it must still be there.
    pub(crate) has_checkpoint: bool,
}

/// One segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentMeta {
    pub(crate) id: u64,
    /// Index of the first entry.
    pub(crate) base: u64,
    pub(crate) salt: u64,
    /// Term of the entry before the first one, 0 if none.
    pub(crate) prev_term: u64,
}

/// One sealed segment. It holds at least one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedMeta {
    pub(crate) segment: SegmentMeta,
    /// Byte offset behind the last entry that counts. There may be more bytes behind it.
    pub(crate) end: u64,
    /// Bytes of the footer, which lies at the end; 0 if there is none.
    pub(crate) footer_len: u64,
    pub(crate) last: EntryId,
    /// Wall clock of the newest entry's write, milliseconds since 1970.
    pub(crate) newest_ms: u64,
}

/// A membership entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipMeta {
    pub(crate) id: EntryId,
    pub(crate) payload: Vec<u8>,
}

impl Manifest {
    /// The file's bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, FormatError> {
        Ok(ENVELOPE.seal(&codec::encode(self)))
    }

    /// Decodes and checks a file: the segments follow each other without a hole.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let manifest: Self = match ENVELOPE.open(bytes) {
            Err(FormatError::Version { found: 1, .. }) => {
                codec::decode::<ManifestV1>(ENVELOPE_V1.open(bytes)?)?.into()
            }
            body => codec::decode(body?)?,
        };
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), FormatError> {
        let mut before: Option<EntryId> = None;
        for sealed in &self.sealed {
            let segment = &sealed.segment;
            field(WHAT, "segment id", segment.id < self.next_segment_id)?;
            field(WHAT, "segment range", segment.base <= sealed.last.index)?;
            field(WHAT, "segment term", segment.prev_term <= sealed.last.term)?;
            field(WHAT, "segment order", follows(before, segment))?;
            before = Some(sealed.last);
        }
        field(WHAT, "segment id", self.active.id < self.next_segment_id)?;
        field(WHAT, "segment order", follows(before, &self.active))
    }
}

fn follows(before: Option<EntryId>, segment: &SegmentMeta) -> bool {
    before.is_none_or(|last| {
        last.index.checked_add(1) == Some(segment.base) && last.term == segment.prev_term
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let segment = |id, base, prev_term| SegmentMeta { id, base, salt: 9, prev_term };
        Manifest {
            log_id: 4,
            next_segment_id: 3,
            committed: Committed::Entry(EntryId { term: 2, index: 4 }),
            stable: 3,
            boundary: Some(Boundary {
                id: EntryId { term: 1, index: 2 },
                membership: Some(MembershipMeta { id: EntryId::default(), payload: vec![1, 2] }),
                has_checkpoint: false,
            }),
            sealed: vec![SealedMeta {
                segment: segment(1, 0, 0),
                end: 5000,
                footer_len: 0,
                last: EntryId { term: 2, index: 6 },
                newest_ms: 12,
            }],
            active: segment(2, 7, 2),
            memberships: vec![],
        }
    }

    #[test]
    fn a_manifest_round_trips_and_every_flipped_bit_is_refused() {
        let good = sample().encode().expect("encode");
        assert_eq!(Manifest::decode(&good), Ok(sample()));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn segments_must_follow_each_other() {
        let breaks: [fn(&mut Manifest); 4] = [
            |m| m.active.base = 8,
            |m| m.active.prev_term = 1,
            |m| m.active.id = 3,
            |m| m.sealed[0].last.index = u64::MAX,
        ];
        for break_it in breaks {
            let mut manifest = sample();
            break_it(&mut manifest);
            let bytes = manifest.encode().expect("encode");
            assert!(Manifest::decode(&bytes).is_err(), "{manifest:?}");
        }
    }
}
