//! What the cluster is known to have lost of one log, since this process started: counted for metrics and status.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::mutant::Mutant;

/// See the module. A log that is opened again goes on counting.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    elections: AtomicU64,
    rewinds: AtomicU64,
    records: AtomicU64,
}

impl Losses {
    /// This node was elected by nodes that may lack what they had acknowledged.
    pub(super) fn elected_by_suspects(&self) {
        self.elections.fetch_add(1, Ordering::Relaxed);
    }

    /// This node's copy went back by so many entries, of which the leader may lack all or only the last.
    pub(crate) fn rewound(&self, entries: u64) {
        self.rewinds.fetch_add(1, Ordering::Relaxed);
        if !Mutant::LostRecordsNotTold.is_active() {
            self.records.fetch_add(entries, Ordering::Relaxed);
        }
    }

    /// Elections of this node that needed grants of nodes that may lack what they had acknowledged.
    pub(crate) fn elections(&self) -> u64 {
        self.elections.load(Ordering::Relaxed)
    }

    /// How often this node's copy went back.
    pub(crate) fn rewinds(&self) -> u64 {
        self.rewinds.load(Ordering::Relaxed)
    }

    /// Entries that this node showed as committed and then went back over: so many may be lost, and no more of those that
    /// it had shown.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}
