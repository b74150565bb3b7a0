//! The superblock: whose data directory it is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::envelope::Envelope;
use super::{FormatError, codec};

const WHAT: &str = "superblock";
const ENVELOPE: Envelope = Envelope { what: WHAT, magic: *b"QLND", version: 1 };

/// What the file `NODE` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Superblock {
    pub(crate) node_id: u64,
    /// Random number made with the directory: a node whose data was wiped has another one.
    pub(crate) incarnation: u128,
    /// 0 until the node belongs to a cluster.
    pub(crate) cluster: u128,
    /// Logs whose directories must be there.
    pub(crate) logs: BTreeSet<u64>,
}

impl Superblock {
    /// The file's bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, FormatError> {
        Ok(ENVELOPE.seal(&codec::encode(self)))
    }

    /// Decodes and checks a file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        Ok(codec::decode(ENVELOPE.open(bytes)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_round_trips_and_every_flipped_bit_is_refused() {
        let block =
            Superblock { node_id: 1, incarnation: 5, cluster: 6, logs: BTreeSet::from([0, 3]) };
        let good = block.encode().expect("encode");
        assert_eq!(Superblock::decode(&good), Ok(block));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
