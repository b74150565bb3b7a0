//! Opening a node: recovery, then the listener, then the cluster.

use std::fmt;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Node;
use super::catalog::{Catalog, CatalogMachine};
use super::clock::keep_time;
use super::commit_log::Groups;
use super::elsewhere::Elsewhere;
use super::follow_catalog::follow_catalog;
use super::generations::keep_generations;
use super::housekeeping::{keep_house, keep_log_clock, keep_retention};
use super::identity::NodeIdentity;
use super::in_touch::keep_in_touch;
use super::inner::{NodeInner, Retired, StateMachineFactory};
use super::log_clock::LogClock;
use super::state_dir::StateDir;
use super::supervise::Panics;
use crate::config::Config;
use crate::error::{OpenError, StorageError};
use crate::log::{DataDir, WriterPool};
use crate::member::Member;
use crate::raft::{DiskSpace, Group, PeerService, Peers};
use crate::record::{LogId, LogName};
use crate::seam::disk::RealDisk;
use crate::seam::{Acceptor, Clock, Disk, SystemClock, TcpTransport, Transport};
use crate::state_machine::StateMachine;
use crate::wire::{WireLimits, serve};

/// What a node says that learned in an earlier run that its data is older than it was.
const OUTDATED_DATA: &str = "this node's data is older than it was, as if an older copy had been put back: remove the node from \
                             the cluster, then add it again with an empty data directory";

/// What a node is opened with beside its configuration.
pub struct NodeBuilder {
    config: Config,
    machines: Option<StateMachineFactory>,
    transport: Arc<dyn Transport>,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    #[cfg(feature = "simulation")]
    pace: Option<crate::log::Pace>,
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl NodeBuilder {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            machines: None,
            transport: Arc::new(TcpTransport),
            disk: RealDisk::shared(),
            clock: Arc::new(SystemClock),
            #[cfg(feature = "simulation")]
            pace: None,
        }
    }

    /// Gives logs their state machines: `factory` is asked for each log that is opened or created. It must
    /// give the same answer for the same name on every node and at every start. If it is called more than once, the
    /// factories are asked in that order, and a log gets the first machine that one of them has for it.
    ///
    /// It is asked again for a log that goes back because the cluster has lost records (see
    /// [`ReadError::Rewound`](crate::ReadError::Rewound)): the machine that it gave before is dropped first, and the new one
    /// is restored from a checkpoint that a majority has flushed, or gets all records again.
    #[must_use]
    pub fn state_machines(
        self,
        factory: impl Fn(&LogName) -> Option<Box<dyn StateMachine>> + Send + Sync + 'static,
    ) -> Self {
        self.state_machines_with_files(move |name, _| factory(name))
    }

    /// As [`state_machines`](Self::state_machines), for those that keep some of what they derive in files.
    #[must_use]
    pub fn state_machines_with_files(
        mut self,
        factory: impl Fn(&LogName, StateDir) -> Option<Box<dyn StateMachine>> + Send + Sync + 'static,
    ) -> Self {
        self.machines = Some(match self.machines.take() {
            None => Arc::new(factory),
            Some(earlier) => Arc::new(move |log: &LogName, files: StateDir| {
                earlier(log, files.clone()).or_else(|| factory(log, files))
            }),
        });
        self
    }

    /// What the node will listen and dial through.
    pub fn transport_in_use(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Uses another transport than TCP.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = transport;
        self
    }

    /// Uses another disk than the machine's. All that is promised of a disk is written at [`Disk`].
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = disk;
        self
    }

    /// Uses another clock than the machine's, and its random numbers.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Writes and flushes in tasks of the present runtime instead of threads of its own, and waits for
    /// `pace(directory of the log)` before each run of a log's writer, which stands for the time
    /// that the disk takes. It gives how many of the jobs that wait are done in one go: between two runs others
    /// see what is done and what is not, as they do beside a thread.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn writer_tasks(
        mut self,
        pace: impl Fn(&std::path::Path) -> crate::seam::BoxFuture<usize> + Send + Sync + 'static,
    ) -> Self {
        self.pace = Some(Arc::new(pace));
        self
    }

    fn start_writers(&self) -> Result<WriterPool, OpenError> {
        let threads = self.config.storage.writer_threads;
        #[cfg(feature = "simulation")]
        if let Some(pace) = &self.pace {
            return Ok(WriterPool::start_tasks(threads, pace));
        }
        let failed = |source| {
            StorageError::io("start the writer threads for", &self.config.data_dir, source)
        };
        Ok(WriterPool::start(threads).map_err(failed)?)
    }

    /// Recovers what is on disk, listens for the other nodes, and takes its place in the cluster that it
    /// belongs to, if any. Call it within a tokio runtime with time and I/O enabled.
    ///
    /// # Errors
    /// [`OpenError`]: nothing on disk was changed, save that an absent directory was made.
    pub async fn open(self) -> Result<Node, OpenError> {
        self.config.validate()?;
        let (disk, clock, config) = (self.disk.clone(), self.clock.clone(), &self.config);
        let dir = DataDir::open(disk, &*clock, &config.data_dir, config.node_id)?;
        let dir = Arc::new(dir);
        let listen_error = |source| OpenError::Listen { addr: config.listen.clone(), source };
        let acceptor = self.transport.bind(&config.listen).await.map_err(listen_error)?;
        // After all that another process may keep it from.
        dir.begin_run(config.storage.flush)?;
        let writers = self.start_writers()?;
        let disk = self.disk;
        let config = self.config;
        let log_clock = Arc::new(LogClock::open(&*disk, clock.now_ms(), &config, &dir));
        let member = Member::new(config.node_id, advertised(&config, acceptor.as_ref()))
            .with_client_addr(config.client_advertise.clone().unwrap_or_default());
        let session = clock.random();
        let session = session.map_err(|error| {
            StorageError::io("get a random number for", &config.data_dir, error)
        })?;
        let identity = Arc::new(NodeIdentity::new(member.clone(), dir.clone(), session));
        let limits = wire_limits(&config);
        let peers = Peers::new(self.transport, identity.clone(), limits.clone());
        peers.contacts.generations.restore(dir.newest());
        let outdated = dir.is_outdated().then(|| OUTDATED_DATA.to_owned());
        if let Some(reason) = &outdated {
            peers.standing.outdated(reason);
        }
        let space = Arc::new(DiskSpace::new(config.storage.disk_reserve.bytes()));
        let inner = Arc::new(NodeInner {
            config,
            member,
            disk,
            clock,
            log_clock,
            dir,
            identity,
            peers: Arc::new(peers),
            writers,
            groups: RwLock::new(Groups::new()),
            places: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            groups_changed: watch::Sender::new(0),
            catalog: Catalog::new(),
            machines: self.machines,
            space,
            not_open: Mutex::default(),
            elsewhere: Elsewhere::default(),
            panics: Panics::default(),
            retired: watch::Sender::new(outdated.map(Retired::Outdated)),
            shutting_down: tokio::sync::Mutex::new(()),
            stopping: watch::Sender::new(false),
            tasks: Mutex::new(JoinSet::new()),
        });
        match open_logs(&inner).await {
            Ok(system) => {
                start_tasks(&inner, acceptor, limits);
                Ok(Node { inner, system })
            }
            Err(error) => {
                // What was opened is closed again; the first error is the one to tell.
                let _ = inner.shut_down().await;
                Err(error)
            }
        }
    }
}

async fn open_logs(inner: &Arc<NodeInner>) -> Result<Arc<Group>, OpenError> {
    inner.check_space();
    let machine = Box::new(CatalogMachine(inner.catalog.clone()));
    let system =
        inner.open_group(LogName::system(), LogId::SYSTEM, Some(machine), None, false).await?;
    // The list as far as it is known here. A log that cannot be opened keeps none of the others from being: it is told
    // of in the node's status, and the node is not ready.
    for (name, entry) in inner.catalog.state().logs {
        inner.try_open_listed(&name, &entry).await;
    }
    inner.note_flushes()?;
    inner.begin_log_clock();
    Ok(system)
}

fn start_tasks(inner: &Arc<NodeInner>, acceptor: Box<dyn Acceptor>, limits: WireLimits) {
    let service = Arc::new(PeerService::new(inner.clone()));
    let mut stopping = inner.stopping.subscribe();
    inner.spawn(inner.clone().run_once("peer listener", async move {
        let stopped = async move {
            // An error means that the node is gone, which is the same.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        serve(acceptor, service, limits, stopped).await;
    }));
    let node = inner.clone();
    inner.spawn(inner.clone().keep("list of logs", move || follow_catalog(node.clone())));
    let node = inner.clone();
    inner.spawn(inner.clone().keep("clock", move || keep_time(node.clone())));
    let node = inner.clone();
    inner.spawn(inner.clone().keep("housekeeping", move || keep_house(node.clone())));
    let node = inner.clone();
    inner.spawn(inner.clone().keep("generations", move || keep_generations(node.clone())));
    let node = inner.clone();
    inner.spawn(inner.clone().keep("members", move || keep_in_touch(node.clone())));
    let node = inner.clone();
    inner.spawn(inner.clone().keep("leaders elsewhere", move || node.clone().look_elsewhere()));
    let node = inner.clone();
    inner.spawn(inner.clone().keep("retention", move || keep_retention(node.clone())));
    let node = inner.clone();
    inner.spawn(inner.clone().keep("log clock", move || keep_log_clock(node.clone())));
}

/// The address for others: as configured, with the port that the system chose where it was to.
fn advertised(config: &Config, acceptor: &dyn Acceptor) -> String {
    match &config.advertise {
        Some(addr) => addr.clone(),
        None => acceptor.local_addr(),
    }
}

/// Frames between nodes are as large as the largest batch, with room for headers.
fn wire_limits(config: &Config) -> WireLimits {
    let limits = &config.limits;
    let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let largest = limits.record_size_max.max(limits.replication_request_max).bytes();
    WireLimits {
        frame_bytes_max: bytes(largest * 2 + (4 << 20)),
        queue_bytes_max: bytes(limits.append_inflight_max.bytes() * 2 + (16 << 20)),
        queued: None,
        incoming: None,
        connections_max: limits.connections_max as usize,
        handshake_timeout: Duration::from_secs(5),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};

    use bytes::Bytes;

    use super::*;
    use crate::record::Record;
    use crate::seam::disk::sim::SimDisk;
    use crate::state_machine::ApplyError;

    /// Has nothing but its factory's number.
    struct Numbered(u8);

    impl StateMachine for Numbered {
        fn apply(&mut self, _record: &Record) -> Result<Bytes, ApplyError> {
            Ok(Bytes::new())
        }

        fn checkpoint(&self, out: &mut dyn Write) -> io::Result<()> {
            out.write_all(&[self.0])
        }

        fn restore(&mut self, _from: &mut dyn Read) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_gets_the_first_machine_that_a_factory_has_for_it() {
        let of = |number, log: &LogName, logs: &[&str]| {
            let machine = || Box::new(Numbered(number)) as Box<dyn StateMachine>;
            logs.contains(&log.as_str()).then(machine)
        };
        let builder = NodeBuilder::new(Config::new(1, "/data"))
            .state_machines(move |log| of(1, log, &["a", "b"]))
            .state_machines_with_files(move |log, _| of(2, log, &["b", "c"]));
        let factory = builder.machines.expect("there are two");
        let disk = SimDisk::new();
        let given = ["a", "b", "c", "d"].map(|log| {
            let files = StateDir::new(disk.shared(), disk.clock(), "/data/files");
            let machine = factory(&LogName::new(log).expect("a name"), files)?;
            let mut number = Vec::new();
            machine.checkpoint(&mut number).expect("a vector takes all");
            number.first().copied()
        });
        assert_eq!(given, [Some(1), Some(1), Some(2), None]);
    }
}
