//! Who is elected where logs may have lost what they had acknowledged.
//!
//! A grant of a suspect log does not prove that the candidate holds what that log had acknowledged. So a candidate needs a
//! majority of trusted grants; or any majority, if the suspects among its grants are so many that no majority of
//! trusted voters is left. Only their own grants, in this very election, prove that.
//!
//! openraft counts grants without a difference, its own first. So the answers that must not count yet are kept back here
//! until they may, or until openraft gives up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::trust::Trust;
use super::types::decode_membership;
use crate::log::{Log, Vote};
use crate::member::ReplicaId;
use crate::mutant::Mutant;

/// What an election is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Election {
    /// A round of pre-votes: nobody is elected by it, and what it begins can be elected.
    pub(super) is_pre_vote: bool,
    pub(super) vote: Vote,
}

/// What a voter answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answered {
    pub(super) granted: bool,
    /// The voter's log may have lost something.
    pub(super) suspect: bool,
    /// The voter's log goes on behind the candidate's.
    pub(super) holds_more: bool,
}

/// Gives voter sets.
pub(super) type Configs = Box<dyn Fn() -> Vec<BTreeSet<ReplicaId>> + Send + Sync>;

/// The voter sets in force, as openraft has them: those of the newest membership in the log.
pub(super) fn configs_of(log: Log) -> Configs {
    Box::new(move || {
        let newest = log.membership_at(u64::MAX);
        let membership = newest.and_then(|newest| decode_membership(&newest.payload).ok());
        membership.map(|membership| membership.get_joint_config().clone()).unwrap_or_default()
    })
}

/// The elections of one log in which this node stands, one at a time.
pub(crate) struct Ballots {
    own: ReplicaId,
    /// Gives the voter sets in force: one, or two while a change is joint.
    configs: Configs,
    trust: Arc<Trust>,
    /// How long the nodes that lost nothing are waited for before those that lost something elect one of them.
    patience: Duration,
    ballot: Mutex<Option<Ballot>>,
    counted: Notify,
}

#[derive(Debug)]
struct Ballot {
    election: Election,
    /// Voter sets: one, or two while a change is joint.
    configs: Vec<BTreeSet<ReplicaId>>,
    own_is_suspect: bool,
    asked: BTreeSet<ReplicaId>,
    answered: BTreeSet<ReplicaId>,
    trusted: BTreeSet<ReplicaId>,
    suspects: BTreeSet<ReplicaId>,
    /// Some voter's log goes on behind the candidate's.
    others_hold_more: bool,
}

impl Election {
    /// True if `other` was begun before it. A round of pre-votes comes before the election that it allows.
    fn is_after(&self, other: &Self) -> bool {
        (self.vote.term, !self.is_pre_vote) > (other.vote.term, !other.is_pre_vote)
    }
}

impl Ballots {
    pub(super) fn new(
        own: ReplicaId,
        configs: Configs,
        trust: Arc<Trust>,
        patience: Duration,
    ) -> Self {
        Self { own, configs, trust, patience, ballot: Mutex::default(), counted: Notify::new() }
    }

    /// Notes that `voter` is asked. The first one of an election begins its ballot. Each voter is asked in a separate task,
    /// which may come late: an election that is over begins none.
    pub(super) fn ask(&self, election: Election, voter: ReplicaId) {
        let mut held = self.held();
        let is_over = |ballot: &Ballot| ballot.election.is_after(&election);
        if held.as_ref().is_some_and(is_over) && !Mutant::LatePreVoteEndsElection.is_active() {
            return;
        }
        let goes_on =
            |ballot: &mut Ballot| ballot.election == election && ballot.asked.insert(voter);
        // Pre-votes may be asked for again under the same vote.
        if held.as_mut().is_some_and(goes_on) {
            return;
        }
        let mut ballot = Ballot {
            election,
            configs: (self.configs)(),
            own_is_suspect: self.trust.is_suspect() && !Mutant::OwnGrantTrusted.is_active(),
            asked: BTreeSet::from([voter]),
            answered: BTreeSet::from([self.own]),
            trusted: BTreeSet::new(),
            suspects: BTreeSet::new(),
            others_hold_more: false,
        };
        let own = if ballot.own_is_suspect { &mut ballot.suspects } else { &mut ballot.trusted };
        own.insert(self.own);
        *held = Some(ballot);
    }

    /// Notes an answer, and waits until openraft may count it. It may never: openraft waits for a while only.
    pub(super) async fn count(&self, election: Election, voter: ReplicaId, answered: Answered) {
        if let Some(ballot) = self.held().as_mut().filter(|ballot| ballot.election == election) {
            ballot.answered.insert(voter);
            ballot.others_hold_more |= answered.holds_more;
            if answered.granted {
                let grants =
                    if answered.suspect { &mut ballot.suspects } else { &mut ballot.trusted };
                grants.insert(voter);
            }
        }
        self.counted.notify_waiters();
        if !answered.granted {
            return;
        }
        loop {
            let mut counted = std::pin::pin!(self.counted.notified());
            // Registered before the look, or an answer in between would be missed.
            counted.as_mut().enable();
            let now = Instant::now();
            let patient_until = self.trust.since() + self.patience;
            let is_patient = now < patient_until && !Mutant::StragglersNotWaitedFor.is_active();
            let may_count = |ballot: &Ballot| ballot.may_count(answered.suspect, is_patient);
            let of_this = |ballot: &&Ballot| ballot.election == election;
            if self.held().as_ref().filter(of_this).is_some_and(may_count) {
                return;
            }
            if is_patient {
                // Either is a reason to look again.
                let _ = tokio::time::timeout_at(patient_until, counted).await;
            } else {
                counted.await;
            }
        }
    }

    /// True if this node was elected in a term only because some that may lack what they had acknowledged voted for it, or
    /// it lacks something itself and is the only voter.
    pub(super) fn needed_suspects(&self, term: u64) -> bool {
        if let Some(ballot) =
            self.held().as_ref().filter(|ballot| ballot.election.vote.term == term)
        {
            return !ballot.configs.iter().all(|config| ballot.has_trusted_majority(config));
        }
        // Nobody was asked.
        self.trust.began_suspect()
    }

    fn held(&self) -> MutexGuard<'_, Option<Ballot>> {
        self.ballot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ballot {
    /// True if openraft may count a grant now.
    fn may_count(&self, suspect: bool, is_patient: bool) -> bool {
        if Mutant::AnyGrantsElect.is_active() {
            return true;
        }
        // As long as all that openraft counts is trusted, a majority of it elects.
        !suspect && !self.own_is_suspect
            || !self.configs.is_empty()
                && self.configs.iter().all(|config| self.elects(config, is_patient))
    }

    fn has_trusted_majority(&self, config: &BTreeSet<ReplicaId>) -> bool {
        config.intersection(&self.trusted).count() > config.len() / 2
    }

    fn elects(&self, config: &BTreeSet<ReplicaId>, is_patient: bool) -> bool {
        if self.has_trusted_majority(config) {
            return true;
        }
        let majority = config.len() / 2 + 1;
        let trusted = config.intersection(&self.trusted).count();
        let suspects =
            config.difference(&self.trusted).filter(|id| self.suspects.contains(id)).count();
        let too_many = config.len() - majority + 1;
        let proven = suspects >= too_many && !Mutant::NoElectionBySuspects.is_active();
        trusted + suspects >= majority && proven && !(is_patient && self.waits_for_more(config))
    }

    /// True if a voter may yet show that it holds more. Every candidate asks for pre-votes first.
    fn waits_for_more(&self, config: &BTreeSet<ReplicaId>) -> bool {
        self.election.is_pre_vote && (self.others_hold_more || !config.is_subset(&self.answered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(node: u64) -> ReplicaId {
        ReplicaId { node, incarnation: 1 }
    }

    fn ids(nodes: &[u64]) -> BTreeSet<ReplicaId> {
        nodes.iter().map(|node| id(*node)).collect()
    }

    fn ballot(configs: &[&[u64]], trusted: &[u64], suspects: &[u64]) -> Ballot {
        let vote = Vote { term: 2, voted_for: id(1), committed: false };
        Ballot {
            election: Election { is_pre_vote: false, vote },
            configs: configs.iter().map(|config| ids(config)).collect(),
            own_is_suspect: suspects.contains(&1),
            asked: BTreeSet::new(),
            answered: ids(trusted).union(&ids(suspects)).copied().collect(),
            trusted: ids(trusted),
            suspects: ids(suspects),
            others_hold_more: false,
        }
    }

    #[test]
    fn a_majority_of_trusted_grants_elects_and_one_that_needs_a_suspect_does_not() {
        let three: &[&[u64]] = &[&[1, 2, 3]];
        for (trusted, suspects, elects) in [
            (&[1, 2][..], &[][..], true),
            (&[1], &[2], false),
            (&[2], &[1], false),
            (&[2, 3], &[1], true),
            (&[1, 2], &[3], true),
        ] {
            let ballot = ballot(three, trusted, suspects);
            assert_eq!(ballot.may_count(true, false), elects, "{trusted:?} {suspects:?}");
        }
    }

    #[test]
    fn so_many_suspect_grants_that_no_trusted_majority_is_left_elect() {
        let five: &[&[u64]] = &[&[1, 2, 3, 4, 5]];
        let four: &[&[u64]] = &[&[1, 2, 3, 4]];
        for (config, trusted, suspects, elects) in [
            (five, &[1][..], &[2, 3, 4][..], true),
            (five, &[1, 5], &[2, 3], false),
            (five, &[], &[1, 2, 3], true),
            (five, &[], &[1, 2], false),
            (four, &[1], &[2, 3], true),
            (four, &[1, 2], &[3], false),
            (&[&[1, 2]], &[1], &[2], true),
            (&[&[1]], &[], &[1], true),
        ] {
            let ballot = ballot(config, trusted, suspects);
            assert_eq!(ballot.may_count(true, false), elects, "{trusted:?} {suspects:?}");
        }
    }

    /// One of three, with nothing lost.
    fn ballots() -> Ballots {
        let configs: Configs = Box::new(|| vec![ids(&[1, 2, 3])]);
        Ballots::new(id(1), configs, Arc::new(Trust::new(false)), Duration::from_secs(1))
    }

    fn election(term: u64, is_pre_vote: bool) -> Election {
        Election { is_pre_vote, vote: Vote { term, voted_for: id(1), committed: false } }
    }

    #[tokio::test(start_paused = true)]
    async fn a_voter_that_is_asked_late_for_a_pre_vote_does_not_end_the_election_that_came_of_it() {
        let granted = Answered { granted: true, suspect: false, holds_more: false };
        let ballots = ballots();
        let counted = async |election, voter| {
            let counting = ballots.count(election, id(voter), granted);
            tokio::time::timeout(Duration::from_secs(60), counting).await.is_ok()
        };
        let (pre_vote, real) = (election(2, true), election(2, false));
        ballots.ask(pre_vote, id(2));
        assert!(counted(pre_vote, 2).await, "with its own a majority");
        ballots.ask(real, id(2));
        ballots.ask(pre_vote, id(3));
        assert!(counted(real, 2).await, "it is elected");
        // Later ones begin as before.
        let next = election(3, true);
        ballots.ask(next, id(3));
        assert!(counted(next, 3).await);
    }

    #[test]
    fn both_voter_sets_of_a_joint_membership_must_elect() {
        let joint: &[&[u64]] = &[&[1, 2, 3], &[1, 4, 5]];
        assert!(!ballot(joint, &[1, 2], &[4]).may_count(true, false));
        assert!(ballot(joint, &[1, 2, 4], &[]).may_count(true, false));
        assert!(ballot(joint, &[1, 2], &[4, 5]).may_count(true, false));
    }

    #[test]
    fn a_trusted_grant_to_a_trusted_candidate_counts_at_once_and_to_a_suspect_one_it_waits() {
        assert!(ballot(&[&[1, 2, 3]], &[1, 2], &[]).may_count(false, true));
        assert!(!ballot(&[&[1, 2, 3, 4, 5]], &[2], &[1]).may_count(false, true));
    }

    #[test]
    fn pre_votes_of_suspects_wait_until_all_have_answered_and_none_holds_more() {
        let config: &[&[u64]] = &[&[1, 2, 3]];
        let mut ballot = ballot(config, &[], &[1, 2]);
        ballot.election.is_pre_vote = true;
        assert!(!ballot.may_count(true, true), "node 3 has not answered");
        assert!(ballot.may_count(true, false), "nobody waits any more");
        ballot.answered.insert(id(3));
        assert!(ballot.may_count(true, true));
        ballot.others_hold_more = true;
        assert!(!ballot.may_count(true, true), "node 3 holds more, so it should lead");
    }
}
