//! What the handles of a node share.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::catalog::Catalog;
use super::commit_log::Groups;
use super::elsewhere::Elsewhere;
use super::forward;
use super::identity::NodeIdentity;
use super::log_clock::{LogClock, LogTime};
use super::log_place::LogPlace;
use super::problems::NotOpen;
use super::state_dir::StateDir;
use super::supervise::Panics;
use crate::config::Config;
use crate::error::{OpenError, ReadError, StorageError};
use crate::format::entry::EntryId;
use crate::log::{DataDir, WriterPool};
use crate::member::{Member, NodeId};
use crate::mutant::Mutant;
use crate::panics;
use crate::raft::{
    Conflict, DiskSpace, Founding, Group, GroupSetup, Host, Identity, Lane, Peers, messages,
};
use crate::record::{LogId, LogName};
use crate::seam::{BoxFuture, Clock, Disk};
use crate::state_machine::StateMachine;
use crate::wire::{Frame, Hello, LinkError, OutFrame};

/// How long an administrative call may take.
pub(super) const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Name of a state machine's own directory in its log's.
const STATE_DIR_NAME: &str = "state";

/// Makes the state machine for a log, or none. Called for each log that is opened or created.
pub type StateMachineFactory =
    Arc<dyn Fn(&LogName, StateDir) -> Option<Box<dyn StateMachine>> + Send + Sync>;

/// A node's parts. The handles share it.
pub(crate) struct NodeInner {
    pub(super) config: Config,
    pub(super) member: Member,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    /// What segments are stamped with, and their ages are measured by.
    pub(super) log_clock: Arc<LogClock>,
    pub(super) dir: Arc<DataDir>,
    pub(super) identity: Arc<NodeIdentity>,
    pub(super) peers: Arc<Peers>,
    pub(super) writers: WriterPool,
    pub(super) groups: RwLock<Groups>,
    /// Where handles find the groups, of logs that were open once and not deleted.
    pub(super) places: Mutex<BTreeMap<LogId, Arc<LogPlace>>>,
    /// Held by whoever opens logs again, or opens and removes them as the list says.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// Counts changes of `groups`.
    pub(super) groups_changed: watch::Sender<u64>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) machines: Option<StateMachineFactory>,
    pub(super) space: Arc<DiskSpace>,
    /// Logs of the list that could not be opened.
    pub(super) not_open: Mutex<BTreeMap<LogId, NotOpen>>,
    /// Who leads those, and the logs that have stopped here.
    pub(crate) elsewhere: Elsewhere,
    pub(super) panics: Panics,
    /// Why this process must not go on, once that is known.
    pub(super) retired: watch::Sender<Option<Retired>>,
    /// Held while the node shuts down.
    pub(super) shutting_down: tokio::sync::Mutex<()>,
    /// True once the node shuts down.
    pub(super) stopping: watch::Sender<bool>,
    /// Background tasks: listener, catalog, housekeeping.
    pub(super) tasks: Mutex<JoinSet<()>>,
}

/// Why a process's logs are stopped for good.
#[derive(Debug, Clone)]
pub(super) enum Retired {
    /// Another process with the same data has its place.
    Replaced(String),
    /// Others have heard of newer data. The process goes on to say so.
    Outdated(String),
}

impl Retired {
    pub(super) fn reason(&self) -> &str {
        let (Self::Replaced(reason) | Self::Outdated(reason)) = self;
        reason
    }
}

impl NodeInner {
    pub(super) fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// True if the logs of this process are stopped for good, or the node is no member any more.
    pub(super) fn takes_no_part(&self) -> bool {
        self.retired.borrow().is_some() || self.peers.standing.is_removed().is_some()
    }

    /// For what is quick and often: `groups` makes a list.
    pub(super) fn each_group(&self, visit: impl FnMut(&Arc<Group>)) {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).values().for_each(visit);
    }

    pub(super) fn group(&self, id: LogId) -> Option<Arc<Group>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The group of a log that is not open, once it is: a node hears of a new log a moment after the log's leader
    /// does, and opens it a moment after that. None if it does not happen within an election timeout, or cannot.
    pub(super) async fn opened(&self, id: LogId) -> Option<Arc<Group>> {
        let mut changed = self.groups_changed.subscribe();
        let mut stopping = self.stopping.subscribe();
        let opening = async {
            loop {
                changed.mark_unchanged();
                if let Some(group) = self.group(id) {
                    return Some(group);
                }
                if self.is_gone(id) {
                    return None;
                }
                changed.changed().await.ok()?;
            }
        };
        let limit = self.config.raft.election_timeout_min;
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => None,
            opened = tokio::time::timeout(limit, opening) => opened.ok().flatten(),
        }
    }

    /// Whether the list of logs has come past the log's number, and does not have the log.
    fn is_gone(&self, id: LogId) -> bool {
        // Asked in this order: the list is changed first.
        let passed = self.system().is_none_or(|system| system.apply.applied_end() > id.0);
        passed && !self.catalog.lists(id)
    }

    /// The system log's group. Absent only while the node opens and after it closed.
    pub(super) fn system(&self) -> Option<Arc<Group>> {
        self.group(LogId::SYSTEM)
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<LogId, Arc<LogPlace>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No log is opened again.
    pub(super) fn end_places(&self) {
        self.places().values().for_each(|place| place.end());
    }

    /// Where handles of a log find its group, if it was open once and was not deleted.
    pub(super) fn place(&self, id: LogId) -> Option<Arc<LogPlace>> {
        self.places().get(&id).cloned()
    }

    pub(super) fn place_named(&self, name: &str) -> Option<Arc<LogPlace>> {
        self.places().values().find(|place| place.name.as_str() == name).cloned()
    }

    #[cfg(any(test, feature = "server"))]
    pub(super) fn group_named(&self, name: &str) -> Option<Arc<Group>> {
        self.groups().into_iter().find(|group| group.name.as_str() == name)
    }

    /// True if a log could not be opened here.
    pub(crate) fn is_not_open(&self, log: LogId) -> bool {
        self.not_open().contains_key(&log)
    }

    pub(super) fn not_open(&self) -> MutexGuard<'_, BTreeMap<LogId, NotOpen>> {
        self.not_open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves once the node stops.
    pub(super) async fn stopped(&self) {
        // An error means that the node is gone, which is the same.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
    }

    /// The embedder's state machine for a log of the list, if it wants one.
    pub(super) fn machine(&self, name: &LogName, id: LogId) -> Option<Box<dyn StateMachine>> {
        let files = self.dir.log_dir(id).join(STATE_DIR_NAME);
        self.machines.as_ref()?(name, StateDir::new(self.disk.clone(), self.clock.clone(), files))
    }

    /// Opens a log's group and makes it known.
    pub(super) async fn open_group(
        &self,
        name: LogName,
        id: LogId,
        machine: Option<Box<dyn StateMachine>>,
        founding: Option<Founding>,
        at_stable: bool,
    ) -> Result<Arc<Group>, OpenError> {
        let log_name = name.to_string();
        let setup = GroupSetup {
            name,
            id,
            config: &self.config,
            disk: self.disk.clone(),
            clock: Arc::new(LogTime { clock: self.log_clock.clone(), wall: self.clock.clone() }),
            dir: &self.dir.log_dir(id),
            data: self.dir.clone(),
            replica: self.identity.replica(),
            founding,
            writers: &self.writers,
            peers: self.peers.clone(),
            space: self.space.clone(),
            machine,
            at_stable,
            losses: self.place(id).map(|place| place.group().losses.clone()).unwrap_or_default(),
        };
        let opened = panics::catching(Group::open(setup)).await;
        let group = opened.unwrap_or_else(|panic| {
            Err(OpenError::Start { log: log_name, detail: format!("it panicked: {panic}") })
        })?;
        self.dir.add_log(id)?;
        match self.places().entry(id) {
            Entry::Occupied(place) => place.get().set(group.clone()),
            Entry::Vacant(new) => drop(new.insert(LogPlace::new(group.clone()))),
        }
        self.groups.write().unwrap_or_else(PoisonError::into_inner).insert(id, group.clone());
        let retired = self.retired.borrow().clone();
        if let Some(retired) = retired.filter(|_| !Mutant::RetiredOpensLogs.is_active()) {
            group.retire(retired.reason());
        }
        self.groups_changed.send_modify(|count| *count += 1);
        Ok(group)
    }

    /// Takes out the group of a log that is deleted.
    pub(super) fn take_group(&self, id: LogId) -> Option<Arc<Group>> {
        if let Some(place) = self.places().remove(&id) {
            place.end();
        }
        let group = self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.groups_changed.send_modify(|count| *count += 1);
        group
    }

    /// The last entry that the leader has committed: from this node if it leads, else from the leader.
    pub(super) async fn read_index(
        &self,
        group: &Group,
        timeout: Duration,
    ) -> Result<EntryId, ReadError> {
        let leader = group.leading().ok_or(ReadError::NotLeader { leader: None })?;
        if leader.id == group.replica {
            return group.read_index(timeout).await;
        }
        let frame = messages::frame(messages::READ_INDEX, group.id, &());
        let link = self.peers.link(leader.id, &leader.member.peer_addr, Lane::Control);
        let answer = link.request(frame, timeout).await;
        let answer = answer.map_err(|error| match error {
            LinkError::Timeout { after, .. } => ReadError::NoQuorum { after },
            other => ReadError::Unreachable { detail: other.to_string() },
        })?;
        messages::accepted(&answer)
            .map_err(|error| ReadError::Unreachable { detail: error.to_string() })
    }

    /// The same. While an election is under way the next leader is waited for, up to `deadline`;
    /// each attempt comes `pause` after the one before.
    pub(super) async fn read_index_by(
        &self,
        group: &Group,
        deadline: Instant,
        pause: Duration,
    ) -> Result<EntryId, ReadError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.read_index(group, left).await {
                Err(error) if Mutant::BarrierRetryAnswersLocally.is_active() => {
                    return group.log.committed().ok_or(error);
                }
                Err(ReadError::NotLeader { .. } | ReadError::Unreachable { .. })
                    if left > pause =>
                {
                    tokio::time::sleep(pause).await;
                }
                answer => return answer,
            }
        }
    }

    /// The failure that stopped a log of this node.
    pub(super) fn failure(&self) -> Option<Arc<StorageError>> {
        let stopped = self.groups().iter().find_map(|group| group.log.failure());
        stopped.or_else(|| self.not_open_failure())
    }
}

impl Identity for NodeInner {
    fn hello(&self, target: NodeId, expects: u128) -> Hello {
        self.identity.hello(target, expects)
    }

    fn check(&self, hello: &Hello) -> Result<(), String> {
        if self.is_stopping() {
            return Err("this node is shutting down".to_owned());
        }
        self.identity.check(hello)
    }
}

impl Host for NodeInner {
    fn peers(&self) -> &Peers {
        &self.peers
    }

    fn list_members(&self) {
        for member in self.other_members() {
            self.peers.contacts.list(member.id, &member.member.peer_addr);
        }
    }

    fn group(&self, log: LogId) -> Option<Arc<Group>> {
        Self::group(self, log)
    }

    fn opened(self: Arc<Self>, log: LogId) -> BoxFuture<Option<Arc<Group>>> {
        Box::pin(async move { Self::opened(&self, log).await })
    }

    fn rewind(self: Arc<Self>, group: Arc<Group>, conflict: Conflict) {
        self.begin_rewind(group, &conflict);
    }

    fn space(&self) -> &DiskSpace {
        &self.space
    }

    fn admin(self: Arc<Self>, frame: Frame) -> BoxFuture<OutFrame> {
        Box::pin(forward::serve(self, frame))
    }
}
