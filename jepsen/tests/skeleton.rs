//! Three whole nodes in the simulated world: they elect, replicate, lose their leader, and go on.
#![cfg(feature = "simulation")]

mod two_processes;

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jepsen::world::{BusFaults, Death, Mode, Network, Trace, World, WorldConfig, simulate};
use quorumlog::client::{Client, ClientConfig};
use quorumlog::server::{self, ServerConfig};
use quorumlog::simulation::{CrashPolicy, Latency, OpKind, SimDisk};
use quorumlog::{Config, LogName, Member, Node, NodeId};
use tokio::sync::watch;

const NODES: [&str; 3] = ["node1", "node2", "node3"];
const LIMIT: Duration = Duration::from_secs(60);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn members() -> Vec<Member> {
    (1..=3)
        .map(|id| Member::new(id, format!("node{id}:1")).with_client_addr(format!("node{id}:2")))
        .collect()
}

/// What a node tells the test: who it thinks leads.
type Leader = watch::Receiver<Option<NodeId>>;

struct Cluster<'a> {
    world: &'a mut World,
    disks: Vec<SimDisk>,
    leaders: Vec<Leader>,
}

impl<'a> Cluster<'a> {
    fn start(world: &'a mut World) -> Self {
        let mut random = world.random();
        let disks = NODES.iter().map(|host| {
            let disk = SimDisk::with_seed(random.next());
            let jitter = ms(2);
            disk.set_latency(Latency { flush: ms(1), jitter, ..Latency::default() });
            let trace = world.trace();
            disk.set_tracer(Some(Arc::new(move |operation| {
                let (kind, path) = (operation.kind, operation.path.display());
                let (offset, len, crc) = (operation.offset, operation.len, operation.crc);
                trace
                    .line(host, format_args!("{kind:?} {path} at {offset}: {len} bytes {crc:08x}"));
            })));
            disk
        });
        let disks = disks.collect();
        let mut cluster = Self { world, disks, leaders: Vec::new() };
        for id in 1..=3 {
            let leader = cluster.start_node(id);
            cluster.leaders.push(leader);
        }
        let elected = cluster.world.run_until(LIMIT, |_| cluster.leaders[0].borrow().is_some());
        assert!(elected, "no leader");
        cluster
    }

    fn start_node(&mut self, id: NodeId) -> Leader {
        let host = NODES[id as usize - 1];
        let (told, leader) = watch::channel(None);
        let (network, disk) = (self.world.network(), self.disks[id as usize - 1].clone());
        self.world.start(host, || run_node(network, id, disk, told));
        leader
    }

    /// The process dies, or its machine loses power and what it had not flushed.
    fn kill(&mut self, id: NodeId, death: Death) {
        let policy = match death {
            Death::Process => CrashPolicy::KeepAll,
            Death::Power => CrashPolicy::LoseAll,
        };
        // Before its tasks are dropped: what they do then does not reach the disk.
        let disk = &mut self.disks[id as usize - 1];
        *disk = disk.crash(&policy);
        self.world.kill(NODES[id as usize - 1], death);
    }

    /// Runs `work` on the client's host, with a client of the cluster.
    fn client<T, F>(&mut self, work: impl FnOnce(Client) -> F + Send + 'static) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let network = self.world.network();
        let done = self.world.run_on("client", LIMIT, async move {
            let config = ClientConfig::new(["node1:2", "node2:2", "node3:2"]);
            let transport = network.transport("client");
            let client = Client::connect_over(transport, config).await.expect("a node answers");
            work(client).await
        });
        done.unwrap_or_else(|| panic!("the client is not done:\n{}", self.world.trace().text()))
    }

    /// The leader of the system log, as the nodes that run say.
    fn leader(&self) -> NodeId {
        let up = (1..=3).filter(|id| self.world.is_running(NODES[*id as usize - 1]));
        let mut said = up.filter_map(|id| *self.leaders[id as usize - 1].borrow());
        said.next().expect("a leader")
    }
}

async fn run_node(
    network: Network,
    id: NodeId,
    disk: SimDisk,
    told: watch::Sender<Option<NodeId>>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let host = NODES[id as usize - 1];
    let transport = network.transport(host);
    let mut config = Config::new(id, "/data").with_listen(format!("{host}:1"));
    config.client_advertise = Some(format!("{host}:2"));
    config.storage.segment_size = "64KiB".parse()?;
    config.storage.disk_reserve = "0".parse()?;
    let flushes = disk.clone();
    let pace = move |_: &Path| -> quorumlog::seam::BoxFuture<usize> {
        // paced: what a flush takes.
        let flush = tokio::time::sleep(flushes.latency(OpKind::Flush, 0));
        Box::pin(async move {
            flush.await;
            usize::MAX
        })
    };
    let builder =
        Node::builder(config).disk(disk.shared()).clock(disk.clock()).transport(transport.clone());
    let builder = builder.writer_tasks(pace);
    let node = builder.open().await?;
    let acceptor = server::listen(&transport, &format!("{host}:2")).await?;
    tokio::spawn(server::run(node.clone(), acceptor, ServerConfig::default(), pending()));
    if id == 1 && !node.is_bootstrapped() {
        node.bootstrap(members()).await?;
    }
    loop {
        let leader = node.status().leader.map(|leader| leader.id);
        told.send_if_modified(|known| std::mem::replace(known, leader) != leader);
        // paced: status has no other news than its own.
        tokio::time::sleep(ms(5)).await;
    }
}

/// Appends, kills the leader, appends more, starts it again, and reads all that was acknowledged.
fn a_run(seed: u64, mode: Mode, death: Death) -> Trace {
    simulate(seed, || {
        let mut config = WorldConfig::new(seed);
        config.network.mode = mode;
        let mut world = World::new(config);
        let trace = world.trace();
        let mut cluster = Cluster::start(&mut world);
        let name = LogName::new("orders").expect("a name");
        let log = name.clone();
        // Before any request is lost: a change whose answer does not come is not made a second time.
        cluster
            .client(|client| async move { client.create_log(&log).await.map(drop) })
            .expect("a log");
        if mode == Mode::Bus {
            cluster.world.network().set_bus_faults_everywhere(BusFaults {
                drop: 0.02,
                duplicate: 0.05,
                reorder: 0.1,
                late: 0.02,
                ..BusFaults::NONE
            });
        }
        let log = name.clone();
        let mut acknowledged =
            cluster.client(|client| async move { append(&client, &log, 0..50).await });
        let leader = cluster.leader();
        cluster.kill(leader, death);
        let log = name.clone();
        acknowledged
            .extend(cluster.client(|client| async move { append(&client, &log, 50..100).await }));
        cluster.leaders[leader as usize - 1] = cluster.start_node(leader);
        let read = cluster.client(|client| async move {
            let log = client.log(&name);
            log.read_barrier().await.expect("a barrier");
            let mut records = Vec::new();
            loop {
                let from = records.last().map_or(0, |(index, _)| index + 1);
                let more = log.read(from, 1 << 20).await.expect("a read");
                if more.is_empty() {
                    return records;
                }
                records.extend(more.into_iter().map(|record| (record.index, record.payload)));
            }
        });
        for (index, payload) in &acknowledged {
            let found = read.iter().find(|(at, _)| at == index).map(|(_, found)| &found[..]);
            assert_eq!(found, Some(payload.as_bytes()), "index {index}");
        }
        assert!(acknowledged.len() > 80, "only {} were acknowledged", acknowledged.len());
        assert_eq!(cluster.world.panics(), []);
        if mode == Mode::Bus {
            let counters = cluster.world.network().counters();
            assert!(counters.dropped > 0 && counters.duplicated > 0, "{counters:?}");
        }
        cluster.world.run_for(ms(1_000));
        trace
    })
}

async fn append(
    client: &Client,
    name: &LogName,
    numbers: std::ops::Range<u32>,
) -> Vec<(u64, String)> {
    let log = client.log(name);
    let mut acknowledged = Vec::new();
    for number in numbers {
        let payload = format!("record {number}");
        if let Ok(appended) = log.append(payload.clone()).await {
            acknowledged.push((appended.index, payload));
        }
    }
    acknowledged
}

#[test]
fn a_cluster_of_whole_nodes_survives_the_death_of_its_leader() {
    a_run(1, Mode::Streams, Death::Process);
}

#[test]
fn a_cluster_of_whole_nodes_survives_a_bus_that_loses_doubles_and_delays() {
    a_run(1, Mode::Bus, Death::Power);
}

#[test]
#[ignore = "run by the test below, in processes of its own"]
fn prints_a_run() {
    let path = std::env::var("TRACE_TO").expect("a path for the trace");
    let text = [Mode::Streams, Mode::Bus].map(|mode| a_run(5, mode, Death::Power).text());
    std::fs::write(path, text.concat()).expect("the trace is written");
}

#[test]
fn two_processes_have_the_same_trace_of_a_whole_cluster() {
    let traces = two_processes::traces();
    assert!(traces[0].lines().count() > 1_000, "{}", traces[0]);
    let differs = traces[0].lines().zip(traces[1].lines()).find(|(one, other)| one != other);
    assert_eq!(differs, None);
    assert!(traces[0] == traces[1]);
}
