//! Changes of the cluster as a whole: of the system log and every other log.

use std::sync::Arc;

use super::forward::AdminRequest;
use super::inner::NodeInner;
use crate::error::AdminError;
use crate::member::{Member, MemberStatus, NodeId};
use crate::record::LogId;

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
    /// Adds a node that holds copies of all logs and does not vote. Returns when every log's leader has
    /// taken it in; it catches up after.
    ///
    /// # Errors
    /// No leader or no quorum in time, another change under way.
    pub async fn add_learner(&self, member: Member) -> Result<(), AdminError> {
        if member.id == 0 || member.peer_addr.is_empty() {
            let reason = "a member needs an id above 0 and an address".to_owned();
            return Err(AdminError::Invalid { reason });
        }
        self.each(&AdminRequest::AddLearner(member), false).await
    }

    /// Makes a learner a voter of all logs, as each copy has caught up.
    ///
    /// # Errors
    /// As `add_learner`; a node that was not added; a copy that does not catch up in time.
    pub async fn promote(&self, node: NodeId) -> Result<(), AdminError> {
        self.each(&AdminRequest::Promote(node), false).await
    }

    /// Removes a node, voter or learner, from all logs. Its data stays on its disk.
    ///
    /// # Errors
    /// As `add_learner`; the only voter.
    pub async fn remove(&self, node: NodeId) -> Result<(), AdminError> {
        // The system log last: until then the other nodes still talk to the one that leaves.
        self.each(&AdminRequest::Remove(node), true).await?;
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
        self.each(&AdminRequest::TransferLeadership(to), false).await
    }

    /// The members, as the system log on this node has them.
    pub fn members(&self) -> Vec<MemberStatus> {
        self.node.system().map(|system| system.status().members).unwrap_or_default()
    }

    async fn each(&self, request: &AdminRequest, system_last: bool) -> Result<(), AdminError> {
        let mut logs: Vec<LogId> = self.node.groups().iter().map(|group| group.id).collect();
        if logs.is_empty() {
            return Err(AdminError::Closed);
        }
        logs.sort_by_key(|id| (*id == LogId::SYSTEM) == system_last);
        for log in logs {
            self.node.on_leader(log, request).await?;
        }
        Ok(())
    }
}
