//! The superblock: whose data directory it is, how it was used last, and which logs may have lost something by that.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::envelope::Envelope;
use super::{FormatError, codec};
use crate::member::ReplicaId;
use crate::record::LogId;

const WHAT: &str = "superblock";
const ENVELOPE: Envelope = Envelope { what: WHAT, magic: *b"QLND", version: 3 };
const ENVELOPE_V2: Envelope = Envelope { version: 2, ..ENVELOPE };
const ENVELOPE_V1: Envelope = Envelope { version: 1, ..ENVELOPE };

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
    /// The last run; none if an older build had the directory last.
    pub(crate) run: Option<Run>,
    /// Logs that may have lost what this node had acknowledged.
    pub(crate) suspects: BTreeSet<u64>,
    /// Raised once a majority has let the node in after a start, and now and then, always before another node hears of it. An
    /// older copy of the directory that is put back has a lower one than others have heard of.
    pub(crate) generation: u64,
    /// Another member has heard of a higher generation of this data: what the node had acknowledged since is gone.
    pub(crate) outdated: bool,
    /// The newest that this node has heard of each other member.
    pub(crate) newest: BTreeMap<ReplicaId, Newest>,
}

/// The newest generation of a member's data, and the session of the process that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    pub(crate) session: u128,
    pub(crate) generation: u64,
}

/// How a data directory was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The system was booted as this; none if that is not known.
    pub(crate) boot: Option<u128>,
    /// All that was acknowledged is durable: the run ended as it should.
    pub(crate) clean: bool,
    /// Some log acknowledged what was not flushed.
    pub(crate) asynchronous: bool,
}

#[derive(Deserialize)]
struct SuperblockV1 {
    node_id: u64,
    incarnation: u128,
    cluster: u128,
    logs: BTreeSet<u64>,
}

impl From<SuperblockV1> for Superblock {
    fn from(old: SuperblockV1) -> Self {
        let SuperblockV1 { node_id, incarnation, cluster, logs } = old;
        let (run, suspects) = (None, BTreeSet::new());
        SuperblockV2 { node_id, incarnation, cluster, logs, run, suspects }.into()
    }
}

#[derive(Deserialize)]
struct SuperblockV2 {
    node_id: u64,
    incarnation: u128,
    cluster: u128,
    logs: BTreeSet<u64>,
    run: Option<Run>,
    suspects: BTreeSet<u64>,
}

impl From<SuperblockV2> for Superblock {
    fn from(old: SuperblockV2) -> Self {
        let SuperblockV2 { node_id, incarnation, cluster, logs, run, suspects } = old;
        Self {
            node_id,
            incarnation,
            cluster,
            logs,
            run,
            suspects,
            generation: 0,
            outdated: false,
            newest: BTreeMap::new(),
        }
    }
}

impl Superblock {
    /// The logs that may have lost something, as of a start in this boot. Not the system log for what the last run did: since
    /// there are runs, it acknowledges nothing that is not flushed.
    pub(crate) fn doubtful(&self, boot: Option<u128>) -> BTreeSet<u64> {
        let lost = |run: Run| {
            let same_boot = boot.is_some() && run.boot == boot;
            run.asynchronous && !run.clean && !same_boot
        };
        let mut doubtful = self.suspects.clone();
        if self.run.is_some_and(lost) {
            doubtful.extend(self.logs.iter().filter(|log| **log != LogId::SYSTEM.0));
        }
        doubtful
    }

    /// The file's bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, FormatError> {
        Ok(ENVELOPE.seal(&codec::encode(self)))
    }

    /// Decodes and checks a file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        match ENVELOPE.open(bytes) {
            Err(FormatError::Version { found: 1, .. }) => {
                Ok(codec::decode::<SuperblockV1>(ENVELOPE_V1.open(bytes)?)?.into())
            }
            Err(FormatError::Version { found: 2, .. }) => {
                Ok(codec::decode::<SuperblockV2>(ENVELOPE_V2.open(bytes)?)?.into())
            }
            body => Ok(codec::decode(body?)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_round_trips_and_every_flipped_bit_is_refused() {
        let block = Superblock {
            node_id: 1,
            incarnation: 5,
            cluster: 6,
            logs: BTreeSet::from([0, 3]),
            run: Some(Run { boot: Some(9), clean: true, asynchronous: true }),
            suspects: BTreeSet::from([3]),
            generation: 7,
            outdated: true,
            newest: BTreeMap::from([(
                ReplicaId { node: 2, incarnation: 8 },
                Newest { session: 4, generation: 3 },
            )]),
        };
        let good = block.encode().expect("encode");
        assert_eq!(Superblock::decode(&good), Ok(block));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_superblock_of_version_1_says_nothing_of_its_last_run() {
        let old =
            ENVELOPE_V1.seal(&codec::encode(&(1_u64, 5_u128, 6_u128, BTreeSet::from([0_u64, 3]))));
        let block = Superblock::decode(&old).expect("version 1");
        assert_eq!((block.node_id, block.incarnation, block.cluster), (1, 5, 6));
        assert_eq!((block.logs, block.run), (BTreeSet::from([0, 3]), None));
    }

    #[test]
    fn a_superblock_of_version_2_is_of_no_generation() {
        let (logs, run) = (BTreeSet::from([0_u64, 3]), Some(Run { clean: true, ..Run::default() }));
        let old = (1_u64, 5_u128, 6_u128, logs.clone(), run, BTreeSet::from([3_u64]));
        let block = Superblock::decode(&ENVELOPE_V2.seal(&codec::encode(&old))).expect("version 2");
        assert_eq!((block.node_id, block.incarnation, block.cluster), (1, 5, 6));
        assert_eq!((block.logs, block.run, block.suspects), (logs, run, BTreeSet::from([3])));
        assert_eq!((block.generation, block.outdated, block.newest.len()), (0, false, 0));
    }
}
