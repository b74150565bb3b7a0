//! Whether this node's copy of a log may lack what it had acknowledged, and what the members say of theirs.
//!
//! A log that acknowledges before it flushes loses its tail in a power cut, and may be asked for its vote before it has
//! the tail again. It is *suspect* from the cut until a leader has made it whole (`recovery`). Its votes are marked, since
//! they do not prove what votes prove in Raft (`ballot`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::member::NodeId;

/// See the module.
#[derive(Debug)]
pub(crate) struct Trust {
    suspect: AtomicBool,
    began_suspect: bool,
    /// When the log was opened.
    since: Instant,
    /// Members that said that they are suspect.
    peers: Mutex<BTreeSet<NodeId>>,
    /// Some did: as long as none has, an answer costs no lock.
    any_peer: AtomicBool,
}

impl Trust {
    pub(super) fn new(suspect: bool) -> Self {
        Self {
            suspect: AtomicBool::new(suspect),
            began_suspect: suspect,
            since: Instant::now(),
            peers: Mutex::default(),
            any_peer: AtomicBool::new(false),
        }
    }

    /// True if this node's copy may have lacked something when it was opened.
    pub(super) fn began_suspect(&self) -> bool {
        self.began_suspect
    }

    /// True if this node's copy may lack what it had acknowledged.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// This node's copy is whole again, and that is stored.
    pub(super) fn restore(&self) {
        self.suspect.store(false, Ordering::Release);
    }

    /// Since when this node's copy is known to be suspect, while it is.
    pub(crate) fn suspect_since(&self) -> Option<Instant> {
        self.is_suspect().then_some(self.since)
    }

    /// When the log was opened.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// True if a member said that it is suspect.
    pub(super) fn is_of(&self, node: NodeId) -> bool {
        self.peers().contains(&node)
    }

    /// Notes what a member says.
    pub(super) fn note_peer(&self, node: NodeId, suspect: bool) {
        if !suspect && !self.any_peer.load(Ordering::Acquire) {
            return;
        }
        let mut peers = self.peers();
        if suspect {
            peers.insert(node);
        } else {
            peers.remove(&node);
        }
        self.any_peer.store(!peers.is_empty(), Ordering::Release);
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, BTreeSet<NodeId>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
