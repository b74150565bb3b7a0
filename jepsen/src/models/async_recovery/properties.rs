//! What must hold in every state, and what some state must show.

use super::Cluster;
use super::state::{Node, Role, State};

/// Something that must hold in every state.
pub(crate) struct Promise {
    pub(crate) name: &'static str,
    pub(crate) holds: fn(&Cluster, &State) -> bool,
    /// Costs more than a step, so walks look at some states only.
    pub(crate) is_costly: bool,
}

/// Something that a search must come across, or it did not look where it should.
pub(crate) struct Sight {
    pub(crate) name: &'static str,
    pub(crate) is_seen: fn(&Cluster, &State) -> bool,
}

const fn promise(name: &'static str, holds: fn(&Cluster, &State) -> bool) -> Promise {
    Promise { name, holds, is_costly: false }
}

/// What must hold in every state.
pub(crate) const PROMISES: [Promise; 9] = [
    promise("what was acknowledged survives", |cluster, state| state.keeps(cluster, false)),
    promise("what was acknowledged with Sync survives", |cluster, state| {
        state.keeps(cluster, true)
    }),
    promise("logs match below a common entry", |cluster, state| state.logs_match(cluster)),
    promise("nothing settled is truncated or contradicted", |_, state| state.violation.is_none()),
    promise("a term has one leader", |cluster, state| state.one_leader(cluster)),
    promise("stable prefixes agree", |cluster, state| state.agree(cluster, |node| node.stable)),
    promise("committed prefixes agree until too many lost pages", |cluster, state| {
        state.too_many_suspects || state.agree(cluster, |node| node.committed)
    }),
    promise("only what was acknowledged counts as committed", |cluster, state| {
        state.nodes[cluster.nodes()].iter().all(|node| {
            (1..=node.committed).all(|index| {
                let id = (index, node.log.term(index));
                state.acknowledged.iter().any(|told| (told.index, told.term) == id)
            })
        })
    }),
    Promise {
        name: "the cluster comes back by itself",
        holds: |cluster, state| state.violation.is_some() || state.heals(cluster),
        is_costly: true,
    },
];

/// What a search of the whole protocol must come across.
pub(crate) const SIGHTS: [Sight; 3] = [
    Sight {
        name: "a new leader made the cluster whole after a cut",
        is_seen: |cluster, state| state.power_cuts > 0 && state.is_whole_again(cluster),
    },
    Sight {
        name: "a new leader made the cluster whole after too many lost pages",
        is_seen: |cluster, state| state.too_many_suspects && state.is_whole_again(cluster),
    },
    Sight {
        name: "something acknowledged was lost after too many lost pages",
        is_seen: |_, state| {
            let replaced = |index: u8, term: u8| {
                state.acknowledged.iter().any(|told| told.index == index && told.term > term)
            };
            let lost = |told: &super::state::Acknowledged| {
                !told.promised && replaced(told.index, told.term)
            };
            state.too_many_suspects && state.acknowledged.iter().any(lost)
        },
    },
];

impl State {
    /// True if each leader holds what was promised by leaders of earlier terms and its own.
    fn keeps(&self, cluster: &Cluster, sync: bool) -> bool {
        let nodes = self.nodes[cluster.nodes()].iter();
        nodes.filter(|node| node.role == Role::Leader).all(|leader| {
            let due = self
                .acknowledged
                .iter()
                .filter(|told| told.promised && told.sync == sync && told.by <= leader.term);
            due.into_iter().all(|told| leader.log.term(told.index) == told.term)
        })
    }

    /// True if `holds` for each pair of nodes.
    fn pairwise(&self, cluster: &Cluster, holds: impl Fn(&Node, &Node) -> bool) -> bool {
        let nodes = &self.nodes[cluster.nodes()];
        nodes
            .iter()
            .enumerate()
            .all(|(at, node)| nodes[..at].iter().all(|other| holds(node, other)))
    }

    fn logs_match(&self, cluster: &Cluster) -> bool {
        self.pairwise(cluster, |node, other| {
            let (a, b) = (&node.log, &other.log);
            let common = (1..=a.len().min(b.len())).rev().find(|at| a.term(*at) == b.term(*at));
            (1..=common.unwrap_or(0)).all(|at| a.term(at) == b.term(at))
        })
    }

    fn agree(&self, cluster: &Cluster, upto: impl Fn(&Node) -> u8) -> bool {
        self.pairwise(cluster, |node, other| {
            (1..=upto(node).min(upto(other))).all(|at| node.log.term(at) == other.log.term(at))
        })
    }

    fn one_leader(&self, cluster: &Cluster) -> bool {
        let leads = |node: &Node| node.role == Role::Leader;
        self.pairwise(cluster, |node, other| {
            !(leads(node) && leads(other) && node.term == other.term)
        })
    }

    fn is_whole_again(&self, cluster: &Cluster) -> bool {
        self.is_whole(cluster) && self.nodes[0].log.last().0 > 1
    }
}
