//! What a majority has flushed.
//!
//! A log that acknowledges before it flushes shows what a majority has *written*. It is *stable* once a majority has flushed
//! it: no power cut of however many nodes takes that back. Followers tell how far they have flushed with each answer to an
//! append, and the leader tells them what is stable with each append.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use openraft::raft::AppendEntriesRequest;

use super::messages::Vouched;
use super::types::{Types, decode_membership, entry_id};
use crate::format::entry::EntryId;
use crate::log::{Commits, Log};
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

    /// False while nobody is known to acknowledge what it has not flushed.
    pub(super) fn counts(&self) -> bool {
        self.counts.load(Ordering::Acquire)
    }

    /// Notes that a follower has taken what was vouched for, and has flushed it as far as it says: none if all of it.
    pub(super) fn answered(&self, from: ReplicaId, vouched: Vouched, flushed: Option<u64>) {
        if flushed.is_some() {
            // Before the answer can commit anything.
            self.counts.store(true, Ordering::Release);
            self.log.note_commits(vouched.term, Commits::Unflushed);
        } else if !self.counts() {
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
        if self.counts() {
            return Some(self.count(term));
        }
        self.log.note_commits(term, Commits::Stable);
        // What earlier leaders had committed may have been flushed by none.
        match commit {
            Some(commit) if commit.term == term => None,
            _ => Some(self.log.stable()),
        }
    }

    /// One past what is stable, by the leader of `term`.
    fn end(&self, term: u64) -> u64 {
        let commit = self.log.committed();
        match (self.to_tell(term, commit), commit) {
            (Some(end), _) => end,
            // It may have no followers, whom it would have told.
            (None, commit) => {
                self.log.settle(term, |_| commit.map_or(0, |commit| commit.index + 1))
            }
        }
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

/// What a leader's request says of what is stable, on a follower.
pub(super) struct StableClaim {
    vouched: Vouched,
    stable: u64,
    /// The log has nothing to note or to find out: it is stable as it commits, and flushes first.
    settled: bool,
}

impl StableClaim {
    /// To be called before the request is taken. `stable`: as the request says; none if all is that it commits.
    pub(super) fn of(
        log: &Log,
        request: &AppendEntriesRequest<Types>,
        stable: Option<u64>,
    ) -> Self {
        let vouched = Vouched::by(request);
        let commit = request.leader_commit.as_ref().map(entry_id);
        let own_term = commit.is_some_and(|commit| commit.term == vouched.term);
        let commits = match stable {
            _ if !own_term => Commits::Unknown,
            Some(_) => Commits::Unflushed,
            None => Commits::Stable,
        };
        // With the first one of a term the log may have come to the commit before.
        let news = log.note_commits(vouched.term, commits);
        let settled = !news && commits == Commits::Stable && log.flush() == Flush::Sync;
        let end = || commit.map_or(0, |commit| commit.index.saturating_add(1));
        Self { vouched, stable: stable.unwrap_or_else(end), settled }
    }

    /// The log has taken the request. How far it has flushed of what that vouches for; none if all of it.
    pub(super) fn flushed(&self, log: &Log) -> Option<u64> {
        let Self { vouched, stable, settled } = *self;
        if settled {
            return None;
        }
        let flushed = log.vouched(vouched.term, vouched.end, stable);
        (flushed < vouched.end).then_some(flushed)
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
        match self.leading_vote() {
            Some(vote) => self.stable.end(vote.leader_id.term),
            None => self.log.stable(),
        }
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
