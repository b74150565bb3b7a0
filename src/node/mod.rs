//! The public API: a node, its logs, and what can be done with them.

mod append;
mod catalog;
mod clock;
mod clock_file;
mod cluster_admin;
mod commit_log;
mod elsewhere;
mod embedded;
mod follow_catalog;
mod forward;
mod generations;
mod housekeeping;
mod identity;
mod in_touch;
mod inner;
mod lagging;
mod log_admin;
mod log_clock;
mod log_place;
#[cfg(feature = "metrics")]
mod metrics;
mod open;
mod per_log;
mod problems;
mod rewind;
mod shutdown;
mod state_dir;
mod subscribe;
mod supervise;
#[cfg(test)]
mod tests;
mod ticket;

use std::sync::Arc;

use tokio::time::Instant;

pub use append::Applied;
pub use cluster_admin::ClusterAdmin;
pub use commit_log::{CommitLog, StatusWatch};
pub use elsewhere::LedElsewhere;
pub use inner::StateMachineFactory;
pub use log_admin::LogAdmin;
pub use open::NodeBuilder;
pub use state_dir::StateDir;
pub use subscribe::Subscription;
pub use ticket::{AppliedTicket, Ticket};

use crate::config::Config;
use crate::error::{AdminError, OpenError, StorageError};
use crate::member::{Member, Status};
#[cfg(feature = "server")]
use crate::mutant::Mutant;
use crate::problem::{NodeStatus, Problem};
#[cfg(feature = "server")]
pub(crate) use crate::raft::AckSink;
use crate::raft::Group;
use crate::record::{LogId, LogName};
use crate::seam::Transport;
use forward::{AdminReply, AdminRequest};
use inner::{ADMIN_TIMEOUT, NodeInner, Retired};

/// One process's member of a cluster: a listen address, a data directory, and any number of logs.
///
/// Cheap to clone; the clones are one node. Call [`shutdown`](Self::shutdown) to stop it: dropping the handles
/// does not. A process that ends without it loses nothing that was acknowledged.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<NodeInner>,
    system: Arc<Group>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("member", &self.inner.member).finish_non_exhaustive()
    }
}

/// A log's name and number.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LogInfo {
    /// Its name.
    pub name: LogName,
    /// Its number.
    pub id: LogId,
}

impl Node {
    /// Opens a node with TCP and without state machines. See [`NodeBuilder::open`].
    ///
    /// # Errors
    /// As [`NodeBuilder::open`].
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        NodeBuilder::new(config).open().await
    }

    /// Begins to open a node with state machines or another transport.
    pub fn builder(config: Config) -> NodeBuilder {
        NodeBuilder::new(config)
    }

    /// What the node dials and listens through, for those who serve another protocol beside it: a simulation controls
    /// that, too.
    pub fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(self.inner.peers.transport())
    }

    /// This node and the addresses that others reach it at.
    pub fn member(&self) -> Member {
        self.inner.member.clone()
    }

    /// The settings that the node was opened with.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Founds a cluster: once, on one node, naming all first voters, this one among them. Each is asked who it is, and
    /// waited for until it runs, up to half a minute. Returns when this is durable here, before a leader is elected.
    ///
    /// # Errors
    /// [`AdminError::AlreadyBootstrapped`] if this node belongs to a cluster; [`AdminError::Unreachable`] if one of the
    /// others is not reached: then nothing was founded, and it can be called again.
    pub async fn bootstrap(
        &self,
        members: impl IntoIterator<Item = Member>,
    ) -> Result<(), AdminError> {
        let members: Vec<Member> = members.into_iter().collect();
        let invalid = |reason: &str| Err(AdminError::Invalid { reason: reason.to_owned() });
        if !members.iter().any(|member| member.id == self.inner.config.node_id) {
            return invalid("this node must be among the members");
        }
        let mut ids: Vec<_> = members.iter().map(|member| member.id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != members.len() || ids.first() == Some(&0) {
            return invalid("members need distinct ids above 0");
        }
        if self.is_bootstrapped() {
            return Err(AdminError::AlreadyBootstrapped);
        }
        let storage = |error| AdminError::Storage(Arc::new(error));
        let random = self.inner.clock.random();
        let random = random.map_err(|error| {
            storage(StorageError::io("get a random id for", &self.inner.config.data_dir, error))
        })?;
        self.inner.identity.found_cluster(random).map_err(storage)?;
        let deadline = Instant::now() + ADMIN_TIMEOUT;
        let asking = members.into_iter().map(|member| self.inner.identify(member, deadline));
        let founders = futures_util::future::try_join_all(asking).await?;
        match self.system.initialize(&founders).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(AdminError::AlreadyBootstrapped),
            Err(reason) => Err(AdminError::Invalid { reason }),
        }
    }

    /// True once this node belongs to a cluster.
    pub fn is_bootstrapped(&self) -> bool {
        self.system.log.last_id().is_some()
    }

    /// Makes a log on all voters. Works on any node; returns when this node serves the log and knows its leader.
    ///
    /// # Errors
    /// [`AdminError::LogExists`]; no leader or quorum in time.
    pub async fn create_log(&self, name: &LogName) -> Result<CommitLog, AdminError> {
        let deadline = Instant::now() + ADMIN_TIMEOUT;
        let request = AdminRequest::CreateLog(name.clone());
        let AdminReply::Log(id) = self.inner.on_leader(LogId::SYSTEM, &request).await? else {
            return Err(AdminError::Invalid { reason: "no log came of it".to_owned() });
        };
        let timed_out = |_| AdminError::Timeout { after: ADMIN_TIMEOUT };
        let mut changed = self.inner.groups_changed.subscribe();
        let group = loop {
            changed.mark_unchanged();
            if let Some(group) = self.inner.group(id) {
                break group;
            }
            let waited = tokio::time::timeout_at(deadline, changed.changed()).await;
            waited.map_err(timed_out)?.map_err(|_| AdminError::Closed)?;
        };
        let mut role = group.watch_role();
        while group.leader().is_none() {
            let waited = tokio::time::timeout_at(deadline, role.changed()).await;
            if !waited.map_err(timed_out)? {
                return Err(AdminError::Closed);
            }
        }
        let place = self.inner.place(id).ok_or(AdminError::Closed)?;
        Ok(CommitLog { node: self.inner.clone(), place })
    }

    /// [`delete_log`](Self::delete_log) for a client: it deletes no log that takes no appends from clients.
    ///
    /// # Errors
    /// As `delete_log`; the log is a state machine's, or it is not open here, so that this is not known.
    #[cfg(feature = "server")]
    pub(crate) async fn delete_for_client(&self, name: &LogName) -> Result<(), AdminError> {
        let listed = self.logs().into_iter().any(|info| info.name == *name);
        let refused = match self.inner.group_named(name.as_str()) {
            Some(group) if !group.takes_client_appends => Some(
                "belongs to the program that runs on the nodes, as a broker's logs do: clients cannot delete it",
            ),
            None if listed => Some(
                "is not open on the node that was asked, which cannot tell whether clients may delete it",
            ),
            _ => None,
        };
        match refused.filter(|_| !Mutant::ClientsDeleteAnything.is_active()) {
            Some(why) => Err(AdminError::Invalid { reason: format!("the log {name} {why}") }),
            None => self.delete_log(name).await,
        }
    }

    /// Deletes a log and its data on all nodes. Works on any node; each removes its copy as it learns of it.
    ///
    /// # Errors
    /// [`AdminError::UnknownLog`]; no leader or quorum in time.
    pub async fn delete_log(&self, name: &LogName) -> Result<(), AdminError> {
        let request = AdminRequest::DeleteLog(name.clone());
        self.inner.on_leader(LogId::SYSTEM, &request).await.map(drop)
    }

    /// The logs that this node knows of, by name.
    pub fn logs(&self) -> Vec<LogInfo> {
        let logs = self.inner.catalog.state().logs.into_iter();
        logs.map(|(name, entry)| LogInfo { name, id: entry.id }).collect()
    }

    /// A log by its name; none if this node does not hold it, or not yet.
    pub fn log(&self, name: &LogName) -> Option<CommitLog> {
        let place =
            self.inner.place_named(name.as_str()).filter(|place| place.id != LogId::SYSTEM)?;
        Some(CommitLog { node: self.inner.clone(), place })
    }

    /// A log by its number; none if this node does not hold it, or not yet. The system log is not for clients.
    #[cfg(feature = "server")]
    pub(crate) fn log_by_id(&self, id: LogId) -> Option<CommitLog> {
        let place = self.inner.place(id).filter(|_| id != LogId::SYSTEM)?;
        Some(CommitLog { node: self.inner.clone(), place })
    }

    /// Status of every log that this node should hold, the system log first. One that could not be opened is listed as
    /// stopped, with the failure.
    pub fn statuses(&self) -> Vec<Status> {
        self.inner.statuses()
    }

    /// Status of every log, and all problems.
    pub fn node_status(&self) -> NodeStatus {
        self.inner.status()
    }

    /// Problems of this node, and of other members as it sees them.
    pub fn problems(&self) -> Vec<Problem> {
        self.inner.problems()
    }

    /// Changes of the cluster as a whole.
    pub fn admin(&self) -> ClusterAdmin {
        ClusterAdmin { node: self.inner.clone() }
    }

    /// Status of the system log, which stands for the node: its members are the cluster's.
    pub fn status(&self) -> Status {
        self.inner.status_of(&self.system)
    }

    /// The storage failure that stopped a log of this node, or keeps one from being opened, if there is one.
    pub fn failure(&self) -> Option<Arc<StorageError>> {
        self.inner.failure()
    }

    /// Resolves once this process must not go on, with the reason: another one with the same data has its place in the
    /// cluster, and no member has ever talked to this one. Its logs are stopped. Otherwise it never resolves.
    pub async fn retired(&self) -> String {
        let mut retired = self.inner.retired.subscribe();
        let replaced = retired.wait_for(|retired| matches!(retired, Some(Retired::Replaced(_))));
        match replaced.await.as_deref() {
            Ok(Some(retired)) => retired.reason().to_owned(),
            _ => std::future::pending().await,
        }
    }

    /// Stops the node: refuses new appends, waits for those in flight (at most 5 s), hands leadership over,
    /// flushes, and releases the directory. Can be called more than once.
    ///
    /// # Errors
    /// The first storage failure. The node has stopped all the same.
    pub async fn shutdown(&self) -> Result<(), Arc<StorageError>> {
        self.inner.shut_down().await
    }
}
