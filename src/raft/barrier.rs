//! Asks a majority whether it still follows this leader. openraft's own answer can rest on an answer that came late: it
//! takes that to one append for one to all requests with the same last id.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::group::Group;
use super::messages;
use super::peers::Lane;
use super::types::{Address, RaftLogId, RaftVote, Types};
use crate::member::ReplicaId;

impl Group {
    /// This node's vote, if it leads.
    pub(super) fn leading_vote(&self) -> Option<RaftVote> {
        let server = self.raft.server_metrics().borrow_watched().clone();
        (server.current_leader == Some(self.replica)).then_some(server.vote)
    }

    /// True once a majority of the voters has answered to a heartbeat of this vote that was sent after the call.
    pub(super) async fn is_followed(&self, vote: RaftVote, limit: Duration) -> bool {
        let server = self.raft.server_metrics().borrow_watched().clone();
        let membership = server.membership_config.membership();
        let configs = membership.get_joint_config();
        let mut asking: FuturesUnordered<_> = membership
            .voter_ids()
            .filter(|id| *id != self.replica)
            .filter_map(|id| Some((id, membership.get_node(&id)?)))
            .map(|(id, address)| async move {
                let answer = self.heartbeat(vote, None, (id, address), limit).await?;
                matches!(answer, AppendEntriesResponse::Success).then_some(id)
            })
            .collect();
        let mut followed = BTreeSet::from([self.replica]);
        let majority = |followed: &BTreeSet<ReplicaId>| {
            configs.iter().all(|config| config.intersection(followed).count() > config.len() / 2)
        };
        while !majority(&followed) {
            match asking.next().await {
                Some(id) => followed.extend(id),
                None => return false,
            }
        }
        true
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
        let answer = link.request(messages::encode_append(self.id, heartbeat), limit).await;
        messages::decode_append_reply(&answer.ok()?).ok()
    }
}
