//! What a group says about itself.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::Fatal;
use openraft::metrics::RaftServerMetrics;

use super::ballot::Ballots;
use super::group::{Group, RaftHandle};
use super::losses::Losses;
use super::runtime::Crash;
use super::types::Types;
use crate::member::{MemberStatus, ReplicaId, Role, Status};
use crate::record::LogName;

/// Tells changes of role, term, leader and membership.
pub(crate) struct RoleWatch(openraft::alias::WatchReceiverOf<Types, RaftServerMetrics<Types>>);

impl RoleWatch {
    pub(super) fn new(raft: &RaftHandle) -> Self {
        Self(raft.server_metrics())
    }

    /// Waits for a change. False once the group has stopped.
    pub(crate) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// What tells of this node's elections.
pub(super) struct Elections {
    pub(super) own: ReplicaId,
    pub(super) ballots: Arc<Ballots>,
    pub(super) losses: Arc<Losses>,
}

impl Elections {
    /// Tells whether records may be lost by the election of a leader.
    fn note(&self, log: &LogName, leader: ReplicaId, term: u64) {
        if leader == self.own && self.ballots.needed_suspects(term) {
            self.losses.elected_by_suspects();
            tracing::error!(
                %log, term,
                "too many nodes have lost unflushed records at once: this one leads with what is left, and records \
                 that were acknowledged shortly before may be lost"
            );
        }
    }
}

/// Logs each change of the leader until the group stops; stops it if one of its tasks has panicked.
pub(super) async fn watch_over(
    log: LogName,
    raft: RaftHandle,
    crash: Arc<Crash>,
    elections: Elections,
) {
    let mut watch = RoleWatch::new(&raft);
    let mut known = None;
    loop {
        let (leader, term) = {
            let server = watch.0.borrow_watched();
            (server.current_leader, server.vote.leader_id.term)
        };
        let now = leader.map(|leader| (leader, term));
        match now {
            Some((leader, term)) if now != known => {
                tracing::info!(%log, %leader, term, "a node leads");
                elections.note(&log, leader, term);
            }
            None if known.is_some() => tracing::info!(%log, term, "no leader is known"),
            _ => {}
        }
        known = now;
        tokio::select! {
            biased;
            () = crash.noted() => {
                let reason = crash.reason().unwrap_or_default();
                tracing::error!(%log, reason, "the log has stopped on this node");
                // An error means that the core has stopped already.
                let _ = raft.shutdown().await;
                return;
            }
            goes_on = watch.changed() => if !goes_on { break },
        }
    }
    if let Err(fatal) = &raft.metrics().borrow_watched().running_state
        && !matches!(fatal, Fatal::Stopped)
    {
        tracing::error!(%log, reason = %fatal, "the log has stopped on this node");
        crash.stopped_for_good(fatal.to_string());
    }
}

impl Group {
    pub(crate) fn watch_role(&self) -> RoleWatch {
        RoleWatch::new(&self.raft)
    }

    /// True on a leader that a majority of voters, itself among them, has answered within its lease.
    pub(crate) fn hears_majority(&self) -> bool {
        if self.stop_reason().is_some() {
            return false;
        }
        self.is_answered_within(Duration::from_millis(self.raft.config().election_timeout_max))
    }

    /// The status, with the leader only if it is there as far as this node can know.
    pub(crate) fn status(&self) -> Status {
        self.status_with(|leader, server| self.is_there(leader, server))
    }

    /// The status, with the leader of the newest vote, which may be gone: for those who follow [`RoleWatch`], which tells
    /// of votes only.
    pub(crate) fn status_by_vote(&self) -> Status {
        self.status_with(|_, _| true)
    }

    fn status_with(
        &self,
        is_there: impl FnOnce(ReplicaId, &RaftServerMetrics<Types>) -> bool,
    ) -> Status {
        // Role, term, leader and members come from what `watch_role` watches, so that who is woken by
        // it sees what woke it.
        let server = self.raft.server_metrics().borrow_watched().clone();
        let metrics = self.raft.metrics().borrow_watched().clone();
        let watermarks = self.log.watermarks();
        let membership = server.membership_config.membership();
        let voters: Vec<_> = membership.voter_ids().collect();
        let failure = self.stop_reason();
        let runs = failure.is_none() && metrics.running_state.is_ok();
        // A leader that has stopped knows no more how far the others are.
        let replication = metrics.replication.as_ref().filter(|_| runs);
        let members = membership.nodes().map(|(id, node)| MemberStatus {
            member: node.member(*id),
            voter: voters.contains(id),
            matched: if *id == self.replica {
                replication.map(|_| watermarks.end)
            } else {
                let held = replication.and_then(|nodes| nodes.get(id));
                held.map(|id| id.as_ref().map_or(0, |id| id.index + 1))
            },
        });
        // A group that has stopped knew a leader that is out of date.
        let leader = server.current_leader.filter(|leader| runs && is_there(*leader, &server));
        Status {
            log: self.name.to_string(),
            log_id: self.id.0,
            node_id: self.node(),
            role: role(server.state, runs),
            term: server.vote.leader_id.term,
            leader: leader.and_then(|id| membership.get_node(&id).map(|node| node.member(id))),
            begin: watermarks.begin,
            committed: watermarks.committed,
            end: watermarks.end,
            applied: self.apply.applied_end(),
            members: members.collect(),
            disk_bytes: self.log.disk_bytes(),
            failure: failure
                .or_else(|| metrics.running_state.as_ref().err().map(ToString::to_string))
                .or_else(|| self.unfit.damage().map(ToOwned::to_owned)),
            suspect: self.trust.is_suspect(),
            stable: self.stable_end(),
            suspect_elections: self.losses.elections(),
            rewinds: self.losses.rewinds(),
            lost_records_max: self.losses.records(),
        }
    }
}

fn role(state: ServerState, running: bool) -> Role {
    match state {
        _ if !running => Role::Stopped,
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}
