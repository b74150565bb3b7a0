//! A state of the cluster.

use super::Cluster;
use super::bounds::NODES_MAX;
use super::log::{Indexes, Log, NodeSet};

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) enum Role {
    #[default]
    Follower,
    Candidate,
    Leader,
}

/// How far a suspect has to come, as a leader said (AR6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position {
    /// Term of the leader that said so.
    pub(super) term: u8,
    pub(super) index: u8,
    /// Term of the entry at `index`.
    pub(super) entry_term: u8,
}

/// A node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Node {
    pub(super) term: u8,
    pub(super) voted_for: Option<u8>,
    pub(super) role: Role,
    pub(super) suspect: bool,
    pub(super) log: Log,
    /// What a power cut spares.
    pub(super) flushed: u8,
    /// A majority has written it.
    pub(super) committed: u8,
    /// A majority has flushed it.
    pub(super) stable: u8,
    /// The highest committed index on its disk; tracked only where a restart believes it.
    pub(super) committed_on_disk: u8,
    pub(super) position: Option<Position>,
    /// Grants to it, by those that were trusted and by those that were suspect.
    pub(super) trusted_grants: NodeSet,
    pub(super) suspect_grants: NodeSet,
    /// What it knows of the others while it leads: written, and flushed.
    pub(super) matched: Indexes,
    pub(super) matched_flushed: Indexes,
}

impl Node {
    /// Ends what it did as a candidate or leader.
    pub(super) fn follow(&mut self) {
        self.role = Role::Follower;
        (self.trusted_grants, self.suspect_grants) = Default::default();
        (self.matched, self.matched_flushed) = Default::default();
    }
}

/// An answer under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Answer {
    Grant { from: u8, to: u8, term: u8, suspect: bool },
    Ack { from: u8, to: u8, term: u8, matched: u8, flushed: u8 },
    Position { from: u8, to: u8, position: Position },
}

impl Answer {
    pub(super) fn to(&self) -> u8 {
        match *self {
            Self::Grant { to, .. } | Self::Ack { to, .. } | Self::Position { to, .. } => to,
        }
    }

    /// True if this acknowledges all that `other` does, to the same leader.
    fn covers(&self, other: &Self) -> bool {
        let (Self::Ack { from, to, term, matched, flushed }, Self::Ack { .. }) = (*self, other)
        else {
            return false;
        };
        matches!(*other, Self::Ack { from: f, to: t, term: of, matched: m, flushed: fl }
            if (f, t, of) == (from, to, term) && m <= matched && fl <= flushed)
    }
}

/// What a caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Acknowledged {
    pub(super) index: u8,
    pub(super) term: u8,
    /// Term of the leader that said so: leaders of later terms must hold it.
    pub(super) by: u8,
    pub(super) sync: bool,
    /// The protocol promises that it survives.
    pub(super) promised: bool,
}

/// What must never happen in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Violation {
    /// A node truncated what was settled: stable, or committed where nothing else is known.
    TruncatedSettled,
    /// A leader contradicts what is stable.
    StableContradicted,
    /// A leader contradicts what is committed, though there were never too many suspects.
    CommittedContradicted,
}

/// A state of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    pub(super) nodes: [Node; NODES_MAX],
    /// In order, without duplicates.
    pub(super) answers: Vec<Answer>,
    /// In order.
    pub(super) acknowledged: Vec<Acknowledged>,
    pub(super) appends: u8,
    pub(super) power_cuts: u8,
    pub(super) crashes: u8,
    /// There were too many suspects at once.
    pub(super) too_many_suspects: bool,
    pub(super) violation: Option<Violation>,
}

impl State {
    /// Node 0 leads term 1, by the votes of all.
    pub(super) fn first(cluster: &Cluster) -> Self {
        let mut nodes = [Node::default(); NODES_MAX];
        for node in cluster.nodes() {
            nodes[node].term = 1;
            nodes[node].voted_for = Some(0);
        }
        nodes[0].role = Role::Leader;
        Self {
            nodes,
            answers: Vec::new(),
            acknowledged: Vec::new(),
            appends: 0,
            power_cuts: 0,
            crashes: 0,
            too_many_suspects: false,
            violation: None,
        }
    }

    /// Sends an answer, if there is room for it. One that covers others stands for them.
    pub(super) fn send(&mut self, cluster: &Cluster, answer: Answer) {
        if self.answers.iter().any(|sent| *sent == answer || sent.covers(&answer)) {
            return;
        }
        self.answers.retain(|sent| !answer.covers(sent));
        if self.answers.len() < cluster.bounds.answers {
            self.answers.push(answer);
            self.answers.sort_unstable();
        }
    }

    /// Makes a vote durable. The vote file is a flush barrier, so the log is flushed with it.
    pub(super) fn save_vote(&mut self, node: usize, term: u8, voted_for: usize) {
        let node = &mut self.nodes[node];
        node.flushed = node.log.len();
        if term > node.term {
            node.follow();
        }
        node.term = term;
        node.voted_for = Some(voted_for as u8);
    }

    /// How many nodes are suspect.
    pub(super) fn suspects(&self) -> u32 {
        self.nodes.iter().filter(|node| node.suspect).count() as u32
    }
}
