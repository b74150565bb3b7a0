//! The first block of a segment file. docs/storage.md 4.4 draws it.

use super::{FormatError, check_header, field, need, put, put_crc, u16_at, u32_at, u64_at};

/// Bytes before the first group.
pub(crate) const HEADER_BLOCK: usize = 4096;
/// Bytes of the block that carry something; the rest is zero.
const USED: usize = 48;
const MAGIC: [u8; 4] = *b"QLSG";
const VERSION: u16 = 1;
const WHAT: &str = "segment header";

/// Which segment a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u64,
    pub(crate) segment_id: u64,
    /// Index of the first entry.
    pub(crate) base: u64,
    /// Random; repeated in every group of this segment and in no other.
    pub(crate) salt: u64,
}

impl SegmentHeader {
    /// The whole block.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BLOCK];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 4, VERSION.to_le_bytes());
        put(&mut bytes, 8, self.log_id.to_le_bytes());
        put(&mut bytes, 16, self.segment_id.to_le_bytes());
        put(&mut bytes, 24, self.base.to_le_bytes());
        put(&mut bytes, 32, self.salt.to_le_bytes());
        put_crc(&mut bytes[..USED], USED - 4);
        bytes
    }

    /// Decodes and checks a block.
    pub(crate) fn decode(block: &[u8]) -> Result<Self, FormatError> {
        need(WHAT, block, HEADER_BLOCK)?;
        let bytes = &block[..USED];
        check_header(WHAT, bytes, MAGIC, USED - 4, (u16_at(bytes, 4), VERSION))?;
        let zeros = u16_at(bytes, 6) == 0 && u32_at(bytes, 40) == 0;
        let rest = block[USED..HEADER_BLOCK].iter().all(|&byte| byte == 0);
        field(WHAT, "reserved field", zeros && rest)?;
        Ok(Self {
            log_id: u64_at(bytes, 8),
            segment_id: u64_at(bytes, 16),
            base: u64_at(bytes, 24),
            salt: u64_at(bytes, 32),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_round_trips_and_every_flipped_bit_is_refused() {
        let header = SegmentHeader { log_id: 1, segment_id: 2, base: 3, salt: 4 };
        let good = header.encode();
        assert_eq!(SegmentHeader::decode(&good), Ok(header));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
