//! Damage that a reader finds in this node's copy of a log. Others hold the same record whole, so the node gives up
//! the lead at once and does not take it again. It goes on as a follower: what it writes now counts as before.
//!
//! What consensus itself reads is another matter: without it the group stops (`log_store`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::group::Group;
use crate::error::{StorageError, with_sources};
use crate::log::DamageFound;
use crate::member::NodeId;
use crate::mutant::Mutant;

/// Pause before a damaged node looks again whether it leads.
const PAUSE: Duration = Duration::from_millis(100);

/// What a group knows of damaged copies.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    /// What is damaged here.
    reason: OnceLock<String>,
    /// This node is about to hand over.
    leaves: AtomicBool,
    /// Members that said that their copies are damaged.
    peers: Mutex<BTreeSet<NodeId>>,
}

impl Damage {
    /// What is damaged here, if anything is.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// True while this node leads with a damaged copy and hands over.
    #[cfg_attr(
        not(feature = "broker"),
        allow(dead_code, reason = "brokers wait for the next leader")
    )]
    pub(crate) fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Acquire)
    }

    /// True if a member said that its copy is damaged.
    pub(super) fn is_of(&self, node: NodeId) -> bool {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    /// Notes what a member says.
    pub(super) fn note_peer(&self, node: NodeId, damaged: bool) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if damaged {
            peers.insert(node);
        } else {
            peers.remove(&node);
        }
    }
}

impl Group {
    /// A reader got this error. If it tells of damage, the node notes it, durably, and gives up the lead.
    pub(crate) fn reader_failed(self: &Arc<Self>, error: &StorageError) {
        let Some(found) = DamageFound::of(error) else { return };
        if Mutant::DamagedLeaderStays.is_active()
            || self.damage.reason.set(with_sources(error)).is_err()
        {
            return;
        }
        tracing::error!(log = %self.name, error = with_sources(error), "this node's copy is damaged");
        self.damage.leaves.store(self.is_leader() && self.has_others(), Ordering::Release);
        tokio::spawn(Arc::clone(self).live_with_damage(found));
    }

    /// True if a node's copy is known to be damaged.
    pub(crate) fn is_damaged(&self, node: NodeId) -> bool {
        self.damage.is_of(node) || node == self.node() && self.damage.reason().is_some()
    }

    /// True if other voters may hold what is damaged here.
    fn has_others(&self) -> bool {
        self.voters().iter().any(|voter| *voter != self.replica)
    }

    /// Keeps a node with a damaged copy from leading, for as long as its group runs. Where no other node leads for long,
    /// it leads rather than nobody.
    async fn live_with_damage(self: Arc<Self>, found: DamageFound) {
        let patience = self.timing.election_timeout_max * 4;
        let mut found = Some(found);
        let mut led_at = Instant::now();
        while !self.is_closed() && self.log.failure().is_none() {
            if self.has_others() {
                if let Some(found) = found.take() {
                    self.note_durably(found).await;
                }
                if self.is_leader() {
                    self.give_up_lead().await;
                }
            }
            // Readers get the error from now on, also while this node leads because no other can.
            self.damage.leaves.store(false, Ordering::Release);
            // Not whom the last vote named: that leader may be gone, and nobody else may hold enough.
            if self.is_leader() || self.hears_leader() {
                led_at = Instant::now();
            }
            let stands = !self.has_others() || led_at.elapsed() > patience;
            self.raft.runtime_config().elect(stands);
            // paced: what it waits for are several things, and none is urgent.
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn note_durably(&self, found: DamageFound) {
        // Where the disk may block. None: the node is stopping, and damage is found again.
        let _ = self.saver.run(move |log| log.note_found(&found)).await;
    }

    /// Hands over to the best successor, or else to the next one.
    async fn give_up_lead(&self) {
        let limit = self.timing.election_timeout_max * 2;
        for to in self.successors() {
            match self.transfer_leadership(to, limit).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(log = %self.name, to, %error, "a damaged log was not handed over");
                }
            }
            if !self.is_leader() {
                break;
            }
        }
    }
}
