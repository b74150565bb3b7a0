//! Power cuts and crashes.

use super::Cluster;
use super::state::{Answer, State};

impl State {
    /// The node's process ends and another begins: what was sent to it is gone, save positions if
    /// `keeps_positions`. Opening a log flushes it.
    pub(super) fn restart(&mut self, node: usize, keeps_positions: bool) {
        let kept = |answer: &Answer| keeps_positions && matches!(answer, Answer::Position { .. });
        self.answers.retain(|answer| usize::from(answer.to()) != node || kept(answer));
        let node = &mut self.nodes[node];
        node.follow();
        node.position = None;
        node.flushed = node.log.len();
    }

    /// The machine loses what it had not flushed, but for a prefix.
    pub(super) fn cut_power(&mut self, cluster: &Cluster, at: usize, kept: u8) {
        let rules = &cluster.rules;
        let node = &mut self.nodes[at];
        node.log.truncate(kept);
        let len = node.log.len();
        node.stable = node.stable.min(len);
        node.committed =
            if rules.restarts_at_stable { node.stable } else { node.committed_on_disk.min(len) };
        node.suspect = rules.cut_makes_suspect;
        self.restart(at, !rules.position_is_of_this_start);
        if rules.cut_makes_suspect && self.suspects() >= cluster.too_many() {
            self.lose_promises(cluster);
        }
    }

    /// Too many nodes are suspect: only what asked for a flush, or is flushed on a majority, is
    /// promised from here on.
    fn lose_promises(&mut self, cluster: &Cluster) {
        self.too_many_suspects = true;
        let nodes = self.nodes;
        for acknowledged in &mut self.acknowledged {
            let (index, term) = (acknowledged.index, acknowledged.term);
            let durable = |node: &usize| {
                nodes[*node].flushed >= index && nodes[*node].log.term(index) == term
            };
            let flushed = cluster.nodes().filter(durable).count() as u32 >= cluster.majority();
            acknowledged.promised &= acknowledged.sync || flushed;
        }
    }

    /// The process ends; its machine keeps what it has written.
    pub(super) fn crash(&mut self, cluster: &Cluster, at: usize) {
        let rules = &cluster.rules;
        let node = &mut self.nodes[at];
        if !rules.restarts_at_stable {
            node.committed = node.committed_on_disk.min(node.log.len());
        } else if node.suspect {
            node.committed = node.stable;
        }
        node.suspect &= rules.mark_is_durable;
        self.restart(at, !rules.position_is_of_this_start);
    }
}
