//! What a follower makes of a leader whose history is another than its own.

use super::*;
use crate::error::ReadError;
use crate::raft::agreement::NotTaken;
use crate::raft::conflict::Conflict;

/// What a leader of `term` sends: entries of the terms that are given, behind `prev`.
fn append(
    term: u64,
    prev: Option<EntryId>,
    terms: &[u64],
    commit: Option<EntryId>,
) -> AppendEntriesRequest<Types> {
    let first = prev.map_or(0, |prev| prev.index + 1);
    let entry = |(index, term): (u64, &u64)| {
        let voters = BTreeSet::from([1, 2, 3].map(replica));
        let payload = match index {
            0 => EntryPayload::Membership(Membership::new_with_defaults(vec![voters], [])),
            _ => EntryPayload::Normal(proposal(Batch::SINGLE)),
        };
        LogEntry::new(raft_log_id(id(*term, index)), payload)
    };
    AppendEntriesRequest {
        vote: RaftVote::new_committed(term, replica(2 + term % 2)),
        prev_log_id: prev.map(raft_log_id),
        entries: (first..).zip(terms).map(entry).collect(),
        leader_commit: commit.map(raft_log_id),
    }
}

/// A follower that stands for no election.
async fn follower(disk: &SimDisk) -> Arc<Group> {
    let mut config = config();
    config.storage.flush = Flush::Async;
    config.raft.election_timeout_min = Duration::from_secs(100);
    config.raft.election_timeout_max = Duration::from_secs(200);
    group(disk, &config).await
}

async fn taken(follower: &Group, request: AppendEntriesRequest<Types>) {
    let answer = follower.take_append(request).await.expect("it is taken");
    assert!(matches!(answer, AppendEntriesResponse::Success), "{answer:?}");
}

async fn conflict(follower: &Group, request: AppendEntriesRequest<Types>) -> Conflict {
    match follower.take_append(request).await {
        Err(NotTaken::Conflict(conflict)) => conflict,
        other => panic!("the conflict was not seen: {other:?}"),
    }
}

/// A follower of the leader of term 1 that has committed entries 0 to 3, of which a majority has flushed the first two.
async fn committed() -> Arc<Group> {
    committed_on(&SimDisk::new()).await
}

async fn committed_on(disk: &SimDisk) -> Arc<Group> {
    let follower = follower(disk).await;
    taken(&follower, append(1, None, &[1, 1, 1, 1, 1], Some(id(1, 3)))).await;
    follower.log.vouched(1, 5, 2);
    until("it to be committed", || follower.log.committed() == Some(id(1, 3))).await;
    follower
}

#[tokio::test]
async fn a_leader_that_contradicts_what_is_committed_and_not_stable_is_not_taken() {
    for request in [
        append(3, Some(id(1, 1)), &[3, 3, 3, 3], None),
        append(3, Some(id(3, 2)), &[3, 3], None),
        append(3, Some(id(3, 3)), &[], None),
    ] {
        let follower = committed().await;
        let conflict = conflict(&follower, request).await;
        assert!(!conflict.is_damage(), "{conflict}");
        assert_eq!((conflict.committed, conflict.stable), (id(1, 3), 2));
        assert_eq!(conflict.held.index, conflict.leaders.index);
        assert_eq!(follower.log.last_id(), Some(id(1, 4)), "nothing was changed");
    }
}

#[tokio::test]
async fn what_is_not_committed_gives_way_to_a_later_leader_as_ever() {
    let follower = committed().await;
    taken(&follower, append(3, Some(id(1, 3)), &[3, 3], Some(id(3, 4)))).await;
    assert_eq!(follower.log.last_id(), Some(id(3, 5)));
    // A leader that has been replaced is told so, whatever it says.
    let late = follower.take_append(append(2, Some(id(2, 3)), &[2], None)).await;
    assert!(matches!(late, Ok(AppendEntriesResponse::HigherVote(_))), "{late:?}");
}

#[tokio::test]
async fn a_boundary_that_contradicts_what_is_committed_is_not_installed() {
    let follower = committed().await;
    let vote = RaftVote::new_committed(3, replica(3));
    follower.check_boundary(&vote, id(1, 2)).await.expect("it is the same here");
    follower.check_boundary(&vote, id(2, 9)).await.expect("it replaces all");
    let contradicted = follower.check_boundary(&vote, id(2, 3)).await;
    assert!(matches!(contradicted, Err(NotTaken::Conflict(_))), "{contradicted:?}");
    let later = follower.check_boundary(&vote, id(4, 9)).await;
    assert!(matches!(later, Err(NotTaken::Nonsense(_))), "of a later term: {later:?}");
}

#[tokio::test]
async fn a_log_stops_for_good_where_a_leader_contradicts_what_a_majority_had_flushed() {
    let disk = SimDisk::new();
    let follower = committed_on(&disk).await;
    let conflict = conflict(&follower, append(3, None, &[3, 3, 3], None)).await;
    assert!(conflict.is_damage() && follower.is_damaged_by(&conflict), "{conflict}");
    Arc::clone(&follower).stop_contradicted(conflict).await;
    let reason = follower.stop_reason().expect("it has stopped");
    assert!(reason.contains("is of term 1 here and of term 3 on the leader"), "{reason}");
    assert!(!follower.restart_helps());
    disk.durable_file(&follower.log.dir().join("DAMAGE")).expect("it is noted");
}

#[tokio::test]
async fn a_later_leader_is_compared_after_what_an_earlier_one_has_sent() {
    let follower = follower(&SimDisk::new()).await;
    taken(&follower, append(1, None, &[1], None)).await;
    // Queued for openraft, which has not looked at it yet.
    let mut earlier =
        Box::pin(follower.take_append(append(1, Some(id(1, 0)), &[1, 1], Some(id(1, 2)))));
    assert!(futures_util::FutureExt::now_or_never(&mut earlier).is_none());
    let conflict = conflict(&follower, append(2, Some(id(1, 0)), &[2, 2, 2], None)).await;
    assert_eq!(conflict.committed, id(1, 2));
    earlier.await.expect("it was taken");
}

#[tokio::test]
async fn a_boundary_above_what_is_shown_leaves_those_in_doubt_who_have_read_what_no_majority_had_flushed()
 {
    let vote = |term| RaftVote::new_committed(term, replica(2 + term % 2));
    let told = |follower: &Group, next| match follower.trimmed(next, 10) {
        ReadError::Rewound { to } => Some(to),
        _ => None,
    };
    let follower = committed().await;
    follower.check_boundary(&vote(3), id(3, 9)).await.expect("nothing contradicts it");
    assert_eq!([2, 3, 4, 5].map(|next| told(&follower, next)), [None, Some(2), Some(2), None]);
    // The same leader's entries are the same.
    let follower = committed().await;
    follower.check_boundary(&vote(3), id(1, 9)).await.expect("nothing contradicts it");
    assert_eq!(told(&follower, 4), None);
    // What a majority had flushed is in every leader's log.
    let follower = committed().await;
    follower.log.vouched(1, 5, 4);
    follower.check_boundary(&vote(3), id(3, 9)).await.expect("nothing contradicts it");
    assert_eq!(told(&follower, 4), None);
}
