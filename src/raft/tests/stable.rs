//! How a leader finds out what a majority has flushed.

use super::*;
use crate::log::Vote;
use crate::raft::messages::Vouched;
use crate::raft::stable::{Stable, StableClaim};
use crate::raft::types::first_entry;

/// The log of a leader of three voters: the entry that names them, and records of the terms that are given.
struct Leading {
    writers: WriterPool,
    log: Log,
    stable: Stable,
}

impl Leading {
    async fn new(flush: Flush, terms: &[u64]) -> Self {
        let writers = WriterPool::start(1).expect("a thread");
        let flush_interval = Duration::from_secs(1000);
        let options = LogOptions { flush, flush_interval, ..options() };
        let disk = SimDisk::new().shared();
        let log = Log::open(disk, Path::new("/log"), options, &writers).expect("a new log");
        let voters: Vec<_> = (1..=3).map(member).collect();
        let mut entries = vec![first_entry(&voters)];
        entries.extend((1..).zip(terms).map(|(index, term)| {
            let payload = Bytes::from_static(b"X");
            Entry::new(id(*term, index), EntryKind::Record, false, Batch::SINGLE, payload)
        }));
        log.append(entries, Box::new(drop));
        let term = terms.last().copied().unwrap_or(1);
        let vote = Vote { term, voted_for: replica(1), committed: true };
        // It flushes what was appended.
        log.save_vote(vote).await.expect("a healthy disk");
        let stable = Stable::new(replica(1), log.clone());
        Self { writers, log, stable }
    }

    fn commit(&self, term: u64, index: u64) {
        self.log.set_committed(id(term, index)).expect("a healthy disk");
    }

    /// A follower holds all below `end`, and has flushed what lies below `flushed`.
    fn answered(&self, node: u64, term: u64, end: u64, flushed: Option<u64>) {
        self.stable.answered(replica(node), Vouched { term, end }, flushed);
    }

    /// What followers are told to be stable by the leader of `term`.
    fn told(&self, term: u64) -> u64 {
        let commit = self.log.committed();
        let all = || commit.map_or(0, |commit| commit.index + 1);
        self.stable.to_tell(term, commit).unwrap_or_else(all)
    }

    async fn end(self) {
        self.log.close().await.expect("a healthy disk");
        self.writers.shutdown().await;
    }
}

fn member(node: u64) -> Replica {
    Replica { id: replica(node), member: Member::new(node, format!("node{node}:1")) }
}

#[tokio::test]
async fn what_a_majority_has_flushed_and_committed_is_stable() {
    let leading = Leading::new(Flush::Async, &[1; 9]).await;
    leading.commit(1, 7);
    assert_eq!(leading.told(1), 0, "the leader alone has flushed it");
    leading.answered(2, 1, 10, Some(4));
    assert_eq!(leading.told(1), 4);
    leading.answered(3, 1, 6, Some(6));
    assert_eq!(leading.told(1), 6, "another majority");
    leading.answered(2, 1, 10, None);
    assert_eq!(leading.told(1), 8, "no more than what is committed");
    assert_eq!(leading.log.stable(), 8);
    leading.end().await;
}

#[tokio::test]
async fn entries_of_earlier_terms_are_stable_only_with_one_of_the_leaders_own_term() {
    let leading = Leading::new(Flush::Async, &[1, 1, 1, 2, 2]).await;
    leading.commit(1, 3);
    leading.answered(2, 1, 6, None);
    assert_eq!(leading.told(2), 0, "that was said to the leader of an earlier term");
    leading.answered(2, 2, 4, None);
    assert_eq!(leading.told(2), 0, "what lies below the first entry of the term can be overruled");
    leading.commit(2, 5);
    assert_eq!(leading.told(2), 0);
    leading.answered(2, 2, 5, None);
    assert_eq!(leading.told(2), 5);
    leading.end().await;
}

#[tokio::test]
async fn where_all_flush_first_what_a_leader_has_committed_in_its_term_is_stable() {
    let leading = Leading::new(Flush::Sync, &[1, 2, 2]).await;
    leading.commit(1, 1);
    assert_eq!(leading.told(2), 0, "an earlier run may not have flushed");
    leading.commit(2, 3);
    leading.answered(2, 2, 4, None);
    assert_eq!(leading.told(2), 4);
    leading.end().await;
    // One that does not flush first is found out by its answer.
    let leading = Leading::new(Flush::Sync, &[1, 2, 2]).await;
    leading.answered(2, 2, 4, Some(3));
    leading.commit(2, 3);
    assert_eq!(leading.told(2), 3);
    leading.end().await;
}

/// What the leader of term 1 sends: the entry that names the voters, and large records behind it, all committed. One in
/// each request: a write does not go over the end of a segment.
fn all_committed(count: u64) -> impl Iterator<Item = AppendEntriesRequest<Types>> {
    (0..count).map(|index| {
        let voters = BTreeSet::from([1, 2, 3].map(replica));
        let payload = Bytes::from(vec![7; 1000]);
        let payload_crc = crc32fast::hash(&payload);
        let payload = match index {
            0 => EntryPayload::Membership(Membership::new_with_defaults(vec![voters], [])),
            _ => EntryPayload::Normal(Proposal { payload, payload_crc, ..proposal(Batch::SINGLE) }),
        };
        let at = raft_log_id(id(1, index));
        AppendEntriesRequest {
            vote: RaftVote::new_committed(1, replica(2)),
            prev_log_id: index.checked_sub(1).map(|prev| raft_log_id(id(1, prev))),
            entries: vec![LogEntry::new(at, payload)],
            leader_commit: Some(at),
        }
    })
}

#[tokio::test]
async fn the_boundary_stays_below_what_a_majority_has_flushed() {
    let mut config = config();
    config.storage.flush = Flush::Async;
    config.storage.segment_size = crate::config::ByteCount::new(8 << 10);
    config.raft.election_timeout_min = Duration::from_secs(100);
    config.raft.election_timeout_max = Duration::from_secs(200);
    let follower = group(&SimDisk::new(), &config).await;
    for request in all_committed(40) {
        let answer = follower.raft.append_entries(request).await.expect("it runs");
        assert!(matches!(answer, AppendEntriesResponse::Success), "{answer:?}");
    }
    until("all to be applied", || follower.apply.applied_end() == 40).await;
    assert!(follower.log.segments().len() > 3, "{:?}", follower.log.segments());
    let trim = || follower.trim(u64::MAX, Duration::from_secs(10));
    assert_eq!(trim().await.expect("it runs"), None, "nothing is known to be stable");
    follower.log.vouched(1, 40, 20);
    let begin = trim().await.expect("it runs").expect("some of it is stable");
    assert!((2..=20).contains(&begin), "{begin}");
}

/// A follower that flushes first, the claims of its leader's requests, and what it has committed.
struct Following {
    writers: WriterPool,
    log: Log,
}

impl Following {
    async fn new(terms: &[u64]) -> Self {
        let Leading { writers, log, .. } = Leading::new(Flush::Sync, terms).await;
        Self { writers, log }
    }

    /// A request without entries comes in, and the log commits what it says. Gives how far the log has flushed.
    fn takes(&self, term: u64, commit: EntryId, stable: Option<u64>) -> Option<u64> {
        let request = AppendEntriesRequest {
            vote: RaftVote::new_committed(term, replica(2)),
            prev_log_id: Some(raft_log_id(commit)),
            entries: Vec::new(),
            leader_commit: Some(raft_log_id(commit)),
        };
        let claim = StableClaim::of(&self.log, &request, stable);
        self.log.set_committed(commit).expect("a healthy disk");
        claim.flushed(&self.log)
    }

    async fn end(self) {
        self.log.close().await.expect("a healthy disk");
        self.writers.shutdown().await;
    }
}

#[tokio::test]
async fn where_all_flush_first_a_follower_notes_what_is_stable_as_it_commits() {
    let log = Following::new(&[1, 1, 1, 1]).await;
    for index in 1..=3 {
        assert_eq!(log.takes(1, id(1, index), None), None, "all is flushed");
        assert_eq!(log.log.stable(), index + 1);
    }
    log.end().await;
}

#[tokio::test]
async fn commits_are_not_stable_any_more_once_a_leader_counts() {
    let log = Following::new(&[1; 8]).await;
    log.takes(1, id(1, 2), None);
    assert_eq!(log.log.stable(), 3);
    assert_eq!(log.takes(1, id(1, 4), Some(3)), None);
    assert_eq!(log.log.stable(), 3);
    // A heartbeat that the last request has overtaken, and what the leader commits next.
    let old = AppendEntriesRequest {
        vote: RaftVote::new_committed(1, replica(2)),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: Some(raft_log_id(id(1, 2))),
    };
    let _ = StableClaim::of(&log.log, &old, None);
    log.log.set_committed(id(1, 5)).expect("a healthy disk");
    assert_eq!(log.log.stable(), 3);
    // Its successor tells of its entries before it has appended any.
    let log2 = Following::new(&[1; 8]).await;
    log2.takes(1, id(1, 2), None);
    log2.takes(2, id(1, 6), Some(3));
    assert_eq!(log2.log.stable(), 3);
    log.end().await;
    log2.end().await;
}

#[tokio::test]
async fn an_answer_that_says_what_was_not_flushed_comes_before_what_it_commits() {
    let leading = Leading::new(Flush::Sync, &[1; 6]).await;
    assert_eq!(leading.told(1), 0);
    leading.commit(1, 2);
    assert_eq!(leading.log.stable(), 3);
    leading.answered(2, 1, 6, Some(3));
    leading.commit(1, 5);
    assert_eq!(leading.log.stable(), 3);
    leading.end().await;
}
