//! Groups: what one write put into a segment. docs/storage.md 4.3 draws the header.

use super::{FormatError, check_header, field, need, put, put_crc, u16_at, u32_at, u64_at};
use crate::mutant::Mutant;

/// Bytes before the entries.
pub(crate) const GROUP_HEADER: usize = 56;
/// First bytes of a group.
pub(crate) const GROUP_MAGIC: [u8; 4] = *b"QLGR";
/// Most bytes of entries in one group, unless a single entry is larger.
pub(crate) const GROUP_BYTES_MAX: usize = 8 << 20;
/// Most entries in one group.
pub(crate) const GROUP_ENTRIES_MAX: usize = 65536;

const VERSION: u16 = 1;
const WHAT: &str = "group header";

/// Header of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// Entries in the group; 0 for a marker.
    pub(crate) entries: u32,
    /// Bytes of the entries.
    pub(crate) bytes: u32,
    /// Binds the entries to the group.
    pub(crate) digest: u32,
    /// The file is known to have been flushed up to here.
    pub(crate) durable_end: u64,
    /// One past the last committed index known to the writer.
    pub(crate) committed: u64,
    /// Salt of the segment.
    pub(crate) salt: u64,
}

impl GroupHeader {
    /// The header's bytes.
    pub(crate) fn encode(&self) -> [u8; GROUP_HEADER] {
        let mut bytes = [0; GROUP_HEADER];
        put(&mut bytes, 0, GROUP_MAGIC);
        put(&mut bytes, 4, VERSION.to_le_bytes());
        put(&mut bytes, 8, self.entries.to_le_bytes());
        put(&mut bytes, 12, self.bytes.to_le_bytes());
        put(&mut bytes, 16, self.digest.to_le_bytes());
        put(&mut bytes, 24, self.durable_end.to_le_bytes());
        put(&mut bytes, 32, self.committed.to_le_bytes());
        put(&mut bytes, 40, self.salt.to_le_bytes());
        put_crc(&mut bytes, 52);
        bytes
    }

    /// Decodes and checks the first 56 of `bytes`: a header of the segment with this salt. `bytes`
    /// may go on.
    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Result<Self, FormatError> {
        need(WHAT, bytes, GROUP_HEADER)?;
        let bytes = &bytes[..GROUP_HEADER];
        check_header(WHAT, bytes, GROUP_MAGIC, 52, (u16_at(bytes, 4), VERSION))?;
        let header = Self {
            entries: u32_at(bytes, 8),
            bytes: u32_at(bytes, 12),
            digest: u32_at(bytes, 16),
            durable_end: u64_at(bytes, 24),
            committed: u64_at(bytes, 32),
            salt: u64_at(bytes, 40),
        };
        let reserved = (u16_at(bytes, 6), u32_at(bytes, 20), u32_at(bytes, 48));
        field(WHAT, "reserved field", reserved == (0, 0, 0))?;
        let salted = header.salt == salt || Mutant::SaltIgnored.is_active();
        field(WHAT, "salt", salted)?;
        field(WHAT, "number of entries", header.entries as usize <= GROUP_ENTRIES_MAX)?;
        let fits = header.bytes as usize <= GROUP_BYTES_MAX || header.entries == 1;
        field(WHAT, "length", fits && (header.entries == 0) == (header.bytes == 0))?;
        Ok(header)
    }
}

/// Digest of a group: CRC of the CRCs of its entries' headers, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digest(crc32fast::Hasher);

impl Digest {
    /// Adds the next entry.
    pub(crate) fn push(&mut self, header_crc: u32) {
        self.0.update(&header_crc.to_le_bytes());
    }

    /// The digest of what was added.
    pub(crate) fn finish(self) -> u32 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> GroupHeader {
        GroupHeader { entries: 2, bytes: 99, digest: 5, durable_end: 4096, committed: 7, salt: 11 }
    }

    #[test]
    fn a_header_decodes_to_what_was_encoded_and_only_under_its_salt() {
        let bytes = sample().encode();
        assert_eq!(GroupHeader::decode(&bytes, 11), Ok(sample()));
        let other = GroupHeader::decode(&bytes, 12);
        assert_eq!(other, Err(FormatError::Field { what: WHAT, field: "salt" }));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = sample().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(GroupHeader::decode(&bad, 11).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn only_a_single_entry_may_be_longer_than_a_group() {
        let long = GroupHeader { bytes: GROUP_BYTES_MAX as u32 + 1, ..sample() };
        assert!(GroupHeader::decode(&long.encode(), 11).is_err());
        let single = GroupHeader { entries: 1, ..long };
        assert!(GroupHeader::decode(&single.encode(), 11).is_ok());
    }
}
