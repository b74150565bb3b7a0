//! Handing a log's leadership to another voter.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::AppendEntriesResponse;

use super::group::Group;
use super::peers::RETRY_PAUSE;
use super::types::{Types, raft_log_id};
use crate::error::AdminError;
use crate::member::{NodeId, ReplicaId};

impl Group {
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
            if self.unfit.is_of(to.node) {
                let reason = format!(
                    "node {} does not lead this log: its copy is damaged, or another log has stopped there",
                    to.node
                );
                return Err(AdminError::Invalid { reason });
            }
            if self.trust.is_of(to.node) {
                let reason =
                    format!("the copy of node {} may lack records, so it does not lead", to.node);
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
}
