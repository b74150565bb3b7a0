//! Nodes on disks in memory: crashes at any operation, disks that hang, and nodes that come back.

#[cfg(feature = "server")]
mod client_appends;
mod commit_pause;
mod copies;
mod damaged;
mod first_election;
mod heard;
mod idle;
mod lanes;
mod large_checkpoint;
mod lost_pages;
mod members;
mod moved;
mod progress;
mod rewind;
mod rolled_back;
mod shaped;
mod slow_link;
mod stopped_logs;
mod transfer;
mod upgrade;
#[cfg(feature = "server")]
mod waiting_subscriptions;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::forward::AdminRequest;
use super::*;
use crate::config::ByteCount;
use crate::log::{DataDir, Log, LogOptions, WriterPool};
use crate::member::{NodeId, Replica, Role};
use crate::record::Flush;
use crate::seam::disk::sim::{CrashPolicy, Fault, SimDisk};
use crate::seam::net::memory::MemoryTransport;
use crate::seam::{SystemClock, Transport};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

fn name(text: &str) -> LogName {
    LogName::new(text).expect("a valid name")
}

/// A node and the threads that it runs on, so that it can be stopped where it stands.
struct Running {
    node: Node,
    runtime: Runtime,
}

impl Running {
    fn start(transport: &(impl Transport + Clone), disk: &SimDisk, id: NodeId) -> Self {
        Self::try_start(transport, disk, id, |_| {}).expect("the node opens")
    }

    fn try_start(
        transport: &(impl Transport + Clone),
        disk: &SimDisk,
        id: NodeId,
        change: impl FnOnce(&mut Config),
    ) -> Result<Self, OpenError> {
        Self::try_build(transport, disk, id, change, |builder| builder)
    }

    fn try_build(
        transport: &(impl Transport + Clone),
        disk: &SimDisk,
        id: NodeId,
        change: impl FnOnce(&mut Config),
        build: impl FnOnce(NodeBuilder) -> NodeBuilder,
    ) -> Result<Self, OpenError> {
        let mut config = Config::new(id, "/data").with_listen(format!("node{id}:1"));
        config.raft.heartbeat_interval = Duration::from_millis(20);
        config.raft.election_timeout_min = Duration::from_millis(60);
        config.raft.election_timeout_max = Duration::from_millis(120);
        config.storage.disk_reserve = ByteCount::new(0);
        config.storage.segment_size = ByteCount::new(64 << 10);
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let builder = build(Node::builder(config).transport(Arc::new(transport.clone())));
        let opened = runtime.block_on(builder.disk(disk.shared()).clock(disk.clock()).open());
        match opened {
            Ok(node) => Ok(Self { node, runtime }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// The end of the process.
    fn kill(self) {
        self.runtime.shutdown_background();
    }

    /// Runs `future` on the node's threads.
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, future).await.expect("it ends in time")
        })
    }

    /// Waits until there is an answer.
    fn until<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        let asking = async {
            loop {
                if let Some(answer) = probe() {
                    return answer;
                }
                // paced: the next look at a condition that announces itself nowhere.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, asking).await })
            .unwrap_or_else(|_| panic!("waited for {what}: {:#?}", self.node.statuses()))
    }

    fn replica(&self) -> Replica {
        Replica { id: self.node.inner.identity.replica(), member: self.node.member() }
    }

    fn bootstrap(&self, members: Vec<Member>) {
        self.run(self.node.bootstrap(members)).expect("a new cluster");
        let node = &self.node;
        self.until("a leader", || node.status().leader);
    }
}

/// Where the logs of a node lie.
fn log_dirs(disk: &SimDisk) -> usize {
    let parent = Some(Path::new("/data/logs"));
    disk.contents().keys().filter(|path| path.parent() == parent).count()
}

/// Stops everything at the `at`th change of the disk from now on, if `work` is not done before. True
/// if it was.
fn interrupted(
    running: &Running,
    disk: &SimDisk,
    at: u64,
    work: impl Future<Output = bool>,
) -> bool {
    disk.fail_nth_change(at, Fault::Halt);
    let halted = async {
        while !disk.is_dead() {
            // paced: the disk tells nobody.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    running.run(async {
        tokio::select! {
            biased;
            () = halted => false,
            done = work => done && !disk.is_dead(),
        }
    })
}

/// A node that founded a cluster of its own.
fn alone(disk: &SimDisk) -> Running {
    let running = Running::start(&MemoryTransport::default(), disk, 1);
    running.bootstrap(vec![running.node.member()]);
    running
}

/// Opens a node after a crash, and waits until it leads and has its list of logs.
fn after_crash(disk: &SimDisk) -> Running {
    let running = Running::start(&MemoryTransport::default(), disk, 1);
    let node = &running.node;
    running.until("to lead with all applied", || {
        let status = node.status();
        let caught_up = status.applied == status.end && status.committed == status.end;
        (status.role == Role::Leader && caught_up).then_some(())
    });
    running
}

fn assert_works(running: &Running, log: &str) {
    let log = running.until("the log", || running.node.log(&name(log)));
    running.until("its leader", || log.status().leader);
    running.run(log.append("second")).expect("one node");
}

#[test]
fn a_log_works_after_a_crash_at_any_step_of_its_creation() {
    for at in 0.. {
        let mut done = false;
        for keep in [CrashPolicy::KeepAll, CrashPolicy::LoseAll] {
            let disk = SimDisk::new();
            let running = alone(&disk);
            let node = &running.node;
            done = interrupted(&running, &disk, at, async {
                let log = node.create_log(&name("orders")).await;
                match log {
                    Ok(log) => log.append("first").await.is_ok(),
                    Err(_) => false,
                }
            });
            running.kill();
            let running = after_crash(&disk.crash(&keep));
            if running.node.logs().is_empty() {
                running.run(running.node.create_log(&name("orders"))).expect("it is not there");
            }
            assert_works(&running, "orders");
            running.kill();
        }
        if done {
            assert!(at > 10, "more operations than {at}");
            return;
        }
    }
}

#[test]
fn a_log_works_or_is_gone_after_a_crash_at_any_step_of_its_removal() {
    for at in 0.. {
        let mut done = false;
        for keep in [CrashPolicy::KeepAll, CrashPolicy::LoseAll] {
            let disk = SimDisk::new();
            let running = alone(&disk);
            let node = &running.node;
            running.run(node.create_log(&name("orders"))).expect("one node");
            done = interrupted(&running, &disk, at, async {
                let deleted = node.delete_log(&name("orders")).await.is_ok();
                while deleted && log_dirs(&disk) > 1 {
                    // paced: the disk tells nobody.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                deleted
            });
            running.kill();
            let disk = disk.crash(&keep);
            let running = after_crash(&disk);
            if running.node.logs().is_empty() {
                running.until("its files to go", || (log_dirs(&disk) == 1).then_some(()));
            } else {
                assert_works(&running, "orders");
            }
            running.kill();
        }
        if done {
            assert!(at > 10, "more operations than {at}");
            return;
        }
    }
}

/// Makes a log as a node does, and leaves it without an entry.
fn make_empty_log(disk: &SimDisk, dir: &Path, log_id: LogId) {
    let options = LogOptions {
        log_id,
        flush: Flush::Sync,
        flush_interval: Duration::from_millis(50),
        segment_size: 64 << 10,
        tail_cache_max: 1 << 20,
        at_stable: false,
        disk_reserve: 0,
        clock: Arc::new(SystemClock),
        observer: None,
    };
    let writers = WriterPool::start(1).expect("a thread");
    let log = Log::open(disk.shared(), dir, options, &writers).expect("a new log");
    drop(log);
}

#[test]
fn a_log_that_was_made_and_not_founded_is_founded_at_the_next_start() {
    let disk = SimDisk::new();
    let running = alone(&disk);
    let id = running.run(running.node.create_log(&name("orders"))).expect("one node").id();
    running.run(running.node.shutdown()).expect("a healthy node");
    running.kill();
    // As a crash leaves it that came after it was listed and before its first entry was stored.
    let data =
        DataDir::open(disk.shared(), &disk, Path::new("/data"), 1).expect("the node is down");
    data.remove_files(id).expect("a healthy disk");
    make_empty_log(&disk, &data.log_dir(id), id);
    drop(data);
    let running = after_crash(&disk);
    assert_works(&running, "orders");
    running.kill();
}

#[test]
fn a_founder_that_lost_its_data_does_not_found_a_log_again() {
    let transport = MemoryTransport::default();
    let disks: BTreeMap<NodeId, SimDisk> = (1..=3).map(|id| (id, SimDisk::new())).collect();
    let mut nodes: BTreeMap<NodeId, Running> =
        disks.iter().map(|(id, disk)| (*id, Running::start(&transport, disk, *id))).collect();
    // A log that one node founds alone.
    let first = nodes.remove(&1).expect("it runs");
    first.bootstrap(vec![first.node.member()]);
    first.run(first.node.create_log(&name("orders"))).expect("one node");
    for id in [2, 3] {
        first.run(first.node.admin().add_learner(nodes[&id].node.member())).expect("it runs");
        first.run(first.node.admin().promote(id)).expect("it runs");
    }
    let second = &nodes[&2];
    let admin = second.node.admin();
    second.run(admin.transfer_leadership(2)).expect("both run");
    second.until("to lead all", || {
        let leads = |status: &Status| status.role == Role::Leader;
        (second.node.statuses().iter().filter(|s| leads(s)).count() == 2).then_some(())
    });
    let append = second.node.log(&name("orders")).expect("it has it");
    second.run(append.append("acknowledged")).expect("a majority runs");
    // It leaves, loses its disk, and comes back under its number: to the list of logs first.
    second.run(admin.remove(1)).expect("a majority runs");
    first.kill();
    let first = Running::start(&transport, &SimDisk::with_seed(9), 1);
    let back = AdminRequest::AddLearner(first.replica());
    second.run(second.node.inner.on_leader(LogId::SYSTEM, &back)).expect("a majority runs");
    let log = first.until("the list of logs", || first.node.log(&name("orders")));
    let wait = first.node.config().raft.election_timeout_max * 12;
    first.runtime.block_on(async {
        // paced: that nothing happens can only be seen over time.
        tokio::time::sleep(wait).await;
    });
    assert_eq!(log.status().end, 0, "it founded the log: {:#?}", log.status());
    second.run(admin.add_learner(first.node.member())).expect("all run");
    first.until("the record", || {
        let read = futures_util::FutureExt::now_or_never(log.read(0, 1000));
        let records = read.expect("it never waits").expect("a read");
        records.iter().any(|record| record.payload == "acknowledged").then_some(())
    });
    first.kill();
    nodes.into_values().for_each(Running::kill);
}

/// Three nodes that hold a log, led by node 1.
fn three(
    transport: &(impl Transport + Clone),
    disks: &[SimDisk],
    change: fn(&mut Config),
) -> Vec<Running> {
    let start = |(disk, id)| Running::try_start(transport, disk, id, change).expect("it opens");
    let nodes: Vec<Running> = disks.iter().zip(1..).map(start).collect();
    let first = &nodes[0];
    first.bootstrap(nodes.iter().map(|running| running.node.member()).collect());
    first.run(first.node.create_log(&name("orders"))).expect("all run");
    for running in &nodes {
        running.until("the log", || running.node.log(&name("orders")));
    }
    first.run(first.node.admin().transfer_leadership(1)).expect("all run");
    first.until("to lead", || {
        let status = first.node.log(&name("orders"))?.status();
        (status.role == Role::Leader && status.committed == status.end).then_some(())
    });
    nodes
}

#[test]
fn a_leader_whose_disk_hangs_refuses_appends_before_it_runs_out_of_memory() {
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let nodes = three(&MemoryTransport::default(), &disks, |config| {
        config.raft.election_timeout_min = Duration::from_secs(1);
        config.raft.election_timeout_max = Duration::from_secs(2);
        config.limits.record_size_max = ByteCount::new(64 << 10);
        config.limits.batch_size_max = ByteCount::new(128 << 10);
        config.limits.append_inflight_max = ByteCount::new(512 << 10);
        config.limits.tail_cache_max = ByteCount::new(256 << 10);
    });
    let leader = &nodes[0];
    let log = leader.node.log(&name("orders")).expect("it leads it");
    let payload = bytes::Bytes::from(vec![7; 32 << 10]);
    disks[0].hold_flushes(true);
    // The others are a majority, so that these are committed.
    let mut taken = 0;
    let refused = loop {
        assert!(taken < 200, "{taken} appends of 32 KiB wait for the leader's disk");
        match leader.run(log.append(payload.clone())) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, crate::AppendError::Overloaded { .. }), "{refused}");
    assert!(taken >= 8, "refused after {taken} appends");
    let batch = leader.run(log.append_batch(vec![payload.clone()])).expect_err("it waits");
    assert!(matches!(batch, crate::AppendError::Overloaded { .. }), "{batch}");
    disks[0].hold_flushes(false);
    leader.until("appends to go on", || {
        let submitted = futures_util::FutureExt::now_or_never(log.submit(payload.clone()));
        submitted.expect("it never waits").ok().map(drop)
    });
    nodes.into_iter().for_each(Running::kill);
}

#[test]
fn a_node_may_be_shut_down_twice_at_once() {
    let disk = SimDisk::new();
    let running = alone(&disk);
    running.run(running.node.create_log(&name("orders"))).expect("one node");
    let (one, two) =
        running.run(async { tokio::join!(running.node.shutdown(), running.node.shutdown()) });
    one.expect("a healthy node");
    two.expect("a healthy node");
    running.kill();
}

#[test]
fn a_log_that_was_just_made_is_stopped_with_its_node() {
    for pauses in 0..40 {
        let disk = SimDisk::new();
        let running = alone(&disk);
        let (log, stopped) = running.run(async {
            let node = running.node.clone();
            let making = tokio::spawn(async move { node.create_log(&name("orders")).await });
            for _ in 0..pauses {
                tokio::task::yield_now().await;
            }
            let stopped = running.node.shutdown().await;
            making.abort();
            (making.await.ok().and_then(Result::ok), stopped)
        });
        stopped.expect("a healthy node");
        let changes = disk.changes();
        if let Some(log) = log {
            let error = running.run(log.append("late")).expect_err("it is closed");
            assert!(matches!(error, crate::AppendError::Closed), "{error}");
        }
        running.runtime.block_on(async {
            // paced: that nothing happens can only be seen over time.
            tokio::time::sleep(Duration::from_millis(20)).await;
        });
        assert_eq!(disk.changes(), changes, "written after the shutdown");
        running.kill();
    }
}

#[test]
fn free_space_is_looked_at_while_retention_waits_for_the_disk() {
    let disk = SimDisk::new();
    let running = Running::try_start(&MemoryTransport::default(), &disk, 1, |config| {
        config.storage.disk_reserve = ByteCount::new(1 << 20);
        config.retention.size_max = Some(ByteCount::new(64 << 10));
    })
    .expect("it opens");
    running.bootstrap(vec![running.node.member()]);
    let log = running.run(running.node.create_log(&name("orders"))).expect("one node");
    for _ in 0..16 {
        running.run(log.append(vec![7; 16 << 10])).expect("one node");
    }
    disk.hold_flushes(true);
    running.runtime.block_on(async {
        // paced: until retention has begun, which announces itself nowhere.
        tokio::time::sleep(Duration::from_millis(1500)).await;
    });
    disk.set_space(Some(0));
    let begun = std::time::Instant::now();
    running.until("appends to be refused", || {
        let submitted = futures_util::FutureExt::now_or_never(log.submit("no room"));
        let refused = submitted.expect("it never waits").err()?;
        matches!(refused, crate::AppendError::DiskFull { .. }).then_some(())
    });
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    disk.hold_flushes(false);
    running.kill();
}
