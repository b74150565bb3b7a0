//! Changes of the cluster as a whole: of the system log and every other log.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::forward::{AdminRequest, RETRY_PAUSE};
use super::inner::{ADMIN_TIMEOUT, NodeInner};
use crate::error::{AdminError, ReadError};
use crate::member::{Member, MemberStatus, NodeId};
use crate::record::LogId;

/// How long a new member may take to be reached. A client waits longer, so it hears that nothing was changed.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(3);

/// Changes of the cluster as a whole. Works on any node: each log's leader does its part.
///
/// A change goes through the logs one by one and is idempotent: if it fails half-way, the error says where,
/// and calling it again finishes it.
#[derive(Clone)]
pub struct ClusterAdmin {
    pub(super) node: Arc<NodeInner>,
}

impl std::fmt::Debug for ClusterAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterAdmin").finish_non_exhaustive()
    }
}

impl ClusterAdmin {
    /// Adds a node that holds copies of all logs and does not vote. It is added with the data that it has now, so it
    /// must be running, and reached from this node. Returns when every log's leader has taken it in; it catches up
    /// after. A member with the same data stays what it is, and its addresses are changed, durably, in all logs.
    ///
    /// # Errors
    /// The node is not reached, or is a member still with the data that it had before; no leader or no quorum in time,
    /// another change under way.
    pub async fn add_learner(&self, member: Member) -> Result<(), AdminError> {
        if member.id == 0 || member.peer_addr.is_empty() {
            let reason = "a member needs an id above 0 and an address".to_owned();
            return Err(AdminError::Invalid { reason });
        }
        let replica = self.node.identify(member, Instant::now() + IDENTIFY_TIMEOUT).await?;
        self.each(&AdminRequest::AddLearner(replica)).await
    }

    /// Makes a learner a voter of all logs, as each copy has caught up.
    ///
    /// # Errors
    /// As `add_learner`; a node that was not added; a copy that does not catch up in time; a voter that is not reached, or
    /// that lost the data that it was added with.
    pub async fn promote(&self, node: NodeId) -> Result<(), AdminError> {
        let promote = AdminRequest::Promote(node);
        // The system log first: logs that are made from then on have the node among their founders.
        self.node.on_leader(LogId::SYSTEM, &promote).await?;
        for log in self.other_logs().await? {
            let members = self.node.system().map(|system| system.replicas()).unwrap_or_default();
            let member = members.into_iter().find(|member| member.id.node == node);
            match (self.node.on_leader(log, &promote).await, member) {
                // The log was made while the node was a learner.
                (Err(AdminError::Invalid { .. }), Some(member)) => {
                    let add = AdminRequest::AddLearner(member);
                    self.of_log(log, &add).await?;
                    self.of_log(log, &promote).await?;
                }
                (Err(_), _) if !self.node.catalog.lists(log) => {}
                (result, _) => drop(result?),
            }
        }
        Ok(())
    }

    /// Removes a node, voter or learner, from all logs. Its data stays on its disk.
    ///
    /// A node that lost its data may come back under its number afterwards: it counts as another member.
    ///
    /// # Errors
    /// As `add_learner`; the only voter; no such member.
    pub async fn remove(&self, node: NodeId) -> Result<(), AdminError> {
        // First it votes no more on the list of logs: logs that are made from then on do not have it, so that those
        // that are listed now are all. The other nodes talk to it until the system log lets it go, at last.
        self.node.on_leader(LogId::SYSTEM, &AdminRequest::Demote(node)).await?;
        let remove = AdminRequest::Remove(node);
        for log in self.other_logs().await? {
            self.of_log(log, &remove).await?;
        }
        self.node.on_leader(LogId::SYSTEM, &remove).await?;
        if node != self.node.config.node_id {
            self.node.peers.forget(node);
        }
        Ok(())
    }

    /// Hands the leadership of every log over to this node.
    ///
    /// # Errors
    /// As `add_learner`; a node that does not vote.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), AdminError> {
        self.each(&AdminRequest::TransferLeadership(to)).await
    }

    /// The members, as the system log on this node has them.
    pub fn members(&self) -> Vec<MemberStatus> {
        self.node.system().map(|system| system.status().members).unwrap_or_default()
    }

    /// All logs but the system log, as of now.
    async fn other_logs(&self) -> Result<Vec<LogId>, AdminError> {
        let deadline = Instant::now() + ADMIN_TIMEOUT;
        let system = self.node.system().ok_or(AdminError::Closed)?;
        let now = self.node.read_index_by(&system, deadline, RETRY_PAUSE).await;
        let now = now.map_err(|error| match error {
            ReadError::Storage(error) => AdminError::Storage(error),
            ReadError::Closed => AdminError::Closed,
            _ => AdminError::Timeout { after: ADMIN_TIMEOUT },
        })?;
        let applied = tokio::time::timeout_at(deadline, system.apply.applied_below(now.index + 1));
        applied.await.map_err(|_| AdminError::Timeout { after: ADMIN_TIMEOUT })?;
        Ok(self.node.catalog.state().logs.values().map(|log| log.id).collect())
    }

    /// The system log first.
    async fn each(&self, request: &AdminRequest) -> Result<(), AdminError> {
        self.node.on_leader(LogId::SYSTEM, request).await?;
        for log in self.other_logs().await? {
            self.of_log(log, request).await?;
        }
        Ok(())
    }

    /// Has it done for a log, unless that is deleted meanwhile.
    async fn of_log(&self, log: LogId, request: &AdminRequest) -> Result<(), AdminError> {
        match self.node.on_leader(log, request).await {
            Err(_) if !self.node.catalog.lists(log) => Ok(()),
            result => result.map(drop),
        }
    }
}
