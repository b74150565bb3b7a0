//! Nodes and their part in a log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of a node, chosen by the operator and unique within the cluster. A node that lost its data may come back
/// under its number once the one that it was is removed.
pub type NodeId = u64;

/// Who votes and holds copies: a node with the data that it had when it was added.
///
/// Raft counts on members that keep what they have acknowledged and voted. A node that lost its data is therefore
/// another member, though it has the same number: what is addressed to the one never counts for the other.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub(crate) struct ReplicaId {
    /// The node's number.
    pub(crate) node: NodeId,
    /// Random number made with its data directory.
    pub(crate) incarnation: u128,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell those of one number apart.
        write!(f, "{}@{:08x}", self.node, self.incarnation >> 96)
    }
}

/// A member of a log: which data it has, and where to reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    #[serde(with = "as_form")]
    pub(crate) member: Member,
}

/// A node and where to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct Member {
    /// The node's number.
    pub id: NodeId,
    /// `host:port` where the other nodes reach it.
    pub peer_addr: String,
    /// `host:port` where clients reach it; empty if it serves none.
    pub client_addr: String,
}

impl Member {
    /// A member that other nodes reach at `peer_addr`, serving no clients.
    pub fn new(id: NodeId, peer_addr: impl Into<String>) -> Self {
        Self { id, peer_addr: peer_addr.into(), client_addr: String::new() }
    }

    /// The same member, serving clients at `client_addr`.
    #[must_use]
    pub fn with_client_addr(mut self, client_addr: impl Into<String>) -> Self {
        self.client_addr = client_addr.into();
        self
    }
}

/// A [`Member`] as it is written to disk and sent. The public type may grow; this may not within one version of a format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberForm {
    id: NodeId,
    peer_addr: String,
    client_addr: String,
}

impl From<Member> for MemberForm {
    fn from(member: Member) -> Self {
        let Member { id, peer_addr, client_addr } = member;
        Self { id, peer_addr, client_addr }
    }
}

impl From<MemberForm> for Member {
    fn from(form: MemberForm) -> Self {
        Self::new(form.id, form.peer_addr).with_client_addr(form.client_addr)
    }
}

/// For `#[serde(with)]` on a [`Member`].
pub(crate) mod as_form {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Member, MemberForm};

    pub(crate) fn serialize<S: Serializer>(member: &Member, to: S) -> Result<S::Ok, S::Error> {
        MemberForm::from(member.clone()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Member, D::Error> {
        MemberForm::deserialize(from).map(Member::from)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} at {}", self.id, self.peer_addr)
    }
}

/// The part that a node plays in one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize), serde(rename_all = "lowercase"))]
pub enum Role {
    /// Takes appends.
    Leader,
    /// Votes, and holds a copy.
    Follower,
    /// Standing for election.
    Candidate,
    /// Holds a copy, and does not vote.
    Learner,
    /// Stopped: shut down, or failed and in need of the operator.
    Stopped,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        })
    }
}

/// A member and whether it votes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct MemberStatus {
    /// The node.
    pub member: Member,
    /// True for voters, false for learners.
    pub voter: bool,
    /// One past the last index that the leader knows this node to hold. Known by the leader only.
    pub matched: Option<u64>,
}

impl MemberStatus {
    /// A member of which nothing is known but whether it votes.
    pub fn new(member: Member, voter: bool) -> Self {
        Self { member, voter, matched: None }
    }
}

/// State of one log on one node, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct Status {
    /// Name of the log.
    pub log: String,
    /// Number of the log.
    pub log_id: u64,
    /// The node that says so.
    pub node_id: NodeId,
    /// Its part in this log.
    pub role: Role,
    /// Current term.
    pub term: u64,
    /// The leader, if it is there as far as this node can know. None on a follower that has not heard from it for two of
    /// the longest election timeouts, and on a leader that no majority has answered for as long. A
    /// [`StatusWatch`](crate::StatusWatch) names the leader of the newest vote, which may be gone.
    pub leader: Option<Member>,
    /// Its watermarks.
    pub begin: u64,
    /// See [`Watermarks::committed`](crate::Watermarks::committed).
    pub committed: u64,
    /// See [`Watermarks::end`](crate::Watermarks::end).
    pub end: u64,
    /// One past the last index applied to the state machine here.
    pub applied: u64,
    /// Voters and learners. `matched` is filled in on the leader.
    pub members: Vec<MemberStatus>,
    /// Bytes of this log on this node's disk.
    pub disk_bytes: u64,
    /// Why the log has stopped here, if it has; or the damage of this node's copy, which goes on as a follower.
    pub failure: Option<String>,
    /// True while this node's copy may lack records that it had acknowledged: it lost its page cache, and no leader has
    /// made it whole yet.
    pub suspect: bool,
    /// One past the last index that a majority is known to have flushed. Recovery never goes back below it.
    pub stable: u64,
    /// How often this process was elected with votes of nodes that lost their page caches, since there were too few
    /// others. Records that were acknowledged shortly before may be lost.
    pub suspect_elections: u64,
    /// How often this node's copy went back since the process started, as the cluster had lost records that it held.
    pub rewinds: u64,
    /// At most so many of the entries that this node had shown as committed were lost when it went back.
    pub lost_records_max: u64,
}

impl Status {
    /// The state of an empty log without members. Nodes fill in the rest; so do tests of programs that read a status.
    pub fn new(log: impl Into<String>, log_id: u64, node_id: NodeId, role: Role) -> Self {
        Self {
            log: log.into(),
            log_id,
            node_id,
            role,
            term: 0,
            leader: None,
            begin: 0,
            committed: 0,
            end: 0,
            applied: 0,
            members: Vec::new(),
            disk_bytes: 0,
            failure: None,
            suspect: false,
            stable: 0,
            suspect_elections: 0,
            rewinds: 0,
            lost_records_max: 0,
        }
    }
}
