//! How a log that may have lost what it had acknowledged is trusted again.
//!
//! It asks the leader where that one's log ends: not how far it is committed, since an acknowledgement of before may be
//! counted yet. What this node acknowledged lies below the end of any leader that its durable vote allows. Once it holds
//! that very entry, it holds all that it had acknowledged and that counts.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::group::Group;
use super::messages;
use super::peers::{Lane, RETRY_PAUSE};
use super::types::stored_vote;
use crate::error::with_sources;
use crate::format::entry::EntryId;
use crate::member::{Replica, ReplicaId};
use crate::mutant::Mutant;

/// How long to wait before the node tries again to note that a log is whole.
const NOTE_PAUSE: Duration = Duration::from_secs(1);

/// Where a leader's log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Term that it leads.
    term: u64,
    /// Its last entry.
    pub(crate) last: Option<EntryId>,
}

impl Group {
    /// Where this node's log ends, if it leads.
    pub(crate) fn position(&self) -> Option<Position> {
        // Together: the vote of the next leader comes before what that one does to the log.
        let (vote, last) = self.log.vote_and_last();
        let vote = vote.filter(|vote| vote.committed)?;
        // A vote for this node may be of an earlier process.
        let leads = self.leading_vote().is_some_and(|led| stored_vote(&led) == vote);
        let last = match Mutant::TrustedAtCommitted.is_active() {
            true => self.log.committed(),
            false => last,
        };
        leads.then_some(Position { term: vote.term, last })
    }

    /// Has the node ask until it is trusted, or stops.
    pub(super) async fn recover(self: Arc<Self>) {
        tracing::warn!(log = %self.name, "this node may have lost unflushed records: it asks the leader for them");
        // The log may fail while this goes on, and lose something else.
        let as_of = self.data.suspicion(self.id);
        while !self.is_whole().await {
            if self.is_closed() || self.stop_reason().is_some() {
                return;
            }
            // paced: what it waits for are several things, none of which can be waited for.
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        let mut warned = false;
        while !self.is_closed() && self.stop_reason().is_none() {
            let stored = self.saver.run({
                let (dir, id) = (self.data.clone(), self.id);
                move |_| dir.trust(id, as_of)
            });
            match stored.await {
                Some(Ok(true)) => {
                    self.trust.restore();
                    let end = self.log.watermarks().end;
                    tracing::info!(log = %self.name, end, "this node holds again what it may have lost");
                    return;
                }
                // A full disk, for instance. Until it has space the log stays suspect, and the others go on.
                Some(Err(error)) if !warned => {
                    warned = true;
                    tracing::error!(log = %self.name, error = %with_sources(&error), "cannot note that the log is whole again");
                }
                Some(Err(_)) => {}
                Some(Ok(false)) | None => return,
            }
            // paced: nobody is told when the disk takes files again.
            tokio::time::sleep(NOTE_PAUSE).await;
        }
    }

    /// True once this node holds all that it may have lost. False: ask again.
    async fn is_whole(&self) -> bool {
        let Some(leader) = self.leading() else { return false };
        if leader.id == self.replica {
            // Whoever is elected has the history, as far as there still is one.
            return true;
        }
        let Some(position) = self.position_of(&leader).await else { return false };
        let Some(last) = position.last else { return true };
        while position.is_of(leader.id, self.leading().map(|now| now.id), self.voted_term())
            && !self.is_closed()
        {
            if self.log.holds(last) {
                return true;
            }
            // paced: nobody is told of each entry.
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        false
    }

    /// Where a leader's log ends, if it leads and this node has not voted since.
    async fn position_of(&self, leader: &Replica) -> Option<Position> {
        let frame = messages::frame(messages::POSITION, self.id, &());
        let link = self.peers.link(leader.id, &leader.member.peer_addr, Lane::Control);
        let answer = link.request(frame, self.timing.election_timeout_max).await.ok()?;
        let position: Position = messages::accepted(&answer).ok()?;
        (position.term >= self.voted_term()).then_some(position)
    }

    fn voted_term(&self) -> u64 {
        self.log.vote().map_or(0, |vote| vote.term)
    }
}

impl Position {
    /// True while it is where the log of the leader ends that told it, `leader`. The same node may lead again in a later
    /// term, after it lost what was at the end of its log: then that entry never comes.
    fn is_of(&self, leader: ReplicaId, leading: Option<ReplicaId>, voted_term: u64) -> bool {
        let same_term = voted_term <= self.term || Mutant::EarlierPositionAwaited.is_active();
        leading == Some(leader) && same_term
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_leaders_log_ended_counts_in_its_term_only() {
        let replica = |node| ReplicaId { node, incarnation: 1 };
        let position = Position { term: 3, last: None };
        assert!(position.is_of(replica(2), Some(replica(2)), 3));
        assert!(!position.is_of(replica(2), Some(replica(2)), 4), "it leads again");
        assert!(!position.is_of(replica(2), Some(replica(1)), 3));
        assert!(!position.is_of(replica(2), None, 3));
    }
}
