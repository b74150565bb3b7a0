//! openraft's own suite, on the real store; and what openraft relies on and does not enforce, on one
//! group with a disk in memory whose flushes can be held.

mod admission;
mod agreement;
mod snapshot;
mod stable;
mod state_machine;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::entry::RaftEntry as _;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, Membership, StorageError};

use super::group::raft_config;
use super::log_store::LogStore;
use super::metrics::GroupMetrics;
use super::state_machine::LogStateMachine;
use super::types::{LogEntry, Proposal, RaftVote, Types, raft_log_id};
use super::*;
use crate::config::Config;
use crate::format::entry::{Batch, Entry, EntryId, EntryKind};
use crate::log::{DataDir, Log, LogOptions, Saver, WriterPool};
use crate::member::{Member, NodeId, Replica, ReplicaId};
use crate::record::{Flush, LogId, LogName};
use crate::seam::SystemClock;
use crate::seam::disk::RealDisk;
use crate::seam::disk::sim::{CrashPolicy, SimDisk};
use crate::seam::net::memory::MemoryTransport;
use crate::wire::{Hello, Protocol, WireLimits};

struct RealStore;

impl StoreBuilder<Types, LogStore, LogStateMachine, (tempfile::TempDir, WriterPool)> for RealStore {
    async fn build(
        &self,
    ) -> Result<((tempfile::TempDir, WriterPool), LogStore, LogStateMachine), StorageError<Types>>
    {
        let dir = tempfile::tempdir().expect("a directory");
        let writers = WriterPool::start(1).expect("a thread");
        let log = Log::open(RealDisk::shared(), &dir.path().join("log"), options(), &writers)
            .expect("a new log");
        let metrics = Arc::new(GroupMetrics::new(&LogName::system()));
        let store = LogStore::new(log.clone(), 1 << 20, false, metrics.clone());
        let saver = Saver::new(log, &writers);
        let machine = LogStateMachine::open(saver, None, Arc::default(), Arc::default(), metrics)
            .await
            .expect("a new state machine");
        Ok(((dir, writers), store, machine))
    }
}

#[test]
fn openrafts_suite_passes_on_the_real_store() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .expect("a runtime")
        .block_on(Suite::test_all(RealStore))
        .expect("openraft's suite passes");
}

/// For openraft's suite.
impl From<u64> for ReplicaId {
    fn from(node: u64) -> Self {
        replica(node)
    }
}

fn replica(node: NodeId) -> ReplicaId {
    ReplicaId { node, incarnation: 1 }
}

fn alone() -> Replica {
    Replica { id: replica(1), member: Member::new(1, "alone:1") }
}

/// Accepts everyone.
struct Anyone;

impl Identity for Anyone {
    fn hello(&self, target: NodeId, _expects: u128) -> Hello {
        let (cluster, node_id, incarnation, intro) = (1, 1, 1, None);
        Hello { protocol: Protocol::Peer, cluster, node_id, incarnation, target, intro }
    }

    fn check(&self, _hello: &Hello) -> Result<(), String> {
        Ok(())
    }
}

fn config() -> Config {
    let mut config = Config::new(1, "/data");
    config.raft.heartbeat_interval = Duration::from_millis(20);
    config.raft.election_timeout_min = Duration::from_millis(60);
    config.raft.election_timeout_max = Duration::from_millis(120);
    config
}

/// The group of node 1, which reaches nobody.
async fn group(disk: &SimDisk, config: &Config) -> Arc<Group> {
    let transport = Arc::new(MemoryTransport::default());
    let peers = Peers::new(transport, Arc::new(Anyone), WireLimits::OF_TESTS);
    let writers = WriterPool::start(1).expect("a thread");
    // On a separate disk, since a group may be opened again while this one has the directory.
    let data = DataDir::open(SimDisk::new().shared(), &SystemClock, Path::new("/data"), 1)
        .expect("a new one");
    let setup = GroupSetup {
        name: LogName::system(),
        id: LogId(1),
        config,
        disk: disk.shared(),
        clock: disk.clock(),
        dir: Path::new("/log"),
        data: Arc::new(data),
        writers: &writers,
        peers: Arc::new(peers),
        space: Arc::new(DiskSpace::new(0)),
        replica: replica(1),
        founding: None,
        machine: None,
        at_stable: false,
        losses: Arc::default(),
    };
    let group = Group::open(setup).await.expect("the group opens");
    // Dropping the pool would stop its thread.
    std::mem::forget(writers);
    group
}

fn id(term: u64, index: u64) -> EntryId {
    EntryId { term, index }
}

fn proposal(batch: Batch) -> Proposal {
    let payload = Bytes::from_static(b"X");
    Proposal { payload_crc: crc32fast::hash(&payload), payload, sync: false, batch, progress: None }
}

#[tokio::test]
async fn replication_reads_keep_to_their_byte_cap() {
    use openraft::RaftLogReader as _;
    let writers = WriterPool::start(1).expect("a thread");
    let disk = SimDisk::new().shared();
    let log = Log::open(disk, Path::new("/log"), options(), &writers).expect("a new log");
    let payload = Bytes::from(vec![7; 1000]);
    let record =
        |index| Entry::new(id(1, index), EntryKind::Record, false, Batch::SINGLE, payload.clone());
    log.append((0..10).map(record).collect(), Box::new(drop));
    let metrics = Arc::new(GroupMetrics::new(&LogName::system()));
    for (cap, expected) in [(3500, 3), (10, 1), (1 << 20, 10)] {
        let mut store = LogStore::new(log.clone(), cap, false, metrics.clone());
        let entries = store.limited_get_log_entries(0, 10).await.expect("a healthy disk");
        assert_eq!(entries.len(), expected, "a cap of {cap} bytes");
    }
}

#[tokio::test]
async fn a_log_that_was_found_damaged_while_it_ran_is_not_opened_again() {
    use openraft::RaftLogReader as _;
    let writers = WriterPool::start(1).expect("a thread");
    let disk = SimDisk::new();
    let options = || LogOptions { segment_size: 8 << 10, tail_cache_max: 0, ..options() };
    let open = || Log::open(disk.shared(), Path::new("/log"), options(), &writers);
    let log = open().expect("a new log");
    let payload = Bytes::from(vec![7; 1000]);
    let record =
        |index| Entry::new(id(1, index), EntryKind::Record, false, Batch::SINGLE, payload.clone());
    for index in 0..30 {
        let (stored, done) = tokio::sync::oneshot::channel();
        log.append(vec![record(index)], Box::new(|result| drop(stored.send(result))));
        done.await.expect("told").expect("a healthy disk");
    }
    let first = crate::segment::segment_path(Path::new("/log"), 1);
    disk.tamper(&first, |bytes| bytes[5000] ^= 1);
    let metrics = Arc::new(GroupMetrics::new(&LogName::system()));
    let mut store = LogStore::new(log.clone(), 1 << 20, false, metrics);
    store.limited_get_log_entries(0, 10).await.expect_err("it is damaged");
    drop(store);
    log.close().await.expect("what was written is whole");
    drop(log);
    let error = open().err().expect("it would only come upon the damage again");
    let crate::StorageError::Corrupt { path, detail, .. } = &error else { panic!("{error}") };
    assert_eq!(path, &first);
    assert!(detail.contains("DAMAGE"), "{detail}");
}

/// Lets time pass in which something must not happen.
async fn meanwhile() {
    // paced: that nothing happens can only be seen over time.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let asking = async {
        while !probe() {
            // paced: the next look at a condition that announces itself nowhere.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asking).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_does_not_answer_for_an_append_that_was_not_flushed() {
    for flush in [Flush::Sync, Flush::Async] {
        vote_while_an_append_waits(flush).await;
    }
}

async fn vote_while_an_append_waits(flush: Flush) {
    let disk = SimDisk::new();
    let mut config = config();
    config.storage.flush = flush;
    config.storage.flush_interval = Duration::from_secs(1000);
    config.raft.election_timeout_min = Duration::from_secs(100);
    config.raft.election_timeout_max = Duration::from_secs(200);
    let follower = group(&disk, &config).await;
    let append = |prev: Option<EntryId>, entry: LogEntry| {
        let raft = follower.raft.clone();
        let request = AppendEntriesRequest {
            vote: RaftVote::new_committed(4, replica(2)),
            prev_log_id: prev.map(raft_log_id),
            entries: vec![entry],
            leader_commit: None,
        };
        tokio::spawn(async move { raft.append_entries(request).await.expect("it runs") })
    };
    let voters = Membership::new_with_defaults(vec![BTreeSet::from([1, 2, 3].map(replica))], []);
    let first = LogEntry::new(raft_log_id(id(4, 0)), EntryPayload::Membership(voters));
    let answer = append(None, first).await.expect("no panic");
    assert!(matches!(answer, AppendEntriesResponse::Success), "{answer:?}");
    disk.hold_flushes(true);
    let second = EntryPayload::Normal(proposal(Batch::SINGLE));
    let appended = append(Some(id(4, 0)), LogEntry::new(raft_log_id(id(4, 1)), second));
    until("the append to arrive", || follower.log.last_id() == Some(id(4, 1))).await;
    // A candidate that the old leader's lease does not hold back.
    let mut request = VoteRequest::new(RaftVote::new(5, replica(3)), Some(raft_log_id(id(4, 9))));
    request.leadership_transfer = true;
    let raft = follower.raft.clone();
    let voted = tokio::spawn(async move { raft.vote(request).await.expect("it runs") });
    until("the vote to arrive", || follower.log.vote().is_some_and(|vote| vote.term == 5)).await;
    meanwhile().await;
    if flush == Flush::Sync {
        assert!(!appended.is_finished(), "answered before it was flushed");
    }
    assert!(!voted.is_finished(), "voted before what was appended is flushed");
    disk.hold_flushes(false);
    assert!(voted.await.expect("no panic").vote_granted);
    let _ = appended.await.expect("no panic");
    let after = group(&disk.crash(&CrashPolicy::LoseAll), &config).await;
    assert_eq!(after.log.last_id(), Some(id(4, 1)), "it was answered");
    assert_eq!(after.log.vote().map(|vote| (vote.term, vote.voted_for)), Some((5, replica(3))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_leader_leads_again_only_after_an_election() {
    let config = config();
    let raft = raft_config(&config, &LogName::system()).expect("valid");
    assert_eq!(raft.enable_leader_restore, Some(false));
    let disk = SimDisk::new();
    let leader = group(&disk, &config).await;
    leader.initialize(&[alone()]).await.expect("it is new");
    until("it to lead", || leader.is_leader()).await;
    let old = leader.status().term;
    for keep in [CrashPolicy::KeepAll, CrashPolicy::LoseAll] {
        let again = group(&disk.after_crash(&keep), &config).await;
        until("it to lead", || again.status().role == crate::Role::Leader).await;
        assert!(again.status().term > old, "it took its old term up again: {keep:?}");
    }
    leader.stop().await.expect("a healthy disk");
    // With others it does not lead at all until they have voted.
    let disk = SimDisk::new();
    let follower = group(&disk, &config).await;
    let members = [1, 2, 3]
        .map(|id| Replica { id: replica(id), member: Member::new(id, format!("nobody{id}:1")) });
    follower.initialize(&members).await.expect("it is new");
    follower.stop().await.expect("a healthy disk");
    let leads = crate::log::Vote { term: 7, voted_for: replica(1), committed: true };
    let writers = WriterPool::start(1).expect("a thread");
    let log = Log::open(Arc::new(disk.clone()), Path::new("/log"), options(), &writers);
    log.expect("it opens").save_vote(leads).await.expect("a healthy disk");
    writers.shutdown().await;
    let again = group(&disk, &config).await;
    meanwhile().await;
    assert_ne!(again.status().role, crate::Role::Leader);
}

pub(super) fn options() -> LogOptions {
    LogOptions {
        log_id: LogId(1),
        flush: Flush::Sync,
        flush_interval: Duration::from_millis(50),
        segment_size: 64 << 10,
        tail_cache_max: 1 << 20,
        at_stable: false,
        disk_reserve: 0,
        clock: Arc::new(SystemClock),
        observer: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_counts_as_in_flight_until_it_is_committed_even_if_nobody_waits() {
    let disk = SimDisk::new();
    let leader = group(&disk, &config()).await;
    leader.initialize(&[alone()]).await.expect("it is new");
    let record = || NewRecord {
        payload: Bytes::from_static(b"one"),
        payload_crc: crc32fast::hash(b"one"),
        sync: false,
    };
    until("it to take appends", || {
        let one = futures_util::FutureExt::now_or_never(leader.propose_batch(vec![record()]));
        drop(one);
        leader.log.watermarks().committed > 2
    })
    .await;
    until("them to be committed", || {
        let marks = leader.log.watermarks();
        marks.committed == marks.end && leader.inflight.bytes() == 0
    })
    .await;
    disk.hold_flushes(true);
    let end = leader.log.watermarks().end;
    let given_up = tokio::time::timeout(
        Duration::from_millis(50),
        leader.propose_batch(vec![record(), record()]),
    );
    assert!(given_up.await.is_err(), "it cannot be committed");
    assert_eq!(leader.log.watermarks().end, end + 2, "it was taken in");
    assert!(leader.inflight.bytes() > 0, "it waits for its commit");
    disk.hold_flushes(false);
    until("it to be committed", || leader.log.watermarks().committed == end + 2).await;
    until("its room to be given back", || leader.inflight.bytes() == 0).await;
}
