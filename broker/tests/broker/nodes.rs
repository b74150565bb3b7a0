//! Nodes with brokers, which can be killed and started again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quorumlog::simulation::SimDisk;
use quorumlog::{ByteCount, Config, Flush, Member, Node, NodeId, Role};
use quorumlog_broker::{Broker, BrokerConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::client::{Client, ROUTE};
use crate::cluster::faulty_transport::Network;
use crate::cluster::{eventually, name};

/// What the nodes have in common, and their disks if they are not the machine's.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) logs: usize,
    pub(crate) auto_create: bool,
    pub(crate) send_timeout: Duration,
    pub(crate) flush: Flush,
    /// Shortest and longest.
    pub(crate) election_timeout: (Duration, Duration),
    pub(crate) disks: BTreeMap<NodeId, SimDisk>,
    pub(crate) disk_reserve: u64,
    pub(crate) segment_size: u64,
    /// Anything else about the brokers.
    pub(crate) tune: fn(&mut BrokerConfig),
    /// Bytes of the newest records that each log keeps in memory; none: as by default.
    pub(crate) tail_cache: Option<u64>,
}

impl Default for Setup {
    fn default() -> Self {
        let send_timeout = BrokerConfig::default().send_timeout;
        let disks = BTreeMap::new();
        let election_timeout = (Duration::from_millis(600), Duration::from_millis(1200));
        let flush = Flush::Sync;
        Self {
            logs: 1,
            auto_create: true,
            send_timeout,
            flush,
            election_timeout,
            disks,
            disk_reserve: 0,
            segment_size: 64 << 10,
            tune: |_| {},
            tail_cache: None,
        }
    }
}

/// A cluster, of which some nodes run.
pub(crate) struct Brokers {
    directory: TempDir,
    pub(crate) network: Network,
    setup: Setup,
    running: Mutex<BTreeMap<NodeId, Running>>,
    /// Every broker that there ever was.
    nodes_by_addr: Mutex<BTreeMap<String, NodeId>>,
}

struct Running {
    node: Node,
    name_server: SocketAddr,
    addrs: Vec<SocketAddr>,
    vip_channels: Vec<SocketAddr>,
    /// The node's and the broker's tasks run here, so that they can all be stopped at once.
    runtime: Runtime,
    _broker: Broker,
}

impl Brokers {
    /// Three nodes with one log.
    pub(crate) async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    pub(crate) async fn start_with(setup: Setup) -> Self {
        let logs = setup.logs;
        let brokers = Self::found(setup).await;
        for log in 0..logs {
            brokers.leader_of(log).await;
        }
        brokers
    }

    /// Three nodes that have just become a cluster, and lead nothing yet.
    pub(crate) async fn found(setup: Setup) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let brokers = Self {
            directory,
            network: Network::default(),
            setup,
            running: Mutex::default(),
            nodes_by_addr: Mutex::default(),
        };
        for id in 1..=3 {
            brokers.open(id).await;
        }
        let members: Vec<Member> = (1..=3).map(|id| brokers.node(id).member()).collect();
        brokers.node(1).bootstrap(members).await.expect("a new cluster can be founded");
        brokers
    }

    /// Opens a node, new or stopped.
    pub(crate) async fn open(&self, id: NodeId) {
        let mut config = Config::new(id, self.directory.path().join(id.to_string()))
            .with_listen(Network::address(id));
        config.raft.heartbeat_interval = Duration::from_millis(40);
        (config.raft.election_timeout_min, config.raft.election_timeout_max) =
            self.setup.election_timeout;
        config.storage.disk_reserve = ByteCount::new(self.setup.disk_reserve);
        config.storage.flush = self.setup.flush;
        config.storage.segment_size = ByteCount::new(self.setup.segment_size);
        if let Some(bytes) = self.setup.tail_cache {
            config.limits.tail_cache_max = ByteCount::new(bytes);
        }
        let mut broker = BrokerConfig::default();
        broker.name_server_listen = "127.0.0.1:0".to_owned();
        broker.listen = vec!["127.0.0.1:0".to_owned(); self.setup.logs];
        broker.auto_create_topics = self.setup.auto_create;
        broker.send_timeout = self.setup.send_timeout;
        (self.setup.tune)(&mut broker);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let opened = eventually("the directory to be free", async || {
            let (config, broker) = (config.clone(), broker.clone());
            let transport = self.network.transport(id);
            let disk = self.setup.disks.get(&id).cloned();
            let opening = async move {
                let mut builder = Node::builder(config).transport(transport);
                if let Some(disk) = disk {
                    builder = builder.disk(disk.shared()).clock(disk.clock());
                }
                Broker::open(broker, builder).await
            };
            runtime.spawn(opening).await.expect("opening does not panic").ok()
        });
        let broker = opened.await;
        let node = broker.node().clone();
        let name_server = broker.name_server().expect("it has a name server");
        let addrs = broker.addrs().to_vec();
        let vip_channels = broker.vip_channels().to_vec();
        let named = addrs.iter().map(|addr| (addr.to_string(), id));
        self.nodes_by_addr.lock().expect("no panic under this lock").extend(named);
        let running = Running { node, name_server, addrs, vip_channels, runtime, _broker: broker };
        self.running.lock().expect("no panic under this lock").insert(id, running);
    }

    /// Stops all tasks of a node where they stand, as the end of its process would.
    pub(crate) fn kill(&self, id: NodeId) {
        let taken = self.running.lock().expect("no panic under this lock").remove(&id);
        taken.expect("the node runs").runtime.shutdown_background();
    }

    /// Stops a node's tasks where they stand, without ending its connections, until what this returns is dropped.
    pub(crate) async fn hang(&self, id: NodeId) -> std::sync::mpsc::Sender<()> {
        let (resume, hung) = std::sync::mpsc::channel();
        let (sender, begun) = tokio::sync::oneshot::channel();
        self.with(id, |running| {
            // There is one thread for all of them.
            running.runtime.spawn(async move {
                let _ = sender.send(());
                let _ = hung.recv();
            })
        });
        begun.await.expect("it hangs");
        resume
    }

    fn with<T>(&self, id: NodeId, read: impl FnOnce(&Running) -> T) -> T {
        read(
            self.running.lock().expect("no panic under this lock").get(&id).expect("the node runs"),
        )
    }

    pub(crate) fn node(&self, id: NodeId) -> Node {
        self.with(id, |running| running.node.clone())
    }

    /// Where all nodes have their data.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.running.lock().expect("no panic under this lock").keys().copied().collect()
    }

    /// A node's broker of the first log.
    pub(crate) fn broker_addr(&self, id: NodeId) -> SocketAddr {
        self.broker_addr_of(id, 0)
    }

    /// A node's broker of a log.
    pub(crate) fn broker_addr_of(&self, id: NodeId, log: usize) -> SocketAddr {
        self.with(id, |running| running.addrs[log])
    }

    /// Where it is served two ports below; none if somebody else had that port.
    pub(crate) fn vip_channel(&self, id: NodeId) -> Option<SocketAddr> {
        self.with(id, |running| running.vip_channels.first().copied())
    }

    /// A connection to it.
    pub(crate) async fn client(&self, id: NodeId) -> Client {
        Client::connect(self.broker_addr(id)).await
    }

    pub(crate) fn name_server_addr(&self, id: NodeId) -> SocketAddr {
        self.with(id, |running| running.name_server)
    }

    /// The node that has a broker at this address, or had before it was opened again.
    pub(crate) fn node_at(&self, addr: &str) -> Option<NodeId> {
        self.nodes_by_addr.lock().expect("no panic under this lock").get(addr).copied()
    }

    /// A connection to a node's name server.
    pub(crate) async fn name_server(&self, id: NodeId) -> Client {
        Client::connect(self.name_server_addr(id)).await
    }

    /// The node that leads a log and that routes lead to.
    pub(crate) async fn leader_of(&self, log: usize) -> NodeId {
        eventually("a leader that serves", async || {
            let leads = async |id: NodeId| {
                let commit_log = self.node(id).log(&name(&format!("broker-{log}")))?;
                let addr = self.with(id, |running| running.addrs[log]);
                let leads = commit_log.status().role == Role::Leader;
                let route =
                    self.name_server(id).await.call(ROUTE, &[("topic", "%RETRY%x")], b"").await;
                if route.code != 0 {
                    return None;
                }
                let told = &route.json()["brokerDatas"][log]["brokerAddrs"]["0"];
                let served = Client::connect(addr)
                    .await
                    .call(30, &[("topic", "x"), ("queueId", "0")], b"")
                    .await;
                (leads && *told == addr.to_string() && served.code == 0).then_some(id)
            };
            for id in self.ids() {
                if let Some(id) = leads(id).await {
                    return Some(id);
                }
            }
            None
        })
        .await
    }

    pub(crate) async fn leader(&self) -> NodeId {
        self.leader_of(0).await
    }

    /// A node that does not lead now. It may when it is asked for again: see [`Self::others`].
    pub(crate) async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        self.others(leader)[0]
    }

    /// The nodes that run, without one.
    pub(crate) fn others(&self, node: NodeId) -> Vec<NodeId> {
        self.ids().into_iter().filter(|id| *id != node).collect()
    }
}

impl Drop for Brokers {
    /// Runtimes may not be dropped where others run.
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = std::mem::take(&mut *running);
        running.into_values().for_each(|one| one.runtime.shutdown_background());
    }
}
