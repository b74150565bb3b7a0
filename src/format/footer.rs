//! The sparse index behind the groups of a segment that was sealed full. docs/storage.md 4.4 draws it.
//!
//! It is a convenience: a missing or bad footer is rebuilt from the entries.

use super::{FormatError, check_header, field, need, put, put_crc, u32_at};

const MAGIC: [u8; 4] = *b"QLFT";
const SLOT: usize = 8;
const TAIL: usize = 16;
const WHAT: &str = "segment footer";

/// Where one entry lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Index of the entry, counted from the segment's base.
    pub(crate) entry: u32,
    /// Byte offset of its header in the file.
    pub(crate) offset: u32,
}

/// Bytes of a footer with `slots` slots.
pub(crate) fn footer_len(slots: usize) -> u64 {
    (slots * SLOT + TAIL) as u64
}

/// The footer's bytes.
pub(crate) fn encode_footer(slots: &[Slot]) -> Vec<u8> {
    let mut bytes = vec![0; slots.len() * SLOT + TAIL];
    let (body, tail) = bytes.split_at_mut(slots.len() * SLOT);
    for (slot, raw) in slots.iter().zip(body.chunks_exact_mut(SLOT)) {
        put(raw, 0, slot.entry.to_le_bytes());
        put(raw, 4, slot.offset.to_le_bytes());
    }
    let count = u32::try_from(slots.len()).expect("slots lie 16 KiB apart in less than 4 GiB");
    put(tail, 0, MAGIC);
    put(tail, 4, count.to_le_bytes());
    put(tail, 8, crc32fast::hash(body).to_le_bytes());
    put_crc(tail, TAIL - 4);
    bytes
}

/// Slots in a footer of so many bytes.
pub(crate) fn slot_count(footer_len: usize) -> usize {
    footer_len.saturating_sub(TAIL) / SLOT
}

/// The `at`th slot of a footer that was checked.
pub(crate) fn slot_at(footer: &[u8], at: usize) -> Slot {
    Slot { entry: u32_at(footer, at * SLOT), offset: u32_at(footer, at * SLOT + 4) }
}

/// Checks a whole footer. Gives the number of slots.
pub(crate) fn check_footer(bytes: &[u8]) -> Result<usize, FormatError> {
    need(WHAT, bytes, TAIL)?;
    let (body, tail) = bytes.split_at(bytes.len() - TAIL);
    check_header(WHAT, tail, MAGIC, TAIL - 4, (1, 1))?;
    field(WHAT, "number of slots", u32_at(tail, 4) as usize * SLOT == body.len())?;
    if crc32fast::hash(body) != u32_at(tail, 8) {
        return Err(FormatError::Crc { what: WHAT });
    }
    let count = slot_count(bytes.len());
    let rises = (1..count).all(|at| {
        let (before, after) = (slot_at(bytes, at - 1), slot_at(bytes, at));
        before.entry < after.entry && before.offset < after.offset
    });
    field(WHAT, "order of slots", rises)?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_round_trips_and_every_flipped_bit_is_refused() {
        let slots = [Slot { entry: 0, offset: 4152 }, Slot { entry: 9, offset: 30000 }];
        let good = encode_footer(&slots);
        assert_eq!(good.len() as u64, footer_len(2));
        assert_eq!(check_footer(&good), Ok(2));
        assert_eq!([slot_at(&good, 0), slot_at(&good, 1)], slots);
        assert_eq!(check_footer(&encode_footer(&[])), Ok(0));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(check_footer(&bad).is_err(), "bit {bit}");
        }
    }
}
