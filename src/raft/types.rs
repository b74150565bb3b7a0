//! The types that openraft is instantiated with, and their conversions to and from the log's.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use openraft::alias::{
    CommittedLeaderIdOf, EntryOf, LeaderIdOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf,
};
use openraft::entry::RaftEntry;
use openraft::{EntryPayload, Membership, OptionalSend};
use serde::{Deserialize, Serialize};

use super::responder::AppendResponder;
use super::runtime::WatchedRuntime;
use crate::error::StorageError;
use crate::format::codec;
use crate::format::entry::{Batch, Entry, EntryId, EntryKind};
use crate::log::{StoredMembership, Vote};
use crate::member::{Member, Replica, ReplicaId};
use crate::mutant::Mutant;
use crate::progress::Progress;

/// What a leader is asked to replicate: one record. Moving it moves a handle, not the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) payload: Bytes,
    pub(crate) payload_crc: u32,
    pub(crate) sync: bool,
    pub(crate) batch: Batch,
    /// Who is told where it is put, and when it is flushed. Never leaves the leader.
    pub(crate) progress: Option<Progress>,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.payload.len())
    }
}

/// What the state machine answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Response(pub(crate) Bytes);

impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Where to reach a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) peer: String,
    pub(crate) client: String,
}

impl From<&Member> for Address {
    fn from(member: &Member) -> Self {
        Self { peer: member.peer_addr.clone(), client: member.client_addr.clone() }
    }
}

impl Address {
    pub(crate) fn member(&self, id: ReplicaId) -> Member {
        Member::new(id.node, self.peer.clone()).with_client_addr(self.client.clone())
    }

    pub(crate) fn replica(&self, id: ReplicaId) -> Replica {
        Replica { id, member: self.member(id) }
    }
}

/// Type parameters of openraft. `leader_id_std`: one leader per term, as in the Raft paper, so a
/// log id is a term and an index. A member that lost its data is another one (`ReplicaId`).
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) struct Types {}

impl openraft::RaftTypeConfig for Types {
    type D = Proposal;
    type R = Response;
    type NodeId = ReplicaId;
    type Node = Address;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, ReplicaId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Proposal, ReplicaId, Address>;
    type Entry = openraft::Entry<CommittedLeaderIdOf<Self>, Self::Payload>;
    type Responder<T>
        = AppendResponder<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = WatchedRuntime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type RaftLogId = LogIdOf<Types>;
pub(crate) type RaftVote = VoteOf<Types>;
pub(crate) type RaftMembership = StoredMembershipOf<Types>;
pub(crate) type RaftSnapshotMeta = SnapshotMetaOf<Types>;
pub(crate) type LogEntry = EntryOf<Types>;

pub(crate) fn raft_log_id(id: EntryId) -> RaftLogId {
    use openraft::vote::RaftLeaderIdExt;
    RaftLogId::new(LeaderIdOf::<Types>::new_committed(id.term, ReplicaId::default()), id.index)
}

pub(crate) fn entry_id(id: &RaftLogId) -> EntryId {
    EntryId { term: id.committed_leader_id().term, index: id.index }
}

pub(crate) fn raft_vote(vote: Vote) -> RaftVote {
    if vote.committed {
        RaftVote::new_committed(vote.term, vote.voted_for)
    } else {
        RaftVote::new(vote.term, vote.voted_for)
    }
}

pub(crate) fn stored_vote(vote: &RaftVote) -> Vote {
    Vote {
        term: vote.leader_id.term,
        voted_for: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

/// A membership on disk and on the wire. Version 1; changes need a new type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MembershipV1 {
    /// Voter sets: one, or two while a change is joint.
    configs: Vec<Vec<ReplicaId>>,
    nodes: BTreeMap<ReplicaId, Address>,
}

pub(crate) fn encode_membership(membership: &Membership<ReplicaId, Address>) -> Bytes {
    let mut configs: Vec<Vec<ReplicaId>> =
        membership.get_joint_config().iter().map(|set| set.iter().copied().collect()).collect();
    if Mutant::JointConfigSkipped.is_active() {
        configs.drain(..configs.len().saturating_sub(1));
    }
    let nodes = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
    Bytes::from(codec::encode(&MembershipV1 { configs, nodes }))
}

pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership<ReplicaId, Address>, String> {
    let MembershipV1 { configs, nodes } =
        codec::decode(bytes).map_err(|error| format!("membership: {error}"))?;
    let configs = configs.into_iter().map(|set| set.into_iter().collect()).collect();
    Membership::new(configs, nodes).map_err(|error| format!("membership: {error}"))
}

pub(crate) fn raft_membership(stored: &StoredMembership) -> Result<RaftMembership, String> {
    let membership = decode_membership(&stored.payload)?;
    Ok(RaftMembership::new(Some(raft_log_id(stored.id)), membership))
}

pub(crate) fn stored_membership(membership: &RaftMembership) -> Option<StoredMembership> {
    let id = membership.log_id().as_ref()?;
    let payload = encode_membership(membership.membership());
    Some(StoredMembership { id: entry_id(id), payload })
}

/// Where replicas are reached.
pub(super) fn addresses(replicas: &[Replica]) -> BTreeMap<ReplicaId, Address> {
    replicas.iter().map(|replica| (replica.id, Address::from(&replica.member))).collect()
}

/// The first entry of a log: openraft's `initialize` writes the same.
pub(crate) fn first_entry(voters: &[Replica]) -> Entry {
    let nodes = addresses(voters);
    let configs = vec![nodes.keys().copied().collect()];
    let payload = Bytes::from(codec::encode(&MembershipV1 { configs, nodes }));
    let id = EntryId { term: 0, index: 0 };
    Entry::new(id, EntryKind::Membership, false, Batch::SINGLE, payload)
}

/// For the log: the payload is moved.
pub(crate) fn entry_from_raft(entry: LogEntry) -> Entry {
    let id = entry_id(&entry.log_id());
    match entry.payload {
        EntryPayload::Normal(proposal) => Entry {
            id,
            kind: EntryKind::Record,
            sync: proposal.sync,
            batch: proposal.batch,
            payload_crc: proposal.payload_crc,
            payload: proposal.payload,
        },
        EntryPayload::Blank => Entry::new(id, EntryKind::Blank, false, Batch::SINGLE, Bytes::new()),
        EntryPayload::Membership(membership) => {
            let payload = encode_membership(&membership);
            Entry::new(id, EntryKind::Membership, false, Batch::SINGLE, payload)
        }
    }
}

/// For openraft: the payload is moved.
pub(crate) fn entry_to_raft(entry: Entry) -> Result<LogEntry, StorageError> {
    let payload = match entry.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Membership => {
            let membership = decode_membership(&entry.payload).map_err(|detail| {
                StorageError::corrupt("log", 0, format!("entry {}: {detail}", entry.id.index))
            })?;
            EntryPayload::Membership(membership)
        }
        EntryKind::Record => EntryPayload::Normal(Proposal {
            payload: entry.payload,
            payload_crc: entry.payload_crc,
            sync: entry.sync,
            batch: entry.batch,
            progress: None,
        }),
    };
    Ok(LogEntry::new(raft_log_id(entry.id), payload))
}
