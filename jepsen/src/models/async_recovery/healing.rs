//! Whether a cluster comes back by itself once nothing fails any more.

use std::cmp::Reverse;

use super::state::{Role, State};
use super::{Bounds, Cluster};

/// Rounds in which a cluster elects a leader and brings the others to its end.
const ROUNDS: usize = 3;

impl State {
    /// True if all nodes are trusted and have the same log, all of it committed.
    pub(super) fn is_whole(&self, cluster: &Cluster) -> bool {
        let log = self.nodes[0].log;
        log.len() > 0
            && self.nodes[..usize::from(cluster.bounds.nodes)]
                .iter()
                .all(|node| !node.suspect && node.log == log && node.committed == log.len())
    }

    /// True if from here on, with nothing lost and nothing failing, somebody is elected, an append
    /// is acknowledged, and all nodes end up trusted with one history.
    pub(super) fn heals(&self, cluster: &Cluster) -> bool {
        let unlimited = Bounds { answers: usize::MAX, ..cluster.bounds };
        let cluster = &Cluster { bounds: unlimited, ..*cluster };
        let mut state = self.clone();
        state.answers.clear();
        for _ in 0..ROUNDS {
            let Some(leader) = state.some_leader(cluster) else { return false };
            state.append(cluster, leader, false);
            for _ in 0..ROUNDS {
                state.bring_up(cluster, leader);
            }
            if state.is_whole(cluster) {
                return true;
            }
        }
        false
    }

    fn arrive_all(&mut self, cluster: &Cluster) {
        while let Some(answer) = self.answers.first().copied() {
            self.arrive(cluster, answer);
        }
    }

    /// The leader of the newest term; if there is none, the first node that can be elected.
    fn some_leader(&mut self, cluster: &Cluster) -> Option<usize> {
        let term = self.nodes.iter().map(|node| node.term).max().unwrap_or(0);
        let leads = |state: &Self, node: usize| {
            state.nodes[node].role == Role::Leader && state.nodes[node].term == term
        };
        if let Some(leader) = cluster.nodes().find(|node| leads(self, *node)) {
            return Some(leader);
        }
        let mut order: Vec<_> = cluster.nodes().collect();
        order.sort_by_key(|node| {
            Reverse((self.nodes[*node].log.last(), !self.nodes[*node].suspect))
        });
        for candidate in order {
            let mut state = self.clone();
            state.nodes[candidate].term = term;
            state.nodes[candidate].role = Role::Follower;
            state.stand(cluster, candidate);
            let others = cluster.nodes().filter(|voter| *voter != candidate);
            others.for_each(|voter| state.ask_vote(cluster, candidate, voter));
            state.arrive_all(cluster);
            if state.nodes[candidate].role == Role::Leader {
                *self = state;
                return Some(candidate);
            }
        }
        None
    }

    /// A leader tells each follower its position and sends it what it lacks.
    fn bring_up(&mut self, cluster: &Cluster, leader: usize) {
        for to in cluster.nodes().filter(|to| *to != leader) {
            if self.nodes[to].suspect {
                self.tell_position(cluster, leader, to);
                self.arrive_all(cluster);
            }
            let end = self.nodes[leader].log.len();
            for prev in (0..=end).rev() {
                self.replicate(cluster, leader, to, (prev, end));
                if !self.answers.is_empty() {
                    break;
                }
            }
            self.arrive_all(cluster);
        }
    }
}
