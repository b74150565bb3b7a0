//! Changes of one log's members. All are for its leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::{ClientWriteResponse, Precondition};
use openraft::{ChangeMembers, Membership};
use tokio::time::Instant;

use super::failing::{Cause, Failing};
use super::group::Group;
use super::peers::Lane;
use super::responder::leader_of;
use super::types::{Address, RaftLogId, Types, decode_membership};
use crate::error::AdminError;
use crate::member::{NodeId, Replica, ReplicaId};
use crate::mutant::Mutant;

/// Entries that a learner may be behind when it is made a voter.
const PROMOTE_LAG_MAX: u64 = 1000;

/// How long a change waits that is known not to come to an end as things are.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at what is missing.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// Members whose last change is committed.
pub(super) struct Settled {
    /// Of the change.
    id: Option<RaftLogId>,
    pub(super) members: Membership<ReplicaId, Address>,
}

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
        let addr = Address::from(&replica.member);
        let settled = self.settled(timeout).await?;
        let addresses = BTreeMap::from([(replica.id, addr)]);
        match settled.members.get_node(&replica.id) {
            Some(held) if *held == addresses[&replica.id] => Ok(()),
            Some(_) => self.set_addresses(settled, addresses, timeout).await,
            None => {
                let change = ChangeMembers::AddNodes(addresses);
                self.change(settled, change, true, timeout).await
            }
        }
    }

    /// Whether this node may vote for a candidate. Not for one that it cannot reach: requests to this node that need
    /// the leader would fail.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn may_be_led_by(&self, candidate: ReplicaId) -> Result<(), String> {
        let limit = self.timing.election_timeout_max * 2;
        let unreached = self.peers.contacts.unreached_for(candidate);
        if unreached.is_none_or(|lasts| lasts < limit) || Mutant::UnreachedElected.is_active() {
            return Ok(());
        }
        self.peers.look_for(candidate);
        Err(format!("this node has not reached node {} for {unreached:?}", candidate.node))
    }

    /// Which voters are missing for a majority, if they are; known from who is reached.
    pub(crate) fn missing_voters(&self) -> Option<String> {
        let server = self.raft.server_metrics().borrow_watched().clone();
        let membership = server.membership_config.membership();
        for config in membership.get_joint_config() {
            let failing: Vec<_> = config
                .iter()
                .filter_map(|id| Some((id.node, self.peers.contacts.failing(*id)?)))
                .collect();
            if config.len() - failing.len() > config.len() / 2 {
                continue;
            }
            let missing: Vec<String> =
                failing.into_iter().map(|(node, failing)| failing.describe(node)).collect();
            let needed = config.len() / 2 + 1;
            let all = config.len();
            return Some(format!(
                "{} needs {needed} of {all} voters, and does not have {}",
                self.name,
                missing.join(", nor ")
            ));
        }
        None
    }

    /// Why one member cannot do what is asked of it, if that is known.
    fn trouble_with(&self, id: ReplicaId) -> Option<AdminError> {
        let failing = self.peers.contacts.failing(id)?;
        let reason = failing.describe(id.node);
        Some(match failing.cause {
            Cause::LostData => AdminError::Invalid { reason },
            Cause::Unreachable | Cause::OtherVersion | Cause::RefusesThis => {
                AdminError::Unreachable { detail: reason }
            }
        })
    }

    /// Waits for `work`, up to `timeout`; not as long if it is known that it cannot come to an end.
    async fn attempted<T>(
        &self,
        work: impl Future<Output = T>,
        timeout: Duration,
    ) -> Result<T, AdminError> {
        let begun = Instant::now();
        let mut work = std::pin::pin!(work);
        loop {
            let left = timeout.saturating_sub(begun.elapsed());
            if let Ok(done) = tokio::time::timeout(left.min(LOOK_PAUSE), &mut work).await {
                return Ok(done);
            }
            let after = begun.elapsed();
            let missing = self.missing_voters().filter(|_| after >= PATIENCE || left.is_zero());
            match missing {
                Some(reason) => return Err(AdminError::Blocked { after, reason }),
                None if left.is_zero() => return Err(AdminError::Timeout { after: timeout }),
                None => {}
            }
        }
    }

    /// Makes a learner a voter, once it has caught up.
    pub(crate) async fn promote(&self, node: NodeId, timeout: Duration) -> Result<(), AdminError> {
        let Settled { members, .. } = self.settled(timeout).await?;
        let voter = members.voter_ids().find(|id| id.node == node);
        if let Some(voter) = voter.filter(|_| members.get_joint_config().len() == 1) {
            return self.counts(voter, &members).await;
        }
        let replica = self.caught_up(node, timeout).await?;
        let settled = self.settled(timeout).await?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([replica]));
        self.change(settled, change, true, timeout).await
    }

    /// Whether a voter does its part: it is reached, with the data that it was added with.
    async fn counts(
        &self,
        voter: ReplicaId,
        members: &Membership<ReplicaId, Address>,
    ) -> Result<(), AdminError> {
        let Some(addr) = members.get_node(&voter).filter(|_| voter != self.replica) else {
            return Ok(());
        };
        let link = self.peers.link(voter, &addr.peer, Lane::Control);
        let Err(error) = link.connect().await else { return Ok(()) };
        let unreached = AdminError::Unreachable { detail: error.to_string() };
        Err(self.trouble_with(voter).unwrap_or(unreached))
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
        let settled = self.settled(timeout).await?;
        self.change(settled, ChangeMembers::ReplaceAllVoters(voters), true, timeout).await
    }

    /// Makes a voter a learner. A learner stays one.
    ///
    /// # Errors
    /// As the other changes; no such member.
    pub(crate) async fn demote(&self, node: NodeId, timeout: Duration) -> Result<(), AdminError> {
        let settled = self.settled(timeout).await?;
        let members = &settled.members;
        if !members.nodes().any(|(id, _)| id.node == node) && !Mutant::StrangerRemoved.is_active() {
            let reason = format!("node {node} is no member of {}; nothing was changed", self.name);
            return Err(AdminError::Invalid { reason });
        }
        if members.get_joint_config().len() == 1 && !members.voter_ids().any(|id| id.node == node) {
            return Ok(());
        }
        self.not_the_only_voter(node)?;
        let change = ChangeMembers::RemoveVoters(self.replicas_of(node));
        self.change(settled, change, true, timeout).await
    }

    /// Removes a voter or learner.
    pub(crate) async fn remove(&self, node: NodeId, timeout: Duration) -> Result<(), AdminError> {
        let settled = self.settled(timeout).await?;
        let members = &settled.members;
        if members.get_joint_config().len() == 1 && !members.nodes().any(|(id, _)| id.node == node)
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
        self.change(settled, change, false, timeout).await
    }

    fn not_the_only_voter(&self, node: NodeId) -> Result<(), AdminError> {
        let voters = self.voters();
        if voters.len() == 1 && voters.iter().any(|id| id.node == node) {
            let reason = format!("node {node} is the only voter of {}", self.name);
            return Err(AdminError::Invalid { reason });
        }
        Ok(())
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

    /// True on a leader that a majority hears, if `replica` is surely no member: no change of members is under way.
    pub(super) fn is_without(&self, replica: ReplicaId) -> bool {
        let now = self.raft.metrics().borrow_watched().clone();
        let settled = now.membership_config.log_id() == now.committed_membership_config.log_id();
        let leads = now.current_leader == Some(self.replica) && self.hears_majority();
        leads && settled && now.membership_config.membership().get_node(&replica).is_none()
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
    ///
    /// # Errors
    /// This node does not lead, or only until its own removal has come to an end.
    pub(super) async fn settled(&self, timeout: Duration) -> Result<Settled, AdminError> {
        let wait = self.raft.wait(None);
        let settled = wait.metrics(
            |now| {
                let leads = now.current_leader == Some(self.replica);
                !leads || now.membership_config.log_id() == now.committed_membership_config.log_id()
            },
            "the last change of members",
        );
        let now = self.attempted(settled, timeout).await?.map_err(|_| self.stopped_change())?;
        let membership = now.membership_config.membership();
        // openraft leaves a leader that was removed in its place for a moment. Its next change would be of a cluster
        // that it does not belong to.
        let belongs = membership.get_node(&self.replica).is_some()
            || Mutant::RemovedLeaderChangesMembers.is_active();
        if now.current_leader == Some(self.replica) && belongs {
            Ok(Settled { id: *now.membership_config.log_id(), members: membership.clone() })
        } else {
            Err(AdminError::NotLeader { leader: self.leader().filter(|_| belongs) })
        }
    }

    /// Changes the members, provided that they are still as they were when the change was decided.
    pub(super) async fn change(
        &self,
        settled: Settled,
        change: ChangeMembers<ReplicaId, Address>,
        retain: bool,
        timeout: Duration,
    ) -> Result<(), AdminError> {
        let unchanged = Precondition::LastMembershipLogId { last_membership_log_id: settled.id };
        let changing = self.raft.change_membership_if(change, retain, [unchanged]);
        self.changed(self.attempted(changing, timeout).await)
    }

    fn changed(&self, written: Result<Written, AdminError>) -> Result<(), AdminError> {
        match written? {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(error)) => Err(match error {
                ClientWriteError::ForwardToLeader(forward) => {
                    AdminError::NotLeader { leader: leader_of(&forward) }
                }
                // Another change came first. All changes can be asked for again.
                ClientWriteError::PreconditionFailed(_) => {
                    AdminError::NotLeader { leader: self.leader() }
                }
                ClientWriteError::ChangeMembershipError(error) => invalid(&error),
                other => AdminError::Invalid { reason: other.to_string() },
            }),
            Err(RaftError::Fatal(_)) => Err(self.stopped_change()),
        }
    }

    fn stopped_change(&self) -> AdminError {
        self.log.failure().map_or(AdminError::Closed, AdminError::Storage)
    }

    /// Waits until the member `node` holds nearly everything that this leader does.
    pub(super) async fn caught_up(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<ReplicaId, AdminError> {
        let replica = self.replicas_of(node).pop_first().ok_or_else(|| self.no_member(node))?;
        let wait = self.raft.wait(None);
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
        let hopeless = async {
            let lost = |failing: &Failing| failing.cause == Cause::LostData;
            while !self.peers.contacts.failing(replica).as_ref().is_some_and(lost) {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        };
        let caught_up = tokio::select! {
            caught_up = tokio::time::timeout(timeout, close) => caught_up,
            () = hopeless => return Err(self.trouble_with(replica).unwrap_or_else(|| self.no_member(node))),
        };
        match caught_up {
            Ok(Ok(now)) if now.replication.is_some() => Ok(replica),
            Ok(Ok(_)) => Err(AdminError::NotLeader { leader: self.leader() }),
            Ok(Err(_)) => Err(self.stopped_change()),
            Err(_) => {
                let timed_out = AdminError::Timeout { after: timeout };
                Err(self.trouble_with(replica).unwrap_or(timed_out))
            }
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
