//! Read barriers (Raft thesis, 6.4): what was committed when asked, once a majority has said since that it still
//! follows this leader. The heartbeats for it are our own: openraft's ReadIndex can rest on a late answer. It takes
//! that to one append for one to all requests with the same last id, those sent since the question among them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use openraft::LinearizerOption;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::group::Group;
use super::messages::{self, Condition};
use super::peers::{Lane, RETRY_PAUSE};
use super::responder::leader_of;
use super::types::{Address, RaftLogId, RaftVote, Types, entry_id};
use crate::error::ReadError;
use crate::format::entry::EntryId;
use crate::member::ReplicaId;
use crate::mutant::Mutant;

/// What the voters say of a leader.
enum Following {
    /// A majority follows it.
    Majority,
    /// Too few of them answered.
    Unknown,
    /// One of them knows of a later vote.
    Superseded,
}

impl Group {
    /// On the leader: the last entry that was committed when asked, confirmed by a majority.
    ///
    /// # Errors
    /// [`ReadError::NotLeader`] on another node, [`ReadError::NoQuorum`] if no majority confirmed it in time.
    pub(crate) async fn read_index(&self, timeout: Duration) -> Result<EntryId, ReadError> {
        if Mutant::ReadIndexSkipped.is_active()
            && let Some(committed) = self.log.committed().filter(|_| self.is_leader())
        {
            return Ok(committed);
        }
        let asked = tokio::time::timeout(timeout, self.confirmed_read_index(timeout)).await;
        asked.unwrap_or(Err(ReadError::NoQuorum { after: timeout }))
    }

    async fn confirmed_read_index(&self, timeout: Duration) -> Result<EntryId, ReadError> {
        let Some(vote) = self.leading_vote() else {
            return Err(ReadError::NotLeader { leader: self.leader() });
        };
        let committed = self.committed_entry(timeout).await?;
        while !Mutant::LateAnswersBelieved.is_active() {
            match self.following(vote, timeout).await {
                Following::Majority => break,
                Following::Unknown if self.leading_vote() == Some(vote) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Following::Superseded | Following::Unknown => {
                    return Err(ReadError::NotLeader { leader: None });
                }
            }
        }
        Ok(committed)
    }

    /// The last entry that is committed, and at least the first entry of this leader's term: before that
    /// is committed it does not know what those before it had committed (Raft paper, section 8). The log does
    /// not know it either: its watermark waits for this node's own flush, and followers are told without that.
    async fn committed_entry(&self, timeout: Duration) -> Result<EntryId, ReadError> {
        let age = Mutant::LateAnswersBelieved.is_active().then_some(Duration::ZERO);
        let option = LinearizerOption::new(age, true).with_wait_timeout(timeout);
        match self.raft.get_read_log_id(option).await {
            Ok((read, _)) => Ok(entry_id(read.log_id())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader { leader: leader_of(&forward) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::NoQuorum { after: timeout })
            }
            Err(RaftError::Fatal(_)) => Err(self.stopped()),
        }
    }

    /// This node's vote, if it leads.
    pub(super) fn leading_vote(&self) -> Option<RaftVote> {
        let server = self.raft.server_metrics().borrow_watched().clone();
        (server.current_leader == Some(self.replica)).then_some(server.vote)
    }

    /// What the voters answer to a heartbeat of this vote that is sent after the call.
    async fn following(&self, vote: RaftVote, limit: Duration) -> Following {
        let server = self.raft.server_metrics().borrow_watched().clone();
        let membership = server.membership_config.membership();
        let configs = membership.get_joint_config();
        let mut asking: FuturesUnordered<_> = membership
            .voter_ids()
            .filter(|id| *id != self.replica)
            .filter_map(|id| Some((id, membership.get_node(&id)?)))
            .map(async |(id, address)| (id, self.heartbeat(vote, None, (id, address), limit).await))
            .collect();
        let mut followed = BTreeSet::from([self.replica]);
        let majority = |followed: &BTreeSet<ReplicaId>| {
            configs.iter().all(|config| config.intersection(followed).count() > config.len() / 2)
        };
        while !majority(&followed) {
            match asking.next().await {
                Some((id, Some(AppendEntriesResponse::Success))) => {
                    followed.insert(id);
                }
                Some((_, Some(AppendEntriesResponse::HigherVote(_)))) => {
                    return Following::Superseded;
                }
                Some(_) => {}
                None => return Following::Unknown,
            }
        }
        Following::Majority
    }

    /// A member's answer to a heartbeat of our own: success if it follows the leader of this vote, and holds `last`.
    pub(super) async fn heartbeat(
        &self,
        vote: RaftVote,
        last: Option<RaftLogId>,
        (to, address): (ReplicaId, &Address),
        limit: Duration,
    ) -> Option<AppendEntriesResponse<Types>> {
        let heartbeat = AppendEntriesRequest {
            vote,
            prev_log_id: last,
            entries: Vec::new(),
            leader_commit: None,
        };
        let link = self.peers.link(to, &address.peer, Lane::Control);
        let answer =
            link.request(messages::encode_append(self.id, heartbeat, None, false), limit).await;
        let answer = answer.ok()?;
        let told = Condition::told(&answer);
        self.unfit.note_peer(to.node, told.unfit);
        self.trust.note_peer(to.node, told.suspect);
        let (reply, _) = messages::decode_append_reply(&answer).ok()?;
        if let AppendEntriesResponse::HigherVote(higher) = &reply
            && *higher > vote
        {
            self.heard_of(higher).await;
        }
        Some(reply)
    }

    /// Has openraft know of a leader that a member follows. A leader that has told its successor to stand sends no
    /// heartbeats any more, so without appends it learns of the next leader only from that one: not at all if the
    /// others cannot reach it.
    async fn heard_of(&self, vote: &RaftVote) {
        if !vote.committed || vote.leader_id.voted_for == self.replica {
            return;
        }
        let heartbeat = AppendEntriesRequest {
            vote: *vote,
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        if let Err(error) = self.raft.append_entries(heartbeat).await {
            tracing::debug!(log = %self.name, %error, "openraft has stopped");
        }
    }
}
