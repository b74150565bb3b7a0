//! What a request for locks costs beside the queues that it names, and what a checkpoint leaves out of the locks.

use proptest::prelude::*;
use quorumlog::codec;

use super::*;
use crate::limits::{LOCK_QUEUES_MAX, LOCKS_OF_GROUP_MAX, QUEUES_MAX};
use crate::state::locks::{EXAMINED, Locks};

fn locking(group: &str, client: &str, queues: impl Iterator<Item = usize>) -> LockRequest {
    let name = |n: usize| (format!("T{}", n / QUEUES_MAX as usize), n as u32 % QUEUES_MAX);
    LockRequest {
        group: group.to_owned(),
        client: client.to_owned(),
        queues: queues.map(name).collect(),
    }
}

/// A group that holds as many queues as it may.
fn fill(locks: &mut Locks, group: &str, now_ms: i64) {
    for from in (0..LOCKS_OF_GROUP_MAX).step_by(LOCK_QUEUES_MAX) {
        let request = locking(group, "c", from..from + LOCK_QUEUES_MAX);
        let locked = locks.lock(request, now_ms).map(|locked| locked.len());
        assert_eq!(locked, Ok(LOCK_QUEUES_MAX));
    }
}

/// Locks that `work` looks at.
fn examined(work: impl FnOnce()) -> u64 {
    let before = EXAMINED.get();
    work();
    EXAMINED.get() - before
}

/// Before, each request went through all queues of its group and of two others: 0.9 ms on every node.
#[test]
fn a_request_for_one_queue_looks_at_few_locks_however_many_are_held() {
    let mut locks = Locks::default();
    for n in 0..4 {
        fill(&mut locks, &format!("group-{n}"), 0);
    }
    let requests = 1000;
    for group in ["group-0", "another"] {
        let looked_at = examined(|| {
            for now_ms in 0..requests {
                let request = locking(group, "c", std::iter::once(0));
                assert_eq!(locks.lock(request, now_ms).map(|locked| locked.len()), Ok(1));
                assert!(locks.are_held(group, now_ms));
                locks.unlock(&locking("another", "c", std::iter::once(0)));
            }
        });
        let most = 8 * u64::try_from(requests).expect("a count");
        assert!(looked_at <= most, "{looked_at} locks for {requests} requests");
    }
}

/// What is taken out was put in once, and is paid for then.
#[test]
fn locks_that_nobody_renews_are_looked_at_once() {
    let mut locks = Locks::default();
    fill(&mut locks, "old", 0);
    let renewed = locking("old", "c", 0..7);
    let looked_at = examined(|| {
        assert_eq!(locks.lock(renewed.clone(), 1).map(|locked| locked.len()), Ok(7));
        for now_ms in LOCK_LEASE_MS..LOCK_LEASE_MS + 100 {
            let _ = locks.lock(locking("another", "c", std::iter::once(0)), now_ms);
        }
    });
    let most = LOCKS_OF_GROUP_MAX as u64 + 1000;
    assert!(looked_at <= most, "{looked_at} looked at, and {LOCKS_OF_GROUP_MAX} were held");
    assert_eq!(locks.groups(), 1, "the other group is gone");
}

/// On a short disk, renewals come before new locks; but nobody renews the same lock without end.
#[test]
fn a_request_that_only_renews_old_locks_is_a_renewal() {
    let mut locks = Locks::default();
    assert!(locks.lock(locking("g", "c", 0..4), 0).is_ok());
    assert!(locks.lock(locking("g", "d", 4..5), 0).is_ok());
    let is = |client, queues, now_ms| locks.are_renewed_by(&locking("g", client, queues), now_ms);
    let later = LOCK_LEASE_MS / 3;
    assert!(is("c", 0..4, later) && is("d", 4..5, later));
    assert!(!is("c", 0..5, later), "another client's");
    assert!(!is("c", 0..8, later), "new ones");
    assert!(!is("e", 0..1, later), "a client that holds nothing");
    assert!(!is("c", 0..4, LOCK_LEASE_MS), "too late");
    assert!(!is("c", 0..4, 1000), "it has just locked them");
}

proptest! {
    /// A node that goes on from a checkpoint and one that has applied all records hold the same, with the same indexes.
    #[test]
    fn a_checkpoint_brings_back_the_indexes(
        steps in proptest::collection::vec((0..3_u8, 0..5_u8, 0..6_usize, 0..20_000_i64, 0..8_u8), 1..60)
    ) {
        let (mut locks, mut now) = (Locks::default(), 0);
        for (group, client, queue, pause, step) in steps {
            now += pause;
            let queue = queue * (QUEUES_MAX as usize / 2);
            let request = locking(&format!("g{group}"), &format!("c{client}"), queue..queue + 2);
            match step {
                0 => locks.remove_topic(&request.queues[0].0),
                1 | 2 => locks.unlock(&request),
                _ => drop(locks.lock(request, now)),
            }
            let restored: Locks = codec::decode(&codec::encode(&locks)).expect("it was encoded");
            prop_assert_eq!(&restored, &locks);
        }
    }
}
