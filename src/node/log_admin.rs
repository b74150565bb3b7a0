//! Administrative calls for one log.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::inner::{ADMIN_TIMEOUT, NodeInner};
use super::log_place::LogPlace;
use crate::error::AdminError;
use crate::member::{Member, NodeId};

/// Administrative calls for one log alone. Use [`ClusterAdmin`](crate::ClusterAdmin) for all logs of a cluster.
///
/// Changes of members and leadership are for the log's leader, and fail with
/// [`AdminError::NotLeader`] elsewhere. A call that is dropped or times out may still take effect.
#[derive(Clone)]
pub struct LogAdmin {
    pub(super) node: Arc<NodeInner>,
    pub(super) place: Arc<LogPlace>,
}

impl std::fmt::Debug for LogAdmin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogAdmin").field("log", &self.place.name).finish_non_exhaustive()
    }
}

impl LogAdmin {
    /// Adds a copy that does not vote, on a node that is running. Returns when the change is committed; the copy
    /// catches up after.
    ///
    /// # Errors
    /// The node is not reached, or is a member still with the data that it had before; not the leader, another change under way, no quorum in time.
    pub async fn add_learner(&self, member: Member) -> Result<(), AdminError> {
        let replica = self.node.identify(member, Instant::now() + ADMIN_TIMEOUT).await?;
        self.place.group().add_learner(&replica, ADMIN_TIMEOUT).await
    }

    /// Sets the voters; all must be members. Voters that are not named stay as learners.
    ///
    /// # Errors
    /// As `add_learner`, and a voter that is no member.
    pub async fn change_voters(
        &self,
        voters: impl IntoIterator<Item = NodeId>,
    ) -> Result<(), AdminError> {
        let voters: BTreeSet<NodeId> = voters.into_iter().collect();
        self.place.group().change_voters(voters, ADMIN_TIMEOUT).await
    }

    /// Removes a voter or learner.
    ///
    /// # Errors
    /// As `add_learner`, and the only voter.
    pub async fn remove(&self, node: NodeId) -> Result<(), AdminError> {
        self.place.group().remove(node, ADMIN_TIMEOUT).await
    }

    /// Hands leadership to another voter. Returns when it leads. This node leads on until the other one is reached
    /// and holds everything; appends are sent there from the start.
    ///
    /// # Errors
    /// Not the leader, or another node became it meanwhile; no voter; not done in time.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), AdminError> {
        self.place.group().transfer_leadership(to, ADMIN_TIMEOUT).await
    }

    /// Drops records below `before` on this node, as far as whole segments (and, with a state machine,
    /// checkpoints) allow; returns the begin after it. Other nodes keep theirs.
    ///
    /// # Errors
    /// Not done in time, or storage.
    pub async fn trim(&self, before: u64) -> Result<u64, AdminError> {
        let group = self.place.group();
        let moved = group.trim(before, ADMIN_TIMEOUT).await?;
        Ok(moved.unwrap_or_else(|| group.log.watermarks().begin))
    }

    /// Saves the state machine's state now, on this node; durable on return. Returns one past the
    /// last record in it.
    ///
    /// # Errors
    /// No state machine, a batch that is not whole yet, or storage.
    pub async fn checkpoint(&self) -> Result<u64, AdminError> {
        self.place.group().checkpoint().await
    }

    /// The node that this handle works on.
    pub fn node_id(&self) -> NodeId {
        self.node.config.node_id
    }
}
