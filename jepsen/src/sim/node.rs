//! One node as it runs on its host: opened on its simulated disk, serving clients, with callers of its own.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorumlog::seam::{BoxFuture, Transport};
use quorumlog::server::{self, ServerConfig};
use quorumlog::simulation::SimDisk;
use quorumlog::{ByteCount, Config, Member, Node, Retention, with_sources};
use tokio::sync::mpsc;

use super::broker;
use super::locals;
use super::machine::States;
use super::profile::Profile;
use super::random::Random;
use super::shared::{NodeSlot, Shared};

/// Where nodes keep their data on their disks.
pub(crate) fn data_dir() -> &'static Path {
    Path::new("/data")
}

/// How long asynchronous nodes leave a record in the page cache.
pub(crate) const FLUSH_INTERVAL_MS: u64 = 50;

/// A host's name.
pub(crate) fn host_of(node: u64) -> String {
    format!("n{node}")
}

/// How others reach a node that has moved so many times.
pub(crate) fn member_after(node: u64, moves: u64) -> Member {
    Member::new(node, format!("n{node}:{}", 7000 + moves)).with_client_addr(client_addr(node))
}

/// How others reach a node that has not moved.
pub(crate) fn member_of(node: u64) -> Member {
    member_after(node, 0)
}

/// Where clients reach a node.
pub(crate) fn client_addr(node: u64) -> String {
    format!("n{node}:8000")
}

/// How long a disk takes. Shared with the harness, which makes it slow or stuck.
#[derive(Debug)]
pub(crate) struct Pace {
    range_ms: std::ops::Range<u64>,
    /// A run of a writer does few of the jobs that wait, and others look in between.
    steps: bool,
    random: Mutex<Random>,
    /// Added to each run of a writer.
    pub(crate) extra_ms: AtomicU64,
    /// Above 0: nothing returns.
    pub(crate) stuck: AtomicU64,
    /// Runs that were slow, and that were stuck.
    pub(crate) slowed: AtomicU64,
    pub(crate) held: AtomicU64,
}

/// How often a stuck disk is looked at.
const STUCK_PAUSE: Duration = Duration::from_millis(5);

impl Pace {
    pub(crate) fn new(profile: &Profile, random: Random) -> Self {
        Self {
            range_ms: profile.disk_ms.clone(),
            steps: profile.writer_steps,
            random: Mutex::new(random),
            extra_ms: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
            slowed: AtomicU64::new(0),
            held: AtomicU64::new(0),
        }
    }

    /// Waits as long as the disk takes. Gives how many jobs the next run of the writer does.
    async fn wait(self: Arc<Self>) -> usize {
        let (drawn, jobs) = {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            let drawn = random.within(self.range_ms.clone());
            (drawn, if self.steps { random.within(1..4) as usize } else { usize::MAX })
        };
        let extra = self.extra_ms.load(Ordering::Relaxed);
        if extra > 0 {
            self.slowed.fetch_add(1, Ordering::Relaxed);
        }
        if drawn + extra > 0 {
            tokio::time::sleep(Duration::from_millis(drawn + extra)).await;
        }
        if self.stuck.load(Ordering::Relaxed) > 0 {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        while self.stuck.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(STUCK_PAUSE).await;
        }
        jobs
    }
}

/// What a node is started with.
pub(crate) struct NodeSetup {
    pub(crate) id: u64,
    /// Counts starts over all nodes.
    pub(crate) life: u64,
    /// How others reach it.
    pub(crate) member: Member,
    pub(crate) disk: SimDisk,
    pub(crate) pace: Arc<Pace>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) states: States,
    pub(crate) shared: Arc<Shared>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a node until its process ends.
pub(crate) async fn run(setup: NodeSetup) -> Result<(), Failure> {
    let NodeSetup { id, life, member, disk, pace, transport, states, shared } = setup;
    let profile = &shared.profile;
    let waits = move |_: &Path| -> BoxFuture<usize> { Box::pin(Arc::clone(&pace).wait()) };
    let mut builder = Node::builder(config(member, profile))
        .disk(disk.shared())
        .clock(disk.clock())
        .transport(Arc::clone(&transport))
        .writer_tasks(waits);
    if profile.machine {
        let is_first = |name: &str| name == "log-1";
        builder =
            builder.state_machines(move |name| is_first(name.as_str()).then(|| states.machine(id)));
    }
    // A broker ends when it is dropped.
    let (node, _broker) = match shared.is_of_brokers() {
        true => {
            let broker = Box::pin(broker::open(id, &transport, builder, &shared)).await?;
            (broker.node().clone(), Some(broker))
        }
        false => (Box::pin(builder.open()).await.map_err(|error| with_sources(&error))?, None),
    };
    let acceptor = server::listen(&transport, &client_addr(id)).await?;
    let (jobs, mut inbox) = mpsc::unbounded_channel();
    shared.event(&host_of(id), "is open".to_owned());
    shared.node_up(id, NodeSlot { node: node.clone(), jobs });
    // Nobody but the broker appends to its logs.
    if !shared.is_of_brokers() {
        locals::start(&shared, &node, id, life);
    }
    let serving =
        server::run(node.clone(), acceptor, ServerConfig::default(), std::future::pending());
    tokio::spawn(serving);
    while let Some(job) = inbox.recv().await {
        tokio::spawn(job(node.clone()));
    }
    Ok(())
}

fn config(member: Member, profile: &Profile) -> Config {
    let millis = Duration::from_millis;
    let mut config = Config::new(member.id, data_dir()).with_listen(member.peer_addr);
    config.client_advertise = Some(member.client_addr);
    config.raft.heartbeat_interval = millis(profile.heartbeat_ms);
    config.raft.election_timeout_min = millis(profile.election_ms.start);
    config.raft.election_timeout_max = millis(profile.election_ms.end);
    config.raft.replication_window = profile.replication_window;
    config.storage.flush = profile.flush;
    config.storage.flush_interval = millis(FLUSH_INTERVAL_MS);
    config.storage.segment_size = ByteCount::new(profile.segment_bytes);
    config.storage.disk_reserve = ByteCount::new(64 << 10);
    config.limits.record_size_max = ByteCount::new(64 << 10);
    config.limits.batch_size_max = ByteCount::new(128 << 10);
    config.limits.append_inflight_max = ByteCount::new(1 << 20);
    config.limits.tail_cache_max = ByteCount::new(profile.tail_cache_bytes);
    config.limits.replication_request_max = ByteCount::new(profile.request_bytes);
    config.limits.append_timeout = millis(profile.timeout_ms);
    config.retention = Retention::default();
    config.retention.size_max = profile
        .retained_segments
        .map(|segments| ByteCount::new(segments * profile.segment_bytes.max(4 << 10)));
    config.retention.age_max = profile.retained_ms.map(millis);
    config
}
