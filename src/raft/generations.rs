//! How new the data of each member is, by what this node has heard.
//!
//! A node raises the generation of its data at each start, and now and then when it has acknowledged something or voted,
//! always on disk first. It tells it in its hello and once a second. An older copy of its data that is put back begins with
//! a generation that others have heard of before, from another process: what the node did since the copy was made is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// The newest data that this node has heard of each member.
#[derive(Debug, Default)]
pub(crate) struct Generations(Mutex<BTreeMap<ReplicaId, Newest>>);

impl Generations {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Newest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a process that says `intro` has all that `replica` had.
    ///
    /// # Errors
    /// It is another one than the newest, and began with data that is no newer; or it is the same and has gone back, as with a
    /// snapshot of a machine that is put back with its memory. The reason to refuse it.
    pub(super) fn check(&self, replica: ReplicaId, intro: &Intro) -> Result<(), String> {
        let Some(newest) = self.lock().get(&replica).copied() else { return Ok(()) };
        let (has, is_older) = if newest.session == intro.session {
            // It may have told the next generation after it said hello.
            (intro.generation, intro.generation.saturating_add(1) < newest.generation)
        } else {
            (intro.began, intro.began <= newest.generation)
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
            *newest = told;
        }
    }

    pub(super) fn forget(&self, gone: impl Fn(ReplicaId) -> bool) {
        self.lock().retain(|replica, _| !gone(*replica));
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
    fn data_that_is_no_newer_than_what_another_process_had_is_refused() {
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
        check(2, 5).expect("the next start");
        for began in 1..=4 {
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
}
