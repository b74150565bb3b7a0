//! Whether the leader that openraft names is there. openraft names the leader of the last vote, which may be gone for long,
//! or come from the disk: without a majority nobody raises the term, so the name stays.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::metrics::RaftServerMetrics;
use tokio::time::Instant;

use super::group::Group;
use super::types::Types;
use crate::member::ReplicaId;
use crate::mutant::Mutant;

/// A leader counts as there for so many of the longest election timeouts after the last sign of it. A follower without
/// a leader stands for election within one.
const TIMEOUTS: u32 = 2;

/// When there was a sign of the newest term's leader.
#[derive(Debug, Default)]
struct Sign {
    term: AtomicU64,
    /// Microseconds; 0 for none.
    at: AtomicU64,
}

impl Sign {
    fn note(&self, term: u64, at: u64) {
        if term >= self.term.load(Ordering::Acquire) {
            // In this order: who sees the term sees a sign of it.
            self.at.fetch_max(at.max(1), Ordering::Relaxed);
            self.term.store(term, Ordering::Release);
        }
    }

    fn of(&self, term: u64) -> Option<u64> {
        let same = self.term.load(Ordering::Acquire) == term;
        Some(self.at.load(Ordering::Relaxed)).filter(|at| same && *at > 0)
    }
}

/// Signs of leaders in this run.
#[derive(Debug)]
pub(super) struct Heard {
    /// Moments are counted from here.
    opened: Instant,
    /// The last request of a leader.
    asked: Sign,
    /// When this node began to lead: a majority had just voted for it.
    elected: Sign,
}

impl Heard {
    pub(super) fn new() -> Self {
        Self { opened: Instant::now(), asked: Sign::default(), elected: Sign::default() }
    }

    fn micros(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.opened);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// A leader of this term has sent a request. Noted as it comes: its answer waits for the disk.
    pub(super) fn asked(&self, term: u64, received: Instant) {
        self.asked.note(term, self.micros(received));
    }

    /// This node leads in this term.
    pub(super) fn leads(&self, term: u64) {
        if self.elected.term.load(Ordering::Acquire) != term {
            self.elected.note(term, self.micros(Instant::now()));
        }
    }

    fn within(&self, sign: &Sign, term: u64, limit: Duration) -> bool {
        let at = sign.of(term).map(|at| self.opened + Duration::from_micros(at));
        at.is_some_and(|at| at.elapsed() < limit)
    }
}

impl Group {
    /// True if `leader`, which openraft names in `server`, is there as far as this node can know: a leader sends it
    /// requests, or a majority answers this one.
    pub(super) fn is_there(&self, leader: ReplicaId, server: &RaftServerMetrics<Types>) -> bool {
        let limit = self.timing.election_timeout_max * TIMEOUTS;
        let term = server.vote.leader_id.term;
        if Mutant::LastVoteLeads.is_active() {
            return true;
        }
        if leader != self.replica {
            return self.heard.within(&self.heard.asked, term, limit);
        }
        self.heard.leads(term);
        self.is_answered_within(limit) || self.heard.within(&self.heard.elected, term, limit)
    }

    /// True on a leader if a majority of voters, itself among them, has answered what it sent not longer ago.
    pub(super) fn is_answered_within(&self, limit: Duration) -> bool {
        // openraft notes the time of answers of others.
        if self.is_leader() && !self.has_others() {
            return true;
        }
        let acked = self.raft.metrics().borrow_watched().last_quorum_acked;
        acked.is_some_and(|acked| acked.elapsed() < limit)
    }
}
