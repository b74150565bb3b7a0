//! Head of a checkpoint file; the state follows it to the end of the file.
//!
//! ```text
//! 0   4 bytes  magic "QLCK"
//! 4   u16      version = 1
//! 6   u16      zero
//! 8   u64      log id
//! 16  u64      term  of the last entry applied to the state
//! 24  u64      index of it
//! 32  u64      length of the state
//! 40  u32      CRC of the state
//! 44  u32      CRC of bytes 0..44
//! 48  state
//! ```

use super::entry::EntryId;
use super::{FormatError, check_header, field, need, put, put_crc, u16_at, u32_at, u64_at};

/// Bytes before the state.
pub(crate) const CHECKPOINT_HEADER: usize = 48;

const MAGIC: [u8; 4] = *b"QLCK";
const VERSION: u16 = 1;
const WHAT: &str = "checkpoint";

/// Head of a checkpoint file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    pub(crate) log_id: u64,
    /// The last entry that the state includes.
    pub(crate) id: EntryId,
    pub(crate) state_len: u64,
    pub(crate) state_crc: u32,
}

impl CheckpointHeader {
    /// The header's bytes.
    pub(crate) fn encode(&self) -> [u8; CHECKPOINT_HEADER] {
        let mut bytes = [0; CHECKPOINT_HEADER];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 4, VERSION.to_le_bytes());
        put(&mut bytes, 8, self.log_id.to_le_bytes());
        put(&mut bytes, 16, self.id.term.to_le_bytes());
        put(&mut bytes, 24, self.id.index.to_le_bytes());
        put(&mut bytes, 32, self.state_len.to_le_bytes());
        put(&mut bytes, 40, self.state_crc.to_le_bytes());
        put_crc(&mut bytes, 44);
        bytes
    }

    /// Decodes and checks the head of a file that is `file_len` bytes long.
    pub(crate) fn decode(bytes: &[u8], file_len: u64) -> Result<Self, FormatError> {
        need(WHAT, bytes, CHECKPOINT_HEADER)?;
        let bytes = &bytes[..CHECKPOINT_HEADER];
        check_header(WHAT, bytes, MAGIC, 44, (u16_at(bytes, 4), VERSION))?;
        field(WHAT, "reserved field", u16_at(bytes, 6) == 0)?;
        let state_len = u64_at(bytes, 32);
        let have = file_len.saturating_sub(CHECKPOINT_HEADER as u64);
        if state_len > have {
            return Err(FormatError::Short { what: WHAT, need: state_len, have });
        }
        field(WHAT, "length", state_len == have)?;
        Ok(Self {
            log_id: u64_at(bytes, 8),
            id: EntryId { term: u64_at(bytes, 16), index: u64_at(bytes, 24) },
            state_len,
            state_crc: u32_at(bytes, 40),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_round_trips_and_every_flipped_bit_is_refused() {
        let id = EntryId { term: 1, index: 2 };
        let header = CheckpointHeader { log_id: 3, id, state_len: 5, state_crc: 7 };
        let good = header.encode();
        assert_eq!(CheckpointHeader::decode(&good, 53), Ok(header));
        assert!(CheckpointHeader::decode(&good, 52).is_err(), "cut");
        assert!(CheckpointHeader::decode(&good, 54).is_err(), "grown");
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(CheckpointHeader::decode(&bad, 53).is_err(), "bit {bit}");
        }
    }
}
