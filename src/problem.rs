//! Problems of a node, and of its contact with others, as the node itself knows them.

use std::fmt;

use crate::member::{Member, NodeId, Status};

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum ProblemKind {
    /// A log has stopped on this node. The others go on.
    LogStopped,
    /// This node's copy of a log is damaged. It follows with what it has, and does not lead.
    LogDamaged,
    /// A log could not be opened on this node. The node tries again.
    LogNotOpen,
    /// A task of the node panicked.
    TaskPanicked,
    /// The cluster knows this node with other data, which is gone: it takes no part until it is removed and added again.
    DataLost,
    /// Another process with a copy of this node's data takes its place in the cluster.
    Duplicate,
    /// The other nodes cannot reach this one.
    NotReachedBack,
    /// Another member cannot be reached.
    PeerUnreachable,
    /// The node at a member's address has other data than the member was added with: it does not count.
    PeerLostData,
    /// Two processes have one member's data.
    PeerDuplicate,
    /// A checkpoint that this node needs to go on with a log waits for space on its disk.
    CheckpointWaits,
    /// A node runs a build that speaks another version of the protocol.
    OtherVersion,
    /// This node's copy of a log may lack records that it had acknowledged. Until a leader has made it whole, its vote
    /// elects nobody.
    LogSuspect,
    /// This node was removed from the cluster, and still runs.
    Removed,
}

impl ProblemKind {
    /// All kinds.
    pub const ALL: [Self; 14] = [
        Self::LogStopped,
        Self::LogDamaged,
        Self::LogNotOpen,
        Self::TaskPanicked,
        Self::DataLost,
        Self::Duplicate,
        Self::NotReachedBack,
        Self::PeerUnreachable,
        Self::PeerLostData,
        Self::PeerDuplicate,
        Self::CheckpointWaits,
        Self::OtherVersion,
        Self::LogSuspect,
        Self::Removed,
    ];

    /// Its name, as in JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogStopped => "log-stopped",
            Self::LogDamaged => "log-damaged",
            Self::LogNotOpen => "log-not-open",
            Self::TaskPanicked => "task-panicked",
            Self::DataLost => "data-lost",
            Self::Duplicate => "duplicate",
            Self::NotReachedBack => "not-reached-back",
            Self::PeerUnreachable => "peer-unreachable",
            Self::PeerLostData => "peer-lost-data",
            Self::PeerDuplicate => "peer-duplicate",
            Self::CheckpointWaits => "checkpoint-waits",
            Self::OtherVersion => "other-version",
            Self::LogSuspect => "log-suspect",
            Self::Removed => "removed",
        }
    }

    /// True if it keeps the node that reports it from doing its part; false if another node has the problem.
    pub const fn is_own(self) -> bool {
        !matches!(
            self,
            Self::PeerUnreachable | Self::PeerLostData | Self::PeerDuplicate | Self::OtherVersion
        )
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something that is wrong, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Problem {
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// The log that it is about, if it is about one.
    pub log: Option<String>,
    /// The member that it is about, if it is about another one.
    pub peer: Option<NodeId>,
    /// What is wrong, and what to do about it where that is known.
    pub reason: String,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// True if a restart of the node's process would help.
    pub needs_restart: bool,
}

impl Problem {
    /// A problem that is about no log and no other member, as of now. A restart would not help.
    pub fn new(kind: ProblemKind, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { kind, log: None, peer: None, reason, for_ms: 0, needs_restart: false }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(log) = &self.log {
            write!(f, "{log}: ")?;
        }
        if let Some(peer) = self.peer {
            write!(f, "node {peer}: ")?;
        }
        f.write_str(&self.reason)
    }
}

/// Everything that a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NodeStatus {
    /// The node and its addresses, as it tells others.
    pub node: Member,
    /// Every log that it should hold, the system log first. One that could not be opened is listed with its failure.
    pub logs: Vec<Status>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl NodeStatus {
    /// A node of which nothing is known but its addresses.
    pub fn new(node: Member) -> Self {
        Self { node, logs: Vec::new(), problems: Vec::new() }
    }
}
