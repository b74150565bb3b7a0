//! One log's Raft group on this node: opens it, proposes to it, asks it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::Fatal;
use openraft::{Raft, SnapshotPolicy};

use super::agreement::Agreement;
use super::ballot::{Ballots, configs_of};
use super::damage::Damage;
use super::log_store::LogStore;
use super::losses::Losses;
use super::metrics::GroupMetrics;
use super::network::NetworkFactory;
use super::peers::Peers;
use super::responder::{APPEND_BYTES_MIN, Inflight};
use super::runtime::{Crash, start_for};
use super::snapshot::Receiving;
use super::space::{DiskSpace, GroupSpace};
use super::stable::Stable;
use super::state_machine::{ApplyShared, LogStateMachine};
use super::status::{Elections, watch_over};
use super::ticks::Ticks;
use super::timing::{Timers, millis, rest_after_append};
use super::trust::Trust;
use super::types::{RaftVote, Types, addresses, first_entry};
use crate::config::{Config, RaftConfig};
use crate::error::{OpenError, ReadError, StorageError, with_sources};
use crate::format::entry::EntryId;
use crate::log::{DataDir, Log, LogOptions, Saver, WriterObserver, WriterPool};
use crate::member::{Member, NodeId, Replica, ReplicaId};
use crate::mutant::Mutant;
use crate::record::{Flush, LogId, LogName};
use crate::seam::Disk;
use crate::state_machine::StateMachine;

/// Room in the core's queue for requests that are not appends.
const API_CHANNEL_SPARE: u64 = 65_536;

pub(crate) type RaftHandle = Raft<Types, LogStateMachine>;

/// What a group is opened with.
pub(crate) struct GroupSetup<'a> {
    pub(crate) name: LogName,
    pub(crate) id: LogId,
    pub(crate) config: &'a Config,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: &'a Path,
    pub(crate) data: Arc<DataDir>,
    /// Who this node is, with the data that it has.
    pub(crate) replica: ReplicaId,
    pub(crate) founding: Option<Founding>,
    pub(crate) writers: &'a WriterPool,
    pub(crate) peers: Arc<Peers>,
    pub(crate) space: Arc<DiskSpace>,
    pub(crate) machine: Option<Box<dyn StateMachine>>,
    /// Only what is known to be stable counts as committed: what lies above contradicts the history that a leader has. A log
    /// that may have lost something is opened so in any case.
    pub(crate) at_stable: bool,
    pub(crate) losses: Arc<Losses>,
}

/// How a new log begins on one of its first voters.
pub(crate) struct Founding {
    /// The first voters. Each writes the same first entry, which names them, before it votes: whatever becomes of
    /// the others, it can stand for election.
    pub(crate) founders: Vec<Replica>,
    /// It stands for election at once. The others wait until they are told to, so that they do not compete.
    pub(crate) stands: bool,
}

/// One log's Raft group on this node.
pub(crate) struct Group {
    pub(crate) name: LogName,
    pub(crate) id: LogId,
    pub(crate) replica: ReplicaId,
    pub(crate) raft: RaftHandle,
    pub(crate) log: Log,
    pub(crate) apply: Arc<ApplyShared>,
    pub(crate) inflight: Arc<Inflight>,
    pub(crate) has_machine: bool,
    /// Clients may append over TCP.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "there are no clients"))]
    pub(crate) takes_client_appends: bool,
    pub(super) saver: Saver,
    pub(super) receiving: Receiving,
    pub(super) data: Arc<DataDir>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) losses: Arc<Losses>,
    pub(super) stable: Arc<Stable>,
    pub(super) agreement: Agreement,
    pub(super) metrics: Arc<GroupMetrics>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) space: Arc<GroupSpace>,
    /// Ours: openraft's timers are others.
    pub(super) timing: RaftConfig,
    pub(super) ticks: Ticks,
    pub(super) inflight_max: u64,
    pub(super) tail_max: u64,
    closed: AtomicBool,
    /// Set once the log is to be opened again as of what is stable: one past the last index of that.
    rewound_to: OnceLock<u64>,
    pub(crate) damage: Arc<Damage>,
    /// Set once a task of the group, or its state machine, has panicked.
    pub(super) crash: Arc<Crash>,
    /// The node that leadership is being handed to; 0 if none.
    pub(super) successor: AtomicU64,
    /// A sole voter's memberships have its present addresses.
    pub(super) own_place_written: AtomicBool,
}

impl GroupSetup<'_> {
    fn takes_client_appends(&self) -> bool {
        self.machine.as_ref().is_none_or(|machine| machine.takes_client_appends())
    }
}

impl Group {
    /// Recovers the log and starts consensus on it.
    pub(crate) async fn open(setup: GroupSetup<'_>) -> Result<Arc<Self>, OpenError> {
        let metrics = Arc::new(GroupMetrics::new(&setup.name));
        let options = log_options(&setup, metrics.clone());
        let log = Log::open(setup.disk.clone(), setup.dir, options, setup.writers)?;
        match Self::start(setup, log.clone(), metrics).await {
            Ok(group) => Ok(group),
            Err(error) => {
                // Close its files, or the next open of the log would share them. The first error counts.
                let _ = log.close().await;
                Err(error)
            }
        }
    }

    /// Starts consensus on a log that is open.
    async fn start(
        mut setup: GroupSetup<'_>,
        log: Log,
        metrics: Arc<GroupMetrics>,
    ) -> Result<Arc<Self>, OpenError> {
        let config = setup.config;
        let founding = found(setup.founding.take(), &log);
        let apply = Arc::new(ApplyShared::default());
        let has_machine = setup.machine.is_some();
        let takes_client_appends = setup.takes_client_appends();
        let saver = Saver::new(log.clone(), setup.writers);
        let crash = Arc::new(Crash::default());
        let machine = LogStateMachine::open(
            saver.clone(),
            setup.machine.take(),
            apply.clone(),
            crash.clone(),
            metrics.clone(),
        )
        .await?;
        let limits = &config.limits;
        let request_max = limits.replication_request_max.bytes().try_into().unwrap_or(usize::MAX);
        let store = LogStore::new(log.clone(), request_max, has_machine, metrics.clone());
        let space = Arc::new(GroupSpace::new(setup.space.clone()));
        let damage = Arc::new(Damage::default());
        let trust = Arc::new(Trust::new(setup.data.is_suspect(setup.id)));
        let ballots = Arc::new(ballots(&setup, &log, trust.clone()));
        let network =
            network(&setup, &log, space.clone(), damage.clone(), trust.clone(), ballots.clone());
        let stable = network.stable.clone();
        let mut raft_config = raft_config(config, &setup.name)?;
        raft_config.enable_elect = founding.as_ref().is_none_or(|founding| founding.stands);
        let ticks = Ticks::new(&raft_config);
        let (replica, name) = (setup.replica, &setup.name);
        let raft =
            run_consensus(replica, name, raft_config, network, store, machine, &crash).await?;
        if founding.is_some_and(|founding| founding.stands) {
            stand(&raft).await;
        }
        let group = Arc::new(Self {
            name: setup.name,
            id: setup.id,
            replica: setup.replica,
            raft,
            log,
            apply,
            inflight: Arc::new(Inflight::default()),
            has_machine,
            takes_client_appends,
            saver,
            receiving: Receiving::default(),
            data: setup.data,
            trust,
            losses: setup.losses,
            stable,
            agreement: Agreement::default(),
            metrics,
            peers: setup.peers,
            space,
            timing: config.raft.clone(),
            ticks,
            inflight_max: limits.append_inflight_max.bytes(),
            tail_max: limits.tail_cache_max.bytes() + limits.append_inflight_max.bytes(),
            closed: AtomicBool::new(false),
            rewound_to: OnceLock::new(),
            damage,
            crash,
            successor: AtomicU64::new(0),
            own_place_written: AtomicBool::new(false),
        });
        group.start_tasks(ballots);
        Ok(group)
    }

    fn start_tasks(self: &Arc<Self>, ballots: Arc<Ballots>) {
        let elections = Elections { own: self.replica, ballots, losses: self.losses.clone() };
        let (name, raft, crash) = (self.name.clone(), self.raft.clone(), self.crash.clone());
        tokio::spawn(watch_over(name, raft, crash, elections));
        if self.trust.is_suspect() {
            tokio::spawn(Arc::clone(self).recover());
        }
    }

    /// Lets this node stand for election, if it was kept from it.
    pub(crate) fn may_stand(&self) {
        self.raft.runtime_config().elect(true);
    }

    /// Waits until this node knows a leader. False if the group stops before that.
    pub(crate) async fn led(&self) -> bool {
        let mut role = self.watch_role();
        while self.leading().is_none() {
            if !role.changed().await {
                return false;
            }
        }
        true
    }

    /// Founds the group with these voters. True if it was not founded before.
    pub(crate) async fn initialize(&self, members: &[Replica]) -> Result<bool, String> {
        match self.raft.initialize(addresses(members)).await {
            Ok(()) => Ok(true),
            Err(openraft::errors::RaftError::APIError(
                openraft::errors::InitializeError::NotAllowed(_),
            )) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Drops what came of a checkpoint whose leader has fallen silent.
    pub(crate) fn forget_silent(&self) {
        self.receiving.forget_silent();
    }

    /// What a leader sends and this node's disk has no space for, and for how long.
    pub(crate) fn waiting_for_space(&self) -> Option<(String, Duration)> {
        self.receiving.waiting()
    }

    /// Does something that blocks on the disk on the thread that saves checkpoints. None if the node is stopping.
    pub(crate) async fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.saver.run(move |_| work()).await
    }

    /// The error of a read from a group that has stopped.
    pub(crate) fn stopped(&self) -> ReadError {
        match (self.log.failure(), self.rewound_to()) {
            (Some(failure), _) => ReadError::Storage(failure),
            (None, Some(to)) => ReadError::Rewound { to },
            (None, None) => ReadError::Closed,
        }
    }

    /// One past the last index that the log keeps, if it is to be opened again without what lies above. Its records up to
    /// there stay what they are.
    pub(crate) fn rewound_to(&self) -> Option<u64> {
        self.rewound_to.get().copied()
    }

    /// Has those who read and append learn that the log is opened again without what lies at `to` and above.
    pub(crate) fn rewinds_to(&self, to: u64) {
        self.refuse_appends();
        // It is set once: another conflict comes too late.
        let _ = self.rewound_to.set(to);
    }

    /// Whether this node's committed history has an entry; none while that cannot be told.
    pub(crate) fn agrees(&self, entry: EntryId) -> Result<Option<bool>, StorageError> {
        let Some(committed) = self.log.committed() else { return Ok(None) };
        if committed.index >= entry.index {
            let trimmed = self.log.purged().is_some_and(|boundary| boundary.index > entry.index);
            let here = self.log.id_at(entry.index)?;
            return Ok(here.map_or(trimmed.then_some(true), |here| Some(here == entry)));
        }
        // Terms never go back in a log: the entry at that index will be of this term at least.
        Ok((committed.term > entry.term).then_some(false))
    }

    /// The first index from which a history that has `entry` may have others than this node's. `entry` is not in it.
    pub(crate) fn parted_from(&self, entry: EntryId) -> Result<u64, StorageError> {
        let watermarks = self.log.watermarks();
        let (mut low, mut high) = (watermarks.begin, watermarks.committed);
        // The first entry of a later term.
        while low < high {
            let middle = low + (high - low) / 2;
            match self.log.id_at(middle)? {
                Some(id) if id.term > entry.term => high = middle,
                _ => low = middle + 1,
            }
        }
        let before = low.checked_sub(1).map(|index| self.log.id_at(index)).transpose()?.flatten();
        // A leader's entries are the same wherever they are.
        let same = before.is_some_and(|before| before.term == entry.term);
        Ok(if same { low.min(entry.index) } else { watermarks.begin.min(entry.index) })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes no more appends. Those in flight go on.
    pub(crate) fn refuse_appends(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// The number of this node.
    pub(crate) fn node(&self) -> NodeId {
        self.replica.node
    }

    /// Why consensus has stopped here without being told to, if it has.
    pub(crate) fn stop_reason(&self) -> Option<String> {
        if let Some(failure) = self.log.failure() {
            return Some(with_sources(&*failure));
        }
        if let Some(reason) = self.crash.reason() {
            return Some(reason.to_owned());
        }
        match &self.raft.metrics().borrow_watched().running_state {
            Ok(()) | Err(Fatal::Stopped) => None,
            Err(fatal) => Some(fatal.to_string()),
        }
    }

    /// Stops the group for good.
    pub(crate) fn retire(&self, reason: &str) {
        self.crash.retired(reason);
    }

    /// True if the group has stopped and may go on after a restart. Not if its state machine panicked or data is damaged:
    /// it would come upon the same again.
    pub(crate) fn restart_helps(&self) -> bool {
        self.log.failure().is_some() || self.crash.reason().is_some() && !self.crash.is_lasting()
    }

    /// The leader that this node knows of. None once the group has stopped: what it knew is out of date.
    pub(crate) fn leading(&self) -> Option<Replica> {
        let stopped = self.raft.metrics().borrow_watched().running_state.is_err();
        if stopped || self.crash.reason().is_some() {
            return None;
        }
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        let id = metrics.current_leader?;
        metrics.membership_config.membership().get_node(&id).map(|node| node.replica(id))
    }

    /// The leader that this node knows of, for callers.
    pub(crate) fn leader(&self) -> Option<Member> {
        self.leading().map(|leader| leader.member)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leading().is_some_and(|leader| leader.id == self.replica)
    }

    /// Ids of the voters in force.
    pub(crate) fn voters(&self) -> BTreeSet<ReplicaId> {
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        metrics.membership_config.membership().voter_ids().collect()
    }

    /// Stops consensus, and leaves the log open.
    pub(crate) async fn halt(&self) {
        self.refuse_appends();
        // An error means that the core has stopped already.
        let _ = self.raft.shutdown().await;
    }

    /// Stops consensus, then the log: everything submitted is durable on return.
    pub(crate) async fn stop(&self) -> Result<(), Arc<StorageError>> {
        self.halt().await;
        self.log.close().await
    }

    /// The vote in force, for a snapshot's answer.
    pub(crate) fn vote(&self) -> RaftVote {
        self.raft.server_metrics().borrow_watched().vote
    }
}

/// So many of the longest election timeouts those that lost nothing are waited for after a start.
const STRAGGLERS_PATIENCE: u32 = 8;

/// Starts consensus.
/// Writes the first entry of a new log, if this is one.
fn found(founding: Option<Founding>, log: &Log) -> Option<Founding> {
    let founding = founding.filter(|_| log.last_id().is_none())?;
    // Not waited for: a vote is saved after it, and makes it durable.
    log.append(vec![first_entry(&founding.founders)], Box::new(drop));
    Some(founding)
}

/// Has this node stand for election at once, not after an election timeout.
async fn stand(raft: &RaftHandle) {
    // An error means that the core has stopped already.
    let _ = raft.trigger().elect(false).await;
}

async fn run_consensus(
    replica: ReplicaId,
    name: &LogName,
    config: openraft::Config,
    network: NetworkFactory,
    store: LogStore,
    machine: LogStateMachine,
    crash: &Arc<Crash>,
) -> Result<RaftHandle, OpenError> {
    let raft = Raft::build(replica, Arc::new(config), network, store, machine).await;
    let raft = raft.map_err(|error| OpenError::Start {
        log: name.to_string(),
        detail: crash.reason().map_or_else(|| error.to_string(), ToOwned::to_owned),
    })?;
    start_for(crash, || raft.run());
    Ok(raft)
}

fn ballots(setup: &GroupSetup<'_>, log: &Log, trust: Arc<Trust>) -> Ballots {
    let patience = setup.config.raft.election_timeout_max * STRAGGLERS_PATIENCE;
    Ballots::new(setup.replica, configs_of(log.clone()), trust, patience)
}

fn network(
    setup: &GroupSetup<'_>,
    log: &Log,
    space: Arc<GroupSpace>,
    damage: Arc<Damage>,
    trust: Arc<Trust>,
    ballots: Arc<Ballots>,
) -> NetworkFactory {
    NetworkFactory {
        peers: setup.peers.clone(),
        space,
        damage,
        trust,
        ballots,
        stable: Arc::new(Stable::new(setup.replica, log.clone())),
        log: setup.id,
        replica: setup.replica,
        window: setup.config.raft.replication_window as usize,
        append_timeout: setup.config.raft.election_timeout_max * 2,
    }
}

/// Notes that a log may have lost something when it fails: what it had acknowledged and not flushed is in no page cache any
/// more, and a later start in the same boot would not see that.
#[derive(Debug)]
struct Watched {
    metrics: Arc<GroupMetrics>,
    data: Arc<DataDir>,
    log: LogId,
    asynchronous: bool,
}

impl WriterObserver for Watched {
    fn flushed(&self, duration: Duration, entries: u64, bytes: u64) {
        self.metrics.flushed(duration, entries, bytes);
    }

    fn failed(&self) {
        if !self.asynchronous || Mutant::FailedLogTrusted.is_active() {
            return;
        }
        if let Err(error) = self.data.suspect(self.log) {
            let (log, error) = (self.log, with_sources(&error));
            tracing::error!(%log, error, "cannot note that a log may have lost something");
        }
    }
}

fn log_options(setup: &GroupSetup<'_>, metrics: Arc<GroupMetrics>) -> LogOptions {
    let (config, log_id) = (setup.config, setup.id);
    // The list of logs gives out their numbers: one that was given twice would mix the files of two.
    let flush = match log_id {
        LogId::SYSTEM => Flush::Sync,
        _ => config.storage.flush,
    };
    let asynchronous = flush == Flush::Async;
    let observer = Watched { metrics, data: setup.data.clone(), log: log_id, asynchronous };
    LogOptions {
        log_id,
        flush,
        at_stable: setup.at_stable || setup.data.is_suspect(log_id),
        flush_interval: config.storage.flush_interval,
        segment_size: config.storage.segment_size.bytes(),
        tail_cache_max: config.limits.tail_cache_max.bytes(),
        disk_reserve: config.storage.disk_reserve.bytes(),
        observer: Some(Arc::new(observer)),
    }
}

pub(super) fn raft_config(config: &Config, name: &LogName) -> Result<openraft::Config, OpenError> {
    let raft = &config.raft;
    let timers = Timers::of(raft);
    let config = openraft::Config {
        cluster_name: name.to_string(),
        heartbeat_interval: millis(raft.heartbeat_interval),
        election_timeout_min: timers.min,
        election_timeout_max: timers.max,
        heartbeat_min_interval: Some(rest_after_append(raft)),
        install_snapshot_timeout: 60_000,
        max_payload_entries: 4096,
        // Room for every append in flight, each of which counts for `APPEND_BYTES_MIN` at least.
        api_channel_size: Some(
            config.limits.append_inflight_max.bytes() / APPEND_BYTES_MIN + API_CHANNEL_SPARE,
        ),
        backoff: "20ms 40ms ...500ms".to_owned(),
        // Snapshots are boundaries, made by retention; nothing is purged by count.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A follower can be behind what it had acknowledged: it lost its tail, or somebody put back an older copy of its data.
        // openraft then looks again for what it holds. Otherwise the leader would panic, which has everything.
        allow_log_reversion: Some(!Mutant::RevertedFollowerStopsLeader.is_active()),
        // A leader that lost its unflushed tail would give the same log ids again.
        enable_leader_restore: Some(Mutant::LeaderRestored.is_active()),
        ..openraft::Config::default()
    };
    config
        .validate()
        .map_err(|error| OpenError::Start { log: name.to_string(), detail: error.to_string() })
}
