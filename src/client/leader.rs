//! Which node leads a log. All nodes are asked at once, and once for all calls that want to know.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout_at};

use super::cluster::{Cluster, NodeLink};
use super::routing::ANSWER_PATIENCE;
use crate::member::{Member, Role};
use crate::record::LogId;
use crate::wire::client_protocol::{Request, Response};

/// Once a node has answered, how long to wait for the others.
const STRAGGLER_PATIENCE: Duration = Duration::from_millis(100);
/// Pause between two searches for a leader that is yet to be elected.
const SEARCH_PAUSE: Duration = Duration::from_millis(25);
/// Searches in a row, before the nodes are asked to do what was wanted and say why they do not.
const SEARCHES: u32 = 40;

impl Cluster {
    /// The log's leader as far as any node knows.
    pub(super) async fn find_leader(&self, log: LogId, deadline: Instant) -> Option<NodeLink> {
        if let Some(known) = self.leader(log) {
            return Some(known);
        }
        let before = self.searches.finished();
        let Ok(turn) = timeout_at(deadline, self.searches.turn()).await else { return None };
        // Another call's search may have ended since, and need not be repeated.
        if self.leader(log).is_none() && self.searches.finished() == before {
            self.search(log, deadline).await;
            self.searches.finish(turn);
        }
        self.leader(log)
    }

    /// Waits for a leader to send a change to, so that meanwhile the change is not sent to everybody
    /// again and again. Returns without one in the end.
    pub(super) async fn await_leader(&self, log: LogId, deadline: Instant) {
        for _ in 0..SEARCHES {
            let found = self.find_leader(log, deadline).await.is_some();
            if found || Instant::now() + SEARCH_PAUSE >= deadline {
                return;
            }
            sleep(SEARCH_PAUSE).await;
        }
    }

    /// The node did not do as a leader does.
    pub(super) fn doubt_leader(&self, log: LogId, node: &NodeLink) {
        if self.leader(log).is_some_and(|leader| leader.addr == node.addr) {
            self.forget_leader(log);
        }
    }

    /// Asks all nodes, and learns the leader from it, or from one that heard of it. A hint at a node
    /// that cannot be reached, or says that it does not lead, is worth nothing: after a leader's end
    /// the others go on naming it for a while.
    async fn search(&self, log: LogId, deadline: Instant) {
        let mut until = deadline.min(Instant::now() + ANSWER_PATIENCE);
        let ask = |node: NodeLink| async move {
            let exchange = self.exchange(&node, LogId::SYSTEM, Request::Statuses, until);
            let answer = exchange.await;
            (node, answer)
        };
        let mut answers: FuturesUnordered<_> = self.nodes().into_iter().map(ask).collect();
        let mut hint: Option<(u64, Member)> = None;
        let mut refuted: Vec<Arc<str>> = Vec::new();
        while let Ok(Some((node, answer))) = timeout_at(until, answers.next()).await {
            refuted.push(Arc::clone(&node.addr));
            let Ok(Response::Statuses(statuses)) = answer else { continue };
            until = until.min(Instant::now() + STRAGGLER_PATIENCE);
            if let Some(status) = statuses.first() {
                self.learn_place(status.node_id, &node);
            }
            let status = statuses.into_iter().find(|status| status.log_id == log.0);
            let Some(status) = status else { continue };
            if status.role == Role::Leader {
                return self.learn_leader(log, &node);
            }
            let newer = hint.as_ref().is_none_or(|(term, _)| *term < status.term);
            if let Some(leader) = status.leader.filter(|_| newer) {
                hint = Some((status.term, leader));
            }
        }
        if let Some(leader) = hint.and_then(|(_, leader)| self.place_of(&leader))
            && !refuted.contains(&leader.addr)
        {
            self.learn_leader(log, &leader);
        }
    }
}
