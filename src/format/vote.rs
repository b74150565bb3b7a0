//! The vote file: two slots that hold the same.
//!
//! A vote is written to the first slot and flushed, then to the second and flushed. Whatever one
//! crash or one bad sector does, a slot with the last acknowledged vote is left.
//!
//! ```text
//! 0   4 bytes  magic "QLVT"
//! 4   u16      version = 1
//! 6   u16      flags: bit 0 = there is a vote, bit 1 = the vote is committed
//! 8   u64      log id
//! 16  u64      sequence, counts saves
//! 24  u64      term
//! 32  u64      voted for: number of the node
//! 40  u64      one past the last committed index known to the writer
//! 48  u128     voted for: incarnation of the node's data directory
//! 64  u32      zero
//! 68  u32      CRC of bytes 0..68
//! ```

use super::{
    FormatError, check_header, field, need, put, put_crc, u16_at, u32_at, u64_at, u128_at,
};
use crate::member::ReplicaId;

/// Bytes of one slot.
pub(crate) const VOTE_SLOT: usize = 72;
/// Where the slots lie: in blocks of their own, so that one bad write hits one of them.
pub(crate) const VOTE_SLOTS_AT: [u64; 2] = [0, 4096];
/// Bytes of the file.
pub(crate) const VOTE_FILE: u64 = 8192;

const MAGIC: [u8; 4] = *b"QLVT";
const VERSION: u16 = 1;
const FLAG_PRESENT: u16 = 1;
const FLAG_COMMITTED: u16 = 2;
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
    /// One past the last committed index known to the writer.
    pub(crate) committed: u64,
}

impl VoteSlot {
    /// The slot's bytes.
    pub(crate) fn encode(&self) -> [u8; VOTE_SLOT] {
        let mut flags = 0;
        let mut bytes = [0; VOTE_SLOT];
        if let Some(vote) = self.vote {
            flags = if vote.committed { FLAG_PRESENT | FLAG_COMMITTED } else { FLAG_PRESENT };
            put(&mut bytes, 24, vote.term.to_le_bytes());
            put(&mut bytes, 32, vote.voted_for.node.to_le_bytes());
            put(&mut bytes, 48, vote.voted_for.incarnation.to_le_bytes());
        }
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 4, VERSION.to_le_bytes());
        put(&mut bytes, 6, flags.to_le_bytes());
        put(&mut bytes, 8, self.log_id.to_le_bytes());
        put(&mut bytes, 16, self.sequence.to_le_bytes());
        put(&mut bytes, 40, self.committed.to_le_bytes());
        put_crc(&mut bytes, 68);
        bytes
    }

    /// Decodes and checks the first 72 of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        need(WHAT, bytes, VOTE_SLOT)?;
        let bytes = &bytes[..VOTE_SLOT];
        check_header(WHAT, bytes, MAGIC, 68, (u16_at(bytes, 4), VERSION))?;
        let flags = u16_at(bytes, 6);
        let known = [0, FLAG_PRESENT, FLAG_PRESENT | FLAG_COMMITTED].contains(&flags);
        field(WHAT, "flag", known && u32_at(bytes, 64) == 0)?;
        let vote = Vote {
            term: u64_at(bytes, 24),
            voted_for: ReplicaId { node: u64_at(bytes, 32), incarnation: u128_at(bytes, 48) },
            committed: flags & FLAG_COMMITTED != 0,
        };
        Ok(Self {
            log_id: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            vote: (flags & FLAG_PRESENT != 0).then_some(vote),
            committed: u64_at(bytes, 40),
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
            let slot = VoteSlot { log_id: 1, sequence: 8, vote, committed: 77 };
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
