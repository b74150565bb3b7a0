//! One log's Raft group on this node: opens it, proposes to it, asks it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::Fatal;

use super::agreement::Agreement;
use super::apply_shared::ApplyShared;
use super::ballot::Ballots;
use super::heard::Heard;
use super::log_store::LogStore;
use super::losses::Losses;
use super::metrics::GroupMetrics;
use super::peers::Peers;
use super::responder::Inflight;
use super::runtime::Crash;
use super::snapshot::Receiving;
use super::space::{DiskSpace, GroupSpace};
use super::stable::Stable;
use super::state_machine::LogStateMachine;
use super::status::{Elections, watch_over};
use super::ticks::Ticks;
use super::trust::Trust;
use super::types::{RaftVote, Types, addresses};
use super::unfit::Unfit;
use crate::config::{Config, RaftConfig};
use crate::error::{OpenError, ReadError, StorageError, with_sources};
use crate::format::entry::EntryId;
use crate::log::{DataDir, Log, Saver, WriterPool};
use crate::member::{Member, NodeId, Replica, ReplicaId};
use crate::record::{LogId, LogName};
use crate::seam::{Clock, Disk};
use crate::state_machine::StateMachine;

mod setup;

pub(super) use setup::raft_config;
use setup::{ballots, found, log_options, network, run_consensus, stand};

pub(crate) type RaftHandle = Raft<Types, LogStateMachine>;

/// What a group is opened with.
pub(crate) struct GroupSetup<'a> {
    pub(crate) name: LogName,
    pub(crate) id: LogId,
    pub(crate) config: &'a Config,
    pub(crate) disk: Arc<dyn Disk>,
    /// What segments are stamped by.
    pub(crate) clock: Arc<dyn Clock>,
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
    pub(super) heard: Heard,
    pub(super) inflight_max: u64,
    pub(super) tail_max: u64,
    closed: AtomicBool,
    /// Set once the log will be opened again as of what is stable: one past the last index of that.
    rewound_to: OnceLock<u64>,
    pub(crate) unfit: Arc<Unfit>,
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
        let unfit = Arc::new(Unfit::default());
        let trust = Arc::new(Trust::new(setup.data.is_suspect(setup.id)));
        let ballots = Arc::new(ballots(&setup, &log, trust.clone()));
        let network =
            network(&setup, &log, space.clone(), unfit.clone(), trust.clone(), ballots.clone());
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
            heard: Heard::new(),
            inflight_max: limits.append_inflight_max.bytes(),
            tail_max: limits.tail_cache_max.bytes() + limits.append_inflight_max.bytes(),
            closed: AtomicBool::new(false),
            rewound_to: OnceLock::new(),
            unfit,
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

    /// One past the last index that the log keeps, if it will be opened again without what lies above. Its records up to
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
        // It takes no part in the cluster after a restart either.
        self.crash.stopped_for_good(reason.to_owned());
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
