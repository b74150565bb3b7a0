//! The damage note: what a log was found to be damaged by while it ran.

use serde::{Deserialize, Serialize};

use super::envelope::{ENVELOPE, Envelope};
use super::{FormatError, codec};

const ENVELOPE_OF_NOTE: Envelope = Envelope { what: "damage note", magic: *b"QLDM", version: 1 };

/// Most bytes of the file.
pub(crate) const DAMAGE_NOTE_LEN_MAX: u64 = ENVELOPE as u64 + (64 << 10);

/// What the file `DAMAGE` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DamageNote {
    /// Name of the damaged file in the log's directory.
    pub(crate) file: String,
    /// Where in it.
    pub(crate) offset: u64,
    /// What is wrong there.
    pub(crate) detail: String,
}

impl DamageNote {
    /// The file's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        ENVELOPE_OF_NOTE.seal(&codec::encode(self))
    }

    /// Decodes and checks a file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        Ok(codec::decode(ENVELOPE_OF_NOTE.open(bytes)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_round_trips_and_every_flipped_bit_is_refused() {
        let note = DamageNote { file: "7.seg".into(), offset: 9, detail: "a CRC".into() };
        let good = note.encode();
        assert_eq!(DamageNote::decode(&good), Ok(note));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(DamageNote::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
