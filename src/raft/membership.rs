//! Changes of one log's members. All are for its leader.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::{AppendEntriesResponse, ClientWriteResponse};
use openraft::{ChangeMembers, Membership};

use super::group::Group;
use super::peers::RETRY_PAUSE;
use super::responder::leader_of;
use super::types::{Address, Types, decode_membership, raft_log_id};
use crate::error::AdminError;
use crate::member::{NodeId, Replica, ReplicaId};

/// Entries that a learner may be behind when it is made a voter.
const PROMOTE_LAG_MAX: u64 = 1000;

type Written = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

impl Group {
    /// Adds a copy that does not vote, or changes a member's address. Returns when the change is
    /// committed, which is before the copy has caught up.
    pub(crate) async fn add_learner(
        &self,
        replica: &Replica,
        timeout: Duration,
    ) -> Result<(), AdminError> {
        let node = replica.id.node;
        if self.replicas_of(node).into_iter().any(|held| held != replica.id) {
            let reason = format!(
                "node {node} is a member of {} with another data directory, which is gone; remove it first",
                self.name
            );
            return Err(AdminError::Invalid { reason });
        }
        let adding = self.raft.add_learner(replica.id, Address::from(&replica.member), false);
        self.changed(tokio::time::timeout(timeout, adding).await, timeout)
    }

    /// Makes a learner a voter, once it has caught up.
    pub(crate) async fn promote(&self, node: NodeId, timeout: Duration) -> Result<(), AdminError> {
        let settled = self.settled(timeout).await?;
        if settled.get_joint_config().len() == 1 && settled.voter_ids().any(|id| id.node == node) {
            return Ok(());
        }
        let replica = self.caught_up(node, timeout).await?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([replica]));
        self.change(change, true, timeout).await
    }

    /// Sets the voters. Voters that are not among them stay as learners.
    pub(crate) async fn change_voters(
        &self,
        voters: BTreeSet<NodeId>,
        timeout: Duration,
    ) -> Result<(), AdminError> {
        if voters.is_empty() {
            return Err(AdminError::Invalid { reason: "a log needs a voter".to_owned() });
        }
        let member = |node| self.replicas_of(node).pop_first().ok_or_else(|| self.no_member(node));
        let voters: BTreeSet<ReplicaId> =
            voters.into_iter().map(member).collect::<Result<_, _>>()?;
        self.change(ChangeMembers::ReplaceAllVoters(voters), true, timeout).await
    }

    /// Makes a voter a learner.
    pub(crate) async fn demote(&self, node: NodeId, timeout: Duration) -> Result<(), AdminError> {
        let settled = self.settled(timeout).await?;
        if settled.get_joint_config().len() == 1 && !settled.voter_ids().any(|id| id.node == node) {
            return Ok(());
        }
        self.not_the_only_voter(node)?;
        let change = ChangeMembers::RemoveVoters(self.replicas_of(node));
        self.change(change, true, timeout).await
    }

    /// Removes a voter or learner.
    pub(crate) async fn remove(&self, node: NodeId, timeout: Duration) -> Result<(), AdminError> {
        let settled = self.settled(timeout).await?;
        if settled.get_joint_config().len() == 1 && !settled.nodes().any(|(id, _)| id.node == node)
        {
            return Ok(());
        }
        self.not_the_only_voter(node)?;
        let replicas = self.replicas_of(node);
        let change = if self.voters().is_disjoint(&replicas) {
            ChangeMembers::RemoveNodes(replicas)
        } else {
            ChangeMembers::RemoveVoters(replicas)
        };
        self.change(change, false, timeout).await
    }

    fn not_the_only_voter(&self, node: NodeId) -> Result<(), AdminError> {
        let voters = self.voters();
        if voters.len() == 1 && voters.iter().any(|id| id.node == node) {
            let reason = format!("node {node} is the only voter of {}", self.name);
            return Err(AdminError::Invalid { reason });
        }
        Ok(())
    }

    /// Hands leadership to another voter. Returns when it leads.
    pub(crate) async fn transfer_leadership(
        &self,
        to: NodeId,
        timeout: Duration,
    ) -> Result<(), AdminError> {
        if !self.is_leader() {
            return Err(AdminError::NotLeader { leader: self.leader() });
        }
        if to == self.node() {
            return Ok(());
        }
        let Some(to) = self.voters().into_iter().find(|id| id.node == to) else {
            let reason = format!("node {to} is no voter of {}", self.name);
            return Err(AdminError::Invalid { reason });
        };
        let handed = tokio::time::timeout(timeout, self.hand_over(to, timeout)).await;
        handed.unwrap_or(Err(AdminError::Timeout { after: timeout }))
    }

    /// openraft tells the successor once, and from then on this node leads no more: a successor that does not
    /// hear of it, lacks something, or has not heard from this leader since it started does not stand for election,
    /// and the log has no leader until an election timeout has passed. So all that is seen to first. Appends
    /// are refused meanwhile, for an election timeout at most; if that was not enough, they are taken again
    /// until the next attempt.
    async fn hand_over(&self, to: ReplicaId, timeout: Duration) -> Result<(), AdminError> {
        let Some(term) = self.led_term() else {
            return Err(AdminError::NotLeader { leader: self.leader() });
        };
        let pause = self.timing.election_timeout_max;
        loop {
            self.caught_up(to.node, timeout).await?;
            while self.holds_all(to).await.is_none() {
                self.still_leads(term)?;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            if self.damage.is_of(to.node) {
                let reason =
                    format!("the copy of node {} is damaged, so it does not lead", to.node);
                return Err(AdminError::Invalid { reason });
            }
            let sent_on = self.send_appends_to(to.node);
            let attempt = tokio::time::timeout(pause, self.hand_over_all(to, term)).await;
            drop(sent_on);
            match attempt {
                Ok(handed) => return handed,
                Err(_) => self.still_leads(term)?,
            }
        }
    }

    /// Hands over once the successor holds everything and says so.
    async fn hand_over_all(&self, to: ReplicaId, term: u64) -> Result<(), AdminError> {
        self.inflight.drained().await;
        let stopped = || self.log.failure().map_or(AdminError::Closed, AdminError::Storage);
        let wait = self.raft.wait(None);
        let all_there = wait.metrics(
            |now| {
                let Some(followers) = &now.replication else { return true };
                let held = followers.get(&to).and_then(|id| id.as_ref()).map(|id| id.index);
                held == now.last_log_index
            },
            "the successor to hold everything",
        );
        all_there.await.map_err(|_| stopped())?;
        while self.holds_all(to).await != Some(AppendEntriesResponse::Success) {
            self.still_leads(term)?;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        self.raft.trigger().transfer_leader(to).await.map_err(|_| stopped())?;
        let next = wait.metrics(
            |now| now.vote.leader_id.term > term && now.current_leader.is_some(),
            "the next leader",
        );
        match next.await.map_err(|_| stopped())?.current_leader {
            Some(leader) if leader == to => Ok(()),
            // Another node was elected, or this one again.
            _ => Err(AdminError::NotLeader { leader: self.leader() }),
        }
    }

    /// The term that this node leads, if it leads.
    fn led_term(&self) -> Option<u64> {
        self.leading_vote().map(|vote| vote.leader_id.term)
    }

    fn still_leads(&self, term: u64) -> Result<(), AdminError> {
        match self.led_term() {
            Some(led) if led == term => Ok(()),
            _ => Err(AdminError::NotLeader { leader: self.leader() }),
        }
    }

    /// A node's answer to a heartbeat of our own: success if it follows this leader and holds, flushed, all that it
    /// does. What openraft knows of a node may be from before that node's last restart.
    async fn holds_all(&self, to: ReplicaId) -> Option<AppendEntriesResponse<Types>> {
        let server = self.raft.server_metrics().borrow_watched().clone();
        let last = self.log.last_id();
        // Not what a leader after this one has written here meanwhile.
        let ours = last.is_none_or(|last| last.term <= server.vote.leader_id.term);
        if server.current_leader != Some(self.replica) || !ours {
            return None;
        }
        let address = server.membership_config.membership().get_node(&to)?;
        let limit = self.timing.election_timeout_min;
        self.heartbeat(server.vote, last.map(raft_log_id), (to, address), limit).await
    }

    /// Members in force.
    pub(crate) fn replicas(&self) -> Vec<Replica> {
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        membership.nodes().map(|(id, node)| node.replica(*id)).collect()
    }

    /// The member of this number, if there is one.
    fn replicas_of(&self, node: NodeId) -> BTreeSet<ReplicaId> {
        let ids = self.replicas().into_iter().map(|replica| replica.id);
        ids.filter(|id| id.node == node).collect()
    }

    fn no_member(&self, node: NodeId) -> AdminError {
        let reason = format!("node {node} is no member of {}; add it first", self.name);
        AdminError::Invalid { reason }
    }

    /// The voters as of the index, old and new ones while they change. None if the log does not reach back that far
    /// any more, or is empty.
    pub(crate) fn voters_at(&self, index: u64) -> Option<BTreeSet<ReplicaId>> {
        let held = self.log.membership_at(index)?;
        // Looked at last: the boundary only moves up.
        if self.log.purged().is_some_and(|boundary| boundary.index > index) {
            return None;
        }
        Some(decode_membership(&held.payload).ok()?.voter_ids().collect())
    }

    /// The members, once the last change of them is committed. It may be a joint one, whose leader was lost before
    /// it could finish it: then the next change does.
    ///
    /// Until then nothing is done: a removed node's data may be needed, and an added one does not count for sure.
    async fn settled(
        &self,
        timeout: Duration,
    ) -> Result<Membership<ReplicaId, Address>, AdminError> {
        let wait = self.raft.wait(Some(timeout));
        let settled = wait.metrics(
            |now| {
                let leads = now.current_leader == Some(self.replica);
                !leads || now.membership_config.log_id() == now.committed_membership_config.log_id()
            },
            "the last change of members",
        );
        let now = settled.await.map_err(|_| AdminError::Timeout { after: timeout })?;
        if now.current_leader == Some(self.replica) {
            Ok(now.membership_config.membership().clone())
        } else {
            Err(AdminError::NotLeader { leader: self.leader() })
        }
    }

    async fn change(
        &self,
        change: ChangeMembers<ReplicaId, Address>,
        retain: bool,
        timeout: Duration,
    ) -> Result<(), AdminError> {
        let changing = self.raft.change_membership(change, retain);
        self.changed(tokio::time::timeout(timeout, changing).await, timeout)
    }

    fn changed(
        &self,
        written: Result<Written, tokio::time::error::Elapsed>,
        timeout: Duration,
    ) -> Result<(), AdminError> {
        match written {
            Err(_) => Err(AdminError::Timeout { after: timeout }),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(error))) => Err(match error {
                ClientWriteError::ForwardToLeader(forward) => {
                    AdminError::NotLeader { leader: leader_of(&forward) }
                }
                ClientWriteError::ChangeMembershipError(error) => invalid(&error),
                other => AdminError::Invalid { reason: other.to_string() },
            }),
            Ok(Err(RaftError::Fatal(_))) => {
                Err(self.log.failure().map_or(AdminError::Closed, AdminError::Storage))
            }
        }
    }

    /// Waits until the member `node` holds nearly everything that this leader does.
    async fn caught_up(&self, node: NodeId, timeout: Duration) -> Result<ReplicaId, AdminError> {
        let replica = self.replicas_of(node).pop_first().ok_or_else(|| self.no_member(node))?;
        let wait = self.raft.wait(Some(timeout));
        let close = wait.metrics(
            |now| {
                let Some(followers) = &now.replication else { return true };
                let held =
                    followers.get(&replica).and_then(|id| id.as_ref()).map(|id| id.index + 1);
                let end = now.last_log_index.map_or(0, |index| index + 1);
                held.is_some_and(|held| held + PROMOTE_LAG_MAX >= end)
            },
            "a member to catch up",
        );
        match close.await {
            Ok(now) if now.replication.is_some() => Ok(replica),
            Ok(_) => Err(AdminError::NotLeader { leader: self.leader() }),
            Err(_) => Err(AdminError::Timeout { after: timeout }),
        }
    }
}

fn invalid<C, N>(error: &ChangeMembershipError<C, N>) -> AdminError
where
    C: openraft::vote::RaftCommittedLeaderId,
    N: openraft::NodeId,
{
    AdminError::Invalid { reason: error.to_string() }
}
