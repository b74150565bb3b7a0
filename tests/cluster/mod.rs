//! Clusters in this process: each node with its own directory and runtime, over TCP on loopback.
//!
//! Nothing here waits for time to pass: every wait is for a condition, and one that does not come true within
//! [`PATIENCE`] ends the test with what the nodes say about themselves.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod faulty_transport;
pub(crate) mod tally;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;
use quorumlog::{
    ByteCount, CommitLog, Config, LogName, Member, Node, NodeId, OpenError, Outcome, Record, Role,
    Status, StorageError,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use faulty_transport::Network;
use tally::Tallies;

/// Name of the log that every cluster of these tests has.
pub(crate) const LOG: &str = "orders";

/// How long a condition may take to come true. Far longer than it should, since tests share a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

type Configure = Arc<dyn Fn(&mut Config) + Send + Sync>;

/// What to start.
pub(crate) struct Setup {
    nodes: u64,
    configure: Vec<Configure>,
    tallies: Option<Tallies>,
}

/// A cluster, of which some nodes run.
pub(crate) struct Cluster {
    directory: TempDir,
    pub(crate) network: Network,
    setup: Setup,
    nodes: Mutex<BTreeMap<NodeId, Running>>,
    /// Index and payload of each append that was acknowledged through [`Cluster::append`].
    acknowledged: Mutex<BTreeMap<u64, Bytes>>,
}

struct Running {
    node: Node,
    /// The node's tasks run here, so that they can all be stopped at once.
    runtime: Runtime,
}

impl Setup {
    /// `nodes` voters, with elections after 150 to 300 ms.
    pub(crate) fn new(nodes: u64) -> Self {
        Self { nodes, configure: Vec::new(), tallies: None }.configure(|config| {
            config.raft.heartbeat_interval = Duration::from_millis(30);
            config.raft.election_timeout_min = Duration::from_millis(150);
            config.raft.election_timeout_max = Duration::from_millis(300);
            config.storage.disk_reserve = ByteCount::new(0);
            config.limits.append_timeout = Duration::from_secs(5);
        })
    }

    /// With elections so slow that none happens because the machine is busy.
    pub(crate) fn steady(self) -> Self {
        self.configure(|config| {
            config.raft.heartbeat_interval = Duration::from_millis(80);
            config.raft.election_timeout_min = Duration::from_millis(1600);
            config.raft.election_timeout_max = Duration::from_millis(2400);
        })
    }

    /// With segments of 64 KiB, and a tail cache that holds few of their entries.
    pub(crate) fn small_segments(self) -> Self {
        self.configure(|config| {
            config.storage.segment_size = ByteCount::new(64 << 10);
            config.limits.tail_cache_max = ByteCount::new(64 << 10);
        })
    }

    /// With further settings, for each node.
    pub(crate) fn configure(
        mut self,
        change: impl Fn(&mut Config) + Send + Sync + 'static,
    ) -> Self {
        self.configure.push(Arc::new(change));
        self
    }

    /// With a state machine on each node.
    pub(crate) fn tallies(mut self, tallies: &Tallies) -> Self {
        self.tallies = Some(tallies.clone());
        self
    }

    /// Opens the nodes, founds the cluster, makes the log, and waits until it has a leader.
    pub(crate) async fn start(self) -> Cluster {
        let voters: Vec<NodeId> = (1..=self.nodes).collect();
        let cluster = Cluster {
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
            network: Network::default(),
            setup: self,
            nodes: Mutex::default(),
            acknowledged: Mutex::default(),
        };
        for &id in &voters {
            cluster.start(id).await;
        }
        let members: Vec<Member> = voters.iter().map(|id| cluster.node(*id).member()).collect();
        cluster.node(1).bootstrap(members).await.expect("a new cluster can be founded");
        cluster.create_log(LOG).await;
        cluster.leader().await;
        cluster
    }
}

impl Cluster {
    /// Where a node keeps its data.
    pub(crate) fn directory(&self, id: NodeId) -> PathBuf {
        self.directory.path().join(id.to_string())
    }

    pub(crate) fn config(&self, id: NodeId) -> Config {
        let mut config = Config::new(id, self.directory(id)).with_listen(Network::address(id));
        self.setup.configure.iter().for_each(|change| change(&mut config));
        config
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<NodeId, Running>> {
        self.nodes.lock().expect("no panic under this lock")
    }

    /// The nodes that run.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.running().keys().copied().collect()
    }

    pub(crate) fn node(&self, id: NodeId) -> Node {
        self.running().get(&id).map(|running| running.node.clone()).expect("the node runs")
    }

    /// The log on one node. Panics if the node does not have it.
    pub(crate) fn log(&self, id: NodeId) -> CommitLog {
        self.node(id).log(&name(LOG)).expect("the node has the log")
    }

    /// The log on one node, if the node runs and has it.
    pub(crate) fn log_if_up(&self, id: NodeId) -> Option<CommitLog> {
        let node = self.running().get(&id).map(|running| running.node.clone());
        node.and_then(|node| node.log(&name(LOG)))
    }

    /// Opens a node, new or stopped, and waits until it has the log if it did before.
    pub(crate) async fn start(&self, id: NodeId) {
        self.start_with(id, |_| {}).await;
    }

    /// Opens a node with its own configuration; none while another process has its directory.
    async fn open(&self, id: NodeId, config: Config) -> Option<Result<Running, OpenError>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let mut builder = Node::builder(config).transport(self.network.transport(id));
        if let Some(tallies) = self.setup.tallies.clone() {
            builder = builder.state_machines(move |_: &LogName| Some(tallies.machine(id)));
        }
        match runtime.spawn(builder.open()).await.expect("opening does not panic") {
            Ok(node) => Some(Ok(Running { node, runtime })),
            Err(error) => {
                runtime.shutdown_background();
                let locked = matches!(error, OpenError::Storage(StorageError::Locked { .. }));
                (!locked).then_some(Err(error))
            }
        }
    }

    /// Opens a node with other settings than the rest.
    pub(crate) async fn start_with(&self, id: NodeId, change: impl Fn(&mut Config)) {
        let mut config = self.config(id);
        change(&mut config);
        let opened = eventually("the directory to be free", || self.open(id, config.clone())).await;
        let running = opened.unwrap_or_else(|error| panic!("node {id} does not open: {error:?}"));
        self.running().insert(id, running);
    }

    /// Runs a task beside the node's own, which ends with them.
    pub(crate) fn spawn_on(&self, id: NodeId, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.running();
        running.get(&id).expect("the node runs").runtime.spawn(task);
    }

    fn take(&self, id: NodeId) -> Running {
        self.running().remove(&id).expect("the node runs")
    }

    /// Shuts a node down in good order.
    pub(crate) async fn stop(&self, id: NodeId) {
        let Running { node, runtime } = self.take(id);
        within("a shutdown", node.shutdown()).await.expect("a healthy node shuts down");
        drop(node);
        runtime.shutdown_background();
    }

    /// Stops all tasks of a node where they stand, as the end of its process would.
    pub(crate) fn kill(&self, id: NodeId) {
        let Running { node, runtime } = self.take(id);
        runtime.shutdown_background();
        drop(node);
    }

    /// Makes a log, on whichever node can, and waits until all that run have it.
    pub(crate) async fn create_log(&self, text: &str) {
        let name = &name(text);
        let create = eventually("the log to be made", async || {
            let node = self.node(self.ids()[0]);
            match node.create_log(name).await {
                Ok(_) => Some(()),
                Err(quorumlog::AdminError::LogExists { .. }) => Some(()),
                Err(_) => None,
            }
        });
        create.await;
        let ids = self.ids();
        eventually("all nodes to have the log", async || {
            ids.iter().all(|id| self.node(*id).log(name).is_some()).then_some(())
        })
        .await;
    }

    /// The leader that all running nodes agree on.
    pub(crate) async fn leader(&self) -> NodeId {
        self.leader_among(&self.ids()).await
    }

    /// The leader that these nodes agree on, which is one of them.
    pub(crate) async fn leader_among(&self, ids: &[NodeId]) -> NodeId {
        eventually("the nodes to have the log", async || {
            ids.iter().all(|id| self.node(*id).log(&name(LOG)).is_some()).then_some(())
        })
        .await;
        let mut watches: Vec<_> = ids.iter().map(|id| self.log(*id).watch_status()).collect();
        let agreed = async {
            loop {
                let statuses: Vec<_> = watches.iter().map(|watch| watch.current()).collect();
                if let Some(leader) = agreed_leader(&statuses) {
                    return leader;
                }
                select_all(watches.iter_mut().map(|watch| Box::pin(watch.changed()))).await;
            }
        };
        match tokio::time::timeout(PATIENCE, agreed).await {
            Ok(leader) => leader,
            Err(_) => panic!("no leader among {ids:?}:\n{}", self.describe()),
        }
    }

    /// Hands leadership to `to`. A transfer may fail, as when the link to `to` is just coming up, but soon, and
    /// one of the next must work.
    pub(crate) async fn transfer(&self, to: NodeId) {
        eventually("a transfer of leadership", async || {
            let leader = self.leader().await;
            if leader == to {
                return Some(());
            }
            let admin = self.log(leader).admin();
            let sent = tokio::time::timeout(PATIENCE / 3, admin.transfer_leadership(to)).await;
            assert!(sent.is_ok(), "a transfer hangs, whoever leads now:\n{}", self.describe());
            None
        })
        .await;
    }

    /// Running nodes other than `id`.
    pub(crate) fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    /// Appends through the leader, until acknowledged; gives the index. A record whose first attempt has an
    /// unknown outcome may be stored twice.
    pub(crate) async fn append(&self, payload: impl Into<Bytes>) -> u64 {
        self.append_among(&self.ids(), payload).await
    }

    /// [`Cluster::append`] where only these nodes can reach one another.
    pub(crate) async fn append_among(&self, ids: &[NodeId], payload: impl Into<Bytes>) -> u64 {
        let payload = payload.into();
        let index = eventually("an append to be acknowledged", async || {
            let leader = self.leader_among(ids).await;
            match self.log(leader).append(payload.clone()).await {
                Ok(appended) => Some(appended.index),
                Err(error) => {
                    let retry = error.is_retryable() || error.outcome() == Outcome::Unknown;
                    assert!(retry, "{error}");
                    None
                }
            }
        })
        .await;
        self.acknowledge(index, payload);
        index
    }

    /// Appends `count` records named after `name`, one after the other.
    pub(crate) async fn append_some(&self, name: &str, count: u64) {
        for number in 0..count {
            self.append(format!("{name} {number}")).await;
        }
    }

    /// Notes an acknowledged append, so that [`Cluster::agree`] looks for it.
    pub(crate) fn acknowledge(&self, index: u64, payload: Bytes) {
        let mut acknowledged = self.acknowledged.lock().expect("no panic under this lock");
        let before = acknowledged.insert(index, payload);
        assert_eq!(before, None, "index {index} was acknowledged twice");
    }

    /// Waits until all running nodes hold the same committed records, and checks that they do, and that nothing
    /// acknowledged is missing. Gives the records that all of them still hold.
    pub(crate) async fn agree(&self) -> Vec<Record> {
        self.agree_among(&self.ids()).await
    }

    /// [`Cluster::agree`] for some nodes.
    pub(crate) async fn agree_among(&self, ids: &[NodeId]) -> Vec<Record> {
        self.leader_among(ids).await;
        let logs: Vec<CommitLog> = ids.iter().map(|id| self.log(*id)).collect();
        let begin = eventually("all nodes to hold the same", async || {
            let marks: Vec<_> = logs.iter().map(CommitLog::watermarks).collect();
            let same = marks
                .iter()
                .all(|mark| (mark.committed, mark.end) == (marks[0].committed, marks[0].committed));
            let begin = marks.iter().map(|mark| mark.begin).max();
            begin.filter(|_| same)
        })
        .await;
        let mut first: Option<Vec<Record>> = None;
        for (id, log) in ids.iter().zip(&logs) {
            let records = read_all(log, begin).await;
            match &first {
                None => first = Some(records),
                Some(first) => assert_eq!(first, &records, "nodes {} and {id} differ", ids[0]),
            }
        }
        let records = first.unwrap_or_default();
        let held: BTreeMap<u64, &Record> = records.iter().map(|r| (r.index, r)).collect();
        let acknowledged = self.acknowledged.lock().expect("no panic under this lock");
        for (index, payload) in acknowledged.range(begin..) {
            let record = held.get(index).unwrap_or_else(|| panic!("index {index} is lost"));
            assert_eq!(record.payload, payload, "another record is at index {index}");
        }
        records
    }

    /// Status of all running nodes, for failures.
    pub(crate) fn describe(&self) -> String {
        let lines = self.ids().into_iter().map(|id| match self.node(id).log(&name(LOG)) {
            None => format!("node {id}: has no log; {:?}", self.node(id).status()),
            Some(log) => format!("node {id}: {:?}", log.status()),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    /// Runtimes may not be dropped where others run.
    fn drop(&mut self) {
        let nodes = std::mem::take(&mut *self.running());
        for Running { node, runtime } in nodes.into_values() {
            runtime.shutdown_background();
            drop(node);
        }
    }
}

/// The leader, if all say the same in the same term.
fn agreed_leader(statuses: &[Status]) -> Option<NodeId> {
    let leader = statuses.first()?.leader.as_ref()?.id;
    let agreed = statuses.iter().all(|status| {
        let role = if status.node_id == leader { Role::Leader } else { Role::Follower };
        status.leader.as_ref().is_some_and(|member| member.id == leader)
            && status.term == statuses[0].term
            && (status.role == role || status.role == Role::Learner)
    });
    let present = statuses.iter().any(|status| status.node_id == leader);
    (agreed && present).then_some(leader)
}

/// All committed records of a log from `from` on.
pub(crate) async fn read_all(log: &CommitLog, from: u64) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut next = from;
    loop {
        let more = within("a read", log.read(next, 256 << 10)).await.expect("a read works");
        let Some(last) = more.last() else { return records };
        assert!(more[0].index >= next, "a read gave index {} for {next}", more[0].index);
        next = last.index + 1;
        records.extend(more);
    }
}

/// Payloads as text.
pub(crate) fn texts(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| String::from_utf8_lossy(&record.payload).into_owned();
    records.iter().map(text).collect()
}

/// Fails the test if `future` takes longer than [`PATIENCE`].
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// A name that is one.
pub(crate) fn name(text: &str) -> LogName {
    LogName::new(text).expect("a valid name")
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            // paced: the next look at a condition that announces itself nowhere.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    })
    .await
}

/// Lets time pass in which something must not happen.
pub(crate) async fn meanwhile(time: Duration) {
    // paced: that nothing happens can only be seen over time.
    tokio::time::sleep(time).await;
}
