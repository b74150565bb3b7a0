//! How new the data of each member is, by what this node has heard.
//!
//! A node raises the generation of its data once enough members have let its process in, and then now and then when it has
//! acknowledged something or voted, always on disk first. It tells it in its hello and once a second. An older copy of its
//! data that is put back begins with a lower generation than others have heard of, from another process: what the node did
//! since the copy was made is gone. A start alone raises nothing: else enough starts would make an older copy the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::format::superblock::Newest;
use crate::member::ReplicaId;
use crate::mutant::Mutant;
use crate::wire::Intro;

/// The start of a refusal because a node has older data than it had. Part of the protocol between nodes.
pub(super) const OUTDATED: &str = "this node's data is older than it was";

/// The start of what a node says to all that dial it once it knows that its data is older. Part of the protocol between nodes.
pub(super) const NO_PART: &str = "the node there takes no part in the cluster";

/// Why a node of this data does not count as the member `replica`.
fn outdated(replica: ReplicaId, has: u64, newest: u64) -> String {
    format!(
        "{OUTDATED}: node {} was at generation {newest}, and comes with data of generation {has}, as if an older copy had \
         been put back; what it acknowledged since is gone. Remove it from the cluster, then add it again with an empty data \
         directory",
        replica.node
    )
}

/// The newest data that this node has heard of each member, and who takes this node's data for the newest.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    newest: Mutex<BTreeMap<ReplicaId, Newest>>,
    /// The members that have let this process in.
    admitted_by: Mutex<BTreeSet<ReplicaId>>,
    /// Another one has.
    pub(crate) admitted: Notify,
}

impl Generations {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Newest>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_admitted_by(&self) -> MutexGuard<'_, BTreeSet<ReplicaId>> {
        self.admitted_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member has let this process in: it has heard of no newer data of this node.
    pub(super) fn note_admitted_by(&self, member: ReplicaId) {
        if self.lock_admitted_by().insert(member) {
            self.admitted.notify_one();
        }
    }

    /// True if this process, whose node is `own`, may raise its generation: another member has let it in, and those that have
    /// are a majority of the voters with it. So of two majorities one has heard of it.
    pub(crate) fn is_admitted(&self, own: ReplicaId, voters: &BTreeSet<ReplicaId>) -> bool {
        let by = self.lock_admitted_by();
        let for_it = voters.iter().filter(|voter| **voter == own || by.contains(voter)).count();
        let enough = for_it > voters.len() / 2 || Mutant::OneMemberAdmits.is_active();
        !by.is_empty() && enough
    }

    /// Whether a process that says `intro` has all that `replica` had.
    ///
    /// # Errors
    /// It is another one than the newest, and began with older data; or it is the same and has gone back, as with a
    /// snapshot of a machine that is put back with its memory. The reason to refuse it.
    pub(super) fn check(&self, replica: ReplicaId, intro: &Intro) -> Result<(), String> {
        let Some(newest) = self.lock().get(&replica).copied() else { return Ok(()) };
        let (has, is_older) = if newest.session == intro.session {
            // It may have told the next generation after it said hello.
            (intro.generation, intro.generation.saturating_add(1) < newest.generation)
        } else {
            (intro.began, intro.began < newest.generation)
        };
        if is_older && !Mutant::OlderDataAdmitted.is_active() {
            return Err(outdated(replica, has, newest.generation));
        }
        Ok(())
    }

    /// A process of `replica`, or another member, tells of this generation.
    pub(super) fn note(&self, replica: ReplicaId, told: Newest) {
        let mut all = self.lock();
        let newest = all.entry(replica).or_insert(told);
        if told.generation > newest.generation {
            tracing::debug!(member = %replica, generation = told.generation, "heard of newer data");
            *newest = told;
        }
    }

    pub(super) fn forget(&self, gone: impl Fn(ReplicaId) -> bool) {
        self.lock().retain(|replica, _| !gone(*replica));
        self.lock_admitted_by().retain(|member| !gone(*member));
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<ReplicaId, Newest> {
        self.lock().clone()
    }

    /// Begins with what an earlier run has noted.
    pub(crate) fn restore(&self, noted: BTreeMap<ReplicaId, Newest>) {
        *self.lock() = noted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLICA: ReplicaId = ReplicaId { node: 2, incarnation: 5 };

    fn intro(session: u128, began: u64) -> Intro {
        let (peer_addr, client_addr) = Default::default();
        let generation = began;
        Intro { session, peer_addr, client_addr, expects: 0, took_part: false, began, generation }
    }

    #[test]
    fn data_that_is_older_than_what_another_process_had_is_refused() {
        let generations = Generations::default();
        let check = |session, began| generations.check(REPLICA, &intro(session, began));
        check(1, 1).expect("nothing is known");
        generations.note(REPLICA, Newest { session: 1, generation: 4 });
        let again = |generation| Intro { generation, ..intro(1, 1) };
        for generation in [3, 4, 5] {
            generations
                .check(REPLICA, &again(generation))
                .expect("the same process, which goes on");
        }
        generations.check(REPLICA, &again(2)).expect_err("the same process as it was");
        check(2, 4).expect("the next start");
        check(2, 5).expect("the next start, after a raise that nobody was told of");
        for began in 1..=3 {
            let told = check(2, began).expect_err("an older copy");
            assert!(told.starts_with(OUTDATED), "{told}");
        }
        generations.note(REPLICA, Newest { session: 9, generation: 3 });
        generations.check(REPLICA, &again(4)).expect("the third is old news");
        generations.note(REPLICA, Newest { session: 2, generation: 5 });
        check(1, 1).expect_err("another process has gone on with the data");
        generations.forget(|replica| replica == REPLICA);
        check(1, 1).expect("it was removed");
    }

    #[test]
    fn a_process_may_raise_its_generation_once_a_majority_counts_it() {
        let voters = |count: u64| (1..=count).map(|node| ReplicaId { node, incarnation: 5 });
        let admitted = |by: &[u64], count| {
            let generations = Generations::default();
            voters(9).filter(|id| by.contains(&id.node)).for_each(|id| {
                generations.note_admitted_by(id);
            });
            generations.is_admitted(REPLICA, &voters(count).collect())
        };
        assert!(!admitted(&[], 3) && !admitted(&[3], 0), "nobody is known");
        assert!(admitted(&[3], 3) && admitted(&[1], 2));
        assert!(!admitted(&[3], 5), "two of five");
        assert!(admitted(&[3, 4], 5));
        assert!(!admitted(&[3], 4) && admitted(&[3, 4], 4));
        assert!(!admitted(&[], 1) && !admitted(&[9], 3), "a learner is no voter");
        let of_learner = Generations::default();
        of_learner.note_admitted_by(ReplicaId { node: 1, incarnation: 5 });
        assert!(of_learner.is_admitted(REPLICA, &voters(1).collect()));
        let generations = Generations::default();
        voters(3).for_each(|id| generations.note_admitted_by(id));
        generations.forget(|replica| replica.node != 2);
        assert!(!generations.is_admitted(REPLICA, &voters(5).collect()));
    }
}
