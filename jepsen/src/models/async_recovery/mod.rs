//! The recovery of nodes that lost what they had not flushed (`Flush::Async`).
//!
//! **What is modelled.** Each node has a durable vote and a log. The log is written up to its end
//! and flushed up to `flushed`; a majority has written what is `committed`, and that is what
//! callers are told; a majority has flushed what is `stable`. A power cut keeps some prefix of the
//! log that covers what was flushed. A crash of the process keeps all of it. Either restarts the
//! node at once: a node that is down is one that takes no step.
//!
//! Requests for votes and appends act on the asked node at once. Their answers travel: they arrive
//! in any order, late, or never, even after the node that sent them has crashed. A late request
//! needs no state: it acts like one that the same leader sends now (a leader may send any earlier
//! prefix with any earlier watermark), or a later term refuses it. What was sent to a process that
//! has died is gone, because connections belong to processes.
//!
//! An entry is its term and whether it asked for a flush. That names it, because a leader that
//! restarted never leads its old term again.
//!
//! **What is not modelled.** Changes of membership, learners, checkpoints, batches, pre-votes,
//! leases, time, disks that lie, torn groups.

mod bounds;
mod elections;
mod faults;
mod healing;
mod log;
mod properties;
mod replication;
mod rules;
mod state;
mod step;
mod symmetry;

pub(super) use bounds::Bounds;
pub(super) use properties::{PROMISES, Promise, SIGHTS};
pub(super) use rules::{Knockout, Rules};
pub(super) use state::State;
pub(super) use step::{Kind, Step};
pub(super) use symmetry::representative;

/// A cluster that follows some rules, within some bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cluster {
    pub(super) bounds: Bounds,
    pub(super) rules: Rules,
}

impl Cluster {
    /// The state in which node 0 leads an empty log.
    pub(super) fn first(&self) -> State {
        State::first(self)
    }

    /// Numbers of the nodes.
    fn nodes(&self) -> std::ops::Range<usize> {
        0..usize::from(self.bounds.nodes)
    }

    /// The least number of nodes that is more than half of them.
    fn majority(&self) -> u32 {
        u32::from(self.bounds.nodes) / 2 + 1
    }

    /// With so many suspects no majority can consist of trusted nodes.
    fn too_many(&self) -> u32 {
        u32::from(self.bounds.nodes) - self.majority() + 1
    }
}
