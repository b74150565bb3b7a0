//! What a majority has flushed.
//!
//! A log that acknowledges before it flushes shows what a majority has *written*. It is *stable* once a majority has flushed
//! it: no power cut of however many nodes takes that back. Followers tell how far they have flushed with each answer to an
//! append, and the leader tells them what is stable with each append.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::messages::Vouched;
use super::types::decode_membership;
use crate::format::entry::EntryId;
use crate::log::Log;
use crate::member::ReplicaId;
use crate::mutant::Mutant;
use crate::record::Flush;

type Config = BTreeSet<ReplicaId>;

/// How far the members of a log have flushed what this node has sent as its leader.
pub(super) struct Stable {
    own: ReplicaId,
    log: Log,
    /// False as long as this node, and each that has answered it, flushes before it acknowledges: then all that is committed
    /// is stable, and nobody counts.
    counts: AtomicBool,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// The term of the leader that was answered.
    term: u64,
    ends: BTreeMap<ReplicaId, u64>,
    /// The voter sets of the newest membership in the log, and which that is.
    configs: Vec<Config>,
    membership: Option<EntryId>,
}

impl Stable {
    pub(super) fn new(own: ReplicaId, log: Log) -> Self {
        let counts = AtomicBool::new(log.flush() == Flush::Async);
        Self { own, log, counts, told: Mutex::default() }
    }

    /// Notes that a follower has taken what was vouched for, and has flushed it as far as it says: none if all of it.
    pub(super) fn answered(&self, from: ReplicaId, vouched: Vouched, flushed: Option<u64>) {
        if flushed.is_some() {
            self.counts.store(true, Ordering::Release);
        } else if !self.counts.load(Ordering::Acquire) {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if vouched.term > told.term {
            told.term = vouched.term;
            told.ends.clear();
        }
        if vouched.term == told.term {
            let end = told.ends.entry(from).or_default();
            *end = flushed.unwrap_or(vouched.end).min(vouched.end).max(*end);
        }
    }

    /// What to tell followers of the leader of `term`, which has committed up to `commit`: one past what is stable, or none if
    /// it is all that.
    pub(super) fn to_tell(&self, term: u64, commit: Option<EntryId>) -> Option<u64> {
        if self.counts.load(Ordering::Acquire) {
            return Some(self.count(term));
        }
        // What earlier leaders had committed may have been flushed by none.
        let Some(commit) = commit.filter(|commit| commit.term == term) else {
            return Some(self.log.stable());
        };
        self.log.settle(term, |_| commit.index + 1);
        None
    }

    /// Counts, and gives one past what is stable. `term` is that of this leader.
    fn count(&self, term: u64) -> u64 {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.refresh(&self.log);
        let answered = told.term == term;
        self.log.settle(term, |flushed| {
            if Mutant::StableByLeaderAlone.is_active() {
                return flushed;
            }
            majority_end(&told.configs, |voter| match told.ends.get(&voter) {
                _ if voter == self.own => flushed,
                Some(end) if answered => *end,
                _ => 0,
            })
        })
    }
}

impl Told {
    fn refresh(&mut self, log: &Log) {
        let newest = log.membership_at(u64::MAX);
        let id = newest.as_ref().map(|newest| newest.id);
        if id == self.membership {
            return;
        }
        let membership = newest.and_then(|newest| decode_membership(&newest.payload).ok());
        self.configs =
            membership.map(|membership| membership.get_joint_config().clone()).unwrap_or_default();
        self.membership = id;
    }
}

/// The highest end that a majority of each voter set has reached; 0 without voters.
fn majority_end(configs: &[Config], end_of: impl Fn(ReplicaId) -> u64) -> u64 {
    let of_config = |config: &Config| {
        let mut ends: Vec<u64> = config.iter().map(|voter| end_of(*voter)).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(config.len() / 2).copied().unwrap_or(0)
    };
    configs.iter().map(of_config).min().unwrap_or(0)
}

impl super::group::Group {
    /// One past what a majority has flushed, as far as this node knows. A leader counts.
    pub(crate) fn stable_end(&self) -> u64 {
        if let Some(vote) = self.leading_vote() {
            self.stable.to_tell(vote.leader_id.term, self.log.committed());
        }
        self.log.stable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(nodes: &[u64]) -> Config {
        nodes.iter().map(|node| ReplicaId { node: *node, incarnation: 1 }).collect()
    }

    fn end(configs: &[&[u64]], ends: &[u64]) -> u64 {
        let configs: Vec<_> = configs.iter().map(|config| self::config(config)).collect();
        majority_end(&configs, |voter| ends[voter.node as usize - 1])
    }

    #[test]
    fn a_majority_of_each_voter_set_must_have_flushed_it() {
        assert_eq!(end(&[&[1]], &[7]), 7);
        assert_eq!(end(&[&[1, 2]], &[7, 3]), 3);
        assert_eq!(end(&[&[1, 2, 3]], &[7, 3, 0]), 3);
        assert_eq!(end(&[&[1, 2, 3, 4]], &[7, 5, 3, 0]), 3);
        assert_eq!(end(&[&[1, 2, 3], &[1, 4, 5]], &[9, 8, 0, 4, 0]), 4);
        assert_eq!(end(&[], &[]), 0);
    }
}
