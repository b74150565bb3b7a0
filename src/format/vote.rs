//! The vote file: two slots that hold the same.
//!
//! A vote is written to the first slot and flushed, then to the second and flushed. Whatever one
//! crash or one bad sector does, a slot with the last acknowledged vote is left.
//!
//! ```text
//! 0   4 bytes  magic "QLVT"
//! 4   u16      version = 2
//! 6   u16      flags: bit 0 = there is a vote, bit 1 = the vote is committed, bit 2 = the term at 64 is known
//! 8   u64      log id
//! 16  u64      sequence, counts saves
//! 24  u64      term
//! 32  u64      voted for: number of the node
//! 40  u64      one past the last committed index known to the writer
//! 48  u128     voted for: incarnation of the node's data directory
//! 64  u64      term of the last committed entry
//! 72  u64      one past the last index that a majority has flushed, as far as it was known
//! 80  u32      zero
//! 84  u32      CRC of bytes 0..84
//! ```
//!
//! Version 1 has neither the term at 64 nor what follows it: a zero `u32` and the CRC end it there.

use super::committed::Committed;
use super::entry::EntryId;
use super::{
    FormatError, check_header, field, need, put, put_crc, u16_at, u32_at, u64_at, u128_at,
};
use crate::member::ReplicaId;

/// Bytes of one slot.
pub(crate) const VOTE_SLOT: usize = 88;
/// Where the slots lie: in separate blocks, so that one bad write hits one of them.
pub(crate) const VOTE_SLOTS_AT: [u64; 2] = [0, 4096];
/// Bytes of the file.
pub(crate) const VOTE_FILE: u64 = 8192;

const MAGIC: [u8; 4] = *b"QLVT";
const VERSION: u16 = 2;
const FLAG_PRESENT: u16 = 1;
const FLAG_COMMITTED: u16 = 2;
const FLAG_TERM_KNOWN: u16 = 4;
/// Where the CRC lies, in this version and in version 1.
const CRC_AT: usize = 84;
const CRC_AT_V1: usize = 68;
const WHAT: &str = "vote slot";

/// A Raft vote as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    pub(crate) voted_for: ReplicaId,
    pub(crate) committed: bool,
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VoteSlot {
    pub(crate) log_id: u64,
    /// Counts saves; the slot with the higher one is the newer.
    pub(crate) sequence: u64,
    pub(crate) vote: Option<Vote>,
    /// The last committed entry known to the writer.
    pub(crate) committed: Committed,
    /// One past the last index that a majority has flushed, as far as the writer knew.
    pub(crate) stable: u64,
}

impl VoteSlot {
    /// The slot's bytes.
    pub(crate) fn encode(&self) -> [u8; VOTE_SLOT] {
        let mut flags = 0;
        let mut bytes = [0; VOTE_SLOT];
        if let Some(vote) = self.vote {
            flags |= if vote.committed { FLAG_PRESENT | FLAG_COMMITTED } else { FLAG_PRESENT };
            put(&mut bytes, 24, vote.term.to_le_bytes());
            put(&mut bytes, 32, vote.voted_for.node.to_le_bytes());
            put(&mut bytes, 48, vote.voted_for.incarnation.to_le_bytes());
        }
        if let Committed::Entry(id) = self.committed {
            flags |= FLAG_TERM_KNOWN;
            put(&mut bytes, 64, id.term.to_le_bytes());
        }
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 4, VERSION.to_le_bytes());
        put(&mut bytes, 6, flags.to_le_bytes());
        put(&mut bytes, 8, self.log_id.to_le_bytes());
        put(&mut bytes, 16, self.sequence.to_le_bytes());
        put(&mut bytes, 40, self.committed.end().to_le_bytes());
        put(&mut bytes, 72, self.stable.to_le_bytes());
        put_crc(&mut bytes, CRC_AT);
        bytes
    }

    /// Decodes and checks the first 88 of `bytes`, or the first 72 if they are of version 1.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        need(WHAT, bytes, CRC_AT_V1 + 4)?;
        let version = u16_at(bytes, 4);
        let is_v1 = version == 1;
        let (crc_at, supported) = if is_v1 { (CRC_AT_V1, 1) } else { (CRC_AT, VERSION) };
        check_header(WHAT, bytes, MAGIC, crc_at, (version, supported))?;
        let flags = u16_at(bytes, 6);
        let of_vote = flags & (FLAG_PRESENT | FLAG_COMMITTED);
        let of_committed = if is_v1 { 0 } else { flags & FLAG_TERM_KNOWN };
        let known = of_vote != FLAG_COMMITTED && flags == of_vote | of_committed;
        field(WHAT, "flag", known && u32_at(bytes, crc_at - 4) == 0)?;
        let vote = Vote {
            term: u64_at(bytes, 24),
            voted_for: ReplicaId { node: u64_at(bytes, 32), incarnation: u128_at(bytes, 48) },
            committed: flags & FLAG_COMMITTED != 0,
        };
        let committed = match (u64_at(bytes, 40).checked_sub(1), of_committed) {
            (None, _) => Committed::Nothing,
            (Some(index), 0) => Committed::Index(index),
            (Some(index), _) => Committed::Entry(EntryId { term: u64_at(bytes, 64), index }),
        };
        Ok(Self {
            log_id: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            vote: (flags & FLAG_PRESENT != 0).then_some(vote),
            committed,
            stable: if is_v1 { 0 } else { u64_at(bytes, 72) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_round_trip_and_every_flipped_bit_is_refused() {
        let voted_for = ReplicaId { node: 2, incarnation: u128::MAX / 3 };
        let vote = Vote { term: 3, voted_for, committed: true };
        for vote in [None, Some(vote), Some(Vote { committed: false, ..vote })] {
            for committed in [
                Committed::Nothing,
                Committed::Index(76),
                Committed::Entry(EntryId { term: 2, index: 76 }),
            ] {
                let slot = VoteSlot { log_id: 1, sequence: 8, vote, committed, stable: 70 };
                let good = slot.encode();
                assert_eq!(VoteSlot::decode(&good), Ok(slot));
                for bit in 0..good.len() * 8 {
                    let mut bad = good;
                    bad[bit / 8] ^= 1 << (bit % 8);
                    assert!(VoteSlot::decode(&bad).is_err(), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_slot_of_version_1_is_read_and_every_flipped_bit_of_it_is_refused() {
        let voted_for = ReplicaId { node: 2, incarnation: 9 };
        let vote = Vote { term: 3, voted_for, committed: true };
        let mut old = [0; CRC_AT_V1 + 4];
        put(&mut old, 0, MAGIC);
        put(&mut old, 4, 1_u16.to_le_bytes());
        put(&mut old, 6, 3_u16.to_le_bytes());
        for (at, number) in [(8, 1_u64), (16, 8), (24, 3), (32, 2), (40, 77), (48, 9)] {
            put(&mut old, at, number.to_le_bytes());
        }
        put_crc(&mut old, CRC_AT_V1);
        let committed = Committed::Index(76);
        let slot = VoteSlot { log_id: 1, sequence: 8, vote: Some(vote), committed, stable: 0 };
        assert_eq!(VoteSlot::decode(&old), Ok(slot));
        for bit in 0..old.len() * 8 {
            let mut bad = old;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(VoteSlot::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
