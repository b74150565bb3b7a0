//! A node that must not lead a log: its copy is damaged, or another log on it has stopped without which it cannot serve
//! this one's clients. It says so in its answers, hands the lead over, and does not stand for election. It goes on as a
//! follower.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::Instant;

use super::group::Group;
use crate::member::NodeId;
use crate::mutant::Mutant;

/// Pause before an unfit node looks again whether it leads.
const PAUSE: Duration = Duration::from_millis(100);

/// What a group knows of nodes that must not lead it.
#[derive(Debug, Default)]
pub(crate) struct Unfit {
    /// What is damaged here.
    damage: OnceLock<String>,
    /// Another log has stopped here.
    declines: AtomicBool,
    /// A task keeps this node from leading.
    kept: AtomicBool,
    /// This node is about to hand over.
    leaves: AtomicBool,
    /// Members that said that they are unfit.
    peers: Mutex<BTreeSet<NodeId>>,
}

impl Unfit {
    /// What is damaged here, if anything is.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Notes what is damaged here. False if it was known.
    pub(super) fn note_damage(&self, reason: String) -> bool {
        self.damage.set(reason).is_ok()
    }

    /// True if this node must not lead.
    pub(super) fn is_here(&self) -> bool {
        self.damage.get().is_some() || self.declines.load(Ordering::Acquire)
    }

    /// True while this node leads all the same, and hands over.
    pub(crate) fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Acquire)
    }

    /// True if a member said that it is unfit.
    pub(super) fn is_of(&self, node: NodeId) -> bool {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    /// Notes what a member says.
    pub(super) fn note_peer(&self, node: NodeId, unfit: bool) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if unfit {
            peers.insert(node);
        } else {
            peers.remove(&node);
        }
    }
}

impl Group {
    /// True if a node is known to be unfit to lead.
    pub(crate) fn is_unfit(&self, node: NodeId) -> bool {
        self.unfit.is_of(node) || node == self.node() && self.unfit.is_here()
    }

    /// Has this node not lead the log, or lead it again. Where no other node leads for long, it leads rather than nobody.
    pub(crate) fn decline_lead(self: &Arc<Self>, declines: bool) {
        let declines = declines && !Mutant::StoppedLogLeadsOn.is_active();
        let before = self.unfit.declines.swap(declines, Ordering::AcqRel);
        if declines && !before {
            self.leave_lead();
        }
    }

    /// True if other voters may lead.
    pub(super) fn has_others(&self) -> bool {
        let server = self.raft.server_metrics().borrow_watched().clone();
        let mut voters = server.membership_config.membership().voter_ids();
        voters.any(|voter| voter != self.replica)
    }

    /// Begins to hand over, since this node has become unfit.
    pub(super) fn leave_lead(self: &Arc<Self>) {
        self.unfit.leaves.store(self.is_leader() && self.has_others(), Ordering::Release);
        if !self.unfit.kept.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).keep_from_leading());
        }
    }

    /// Keeps this node from leading while it is unfit, for as long as its group runs. Where no other node leads for
    /// long, it leads rather than nobody.
    async fn keep_from_leading(self: Arc<Self>) {
        let patience = self.timing.election_timeout_max * 4;
        let mut led_at = Instant::now();
        let mut kept = false;
        while !self.is_closed() && self.log.failure().is_none() {
            let unfit = self.unfit.is_here();
            if unfit && self.is_leader() && self.has_others() {
                self.give_up_lead().await;
            }
            // Readers get the error from now on, also while this node leads because no other can.
            self.unfit.leaves.store(false, Ordering::Release);
            // Not whom the last vote named: that leader may be gone, and nobody else may hold enough.
            if self.is_leader() || self.hears_leader() {
                led_at = Instant::now();
            }
            let stands = !unfit || !self.has_others() || led_at.elapsed() > patience;
            if kept || unfit {
                self.raft.runtime_config().elect(stands);
            }
            kept = unfit;
            // paced: what it waits for are several things, and none is urgent.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Hands over to the best successor, or else to the next one.
    async fn give_up_lead(&self) {
        let limit = self.timing.election_timeout_max * 2;
        for to in self.successors() {
            match self.transfer_leadership(to, limit).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(log = %self.name, to, %error, "a node that must not lead did not hand over");
                }
            }
            if !self.is_leader() {
                break;
            }
        }
    }
}
