//! What nodes say to each other: kinds of frames and their heads. Bodies are entries or checkpoints.

use std::cmp::Ordering;

use bytes::{Bytes, BytesMut};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::space::Space;
use super::types::{
    LogEntry, RaftLogId, RaftVote, Types, entry_from_raft, entry_id, entry_to_raft, raft_log_id,
    raft_vote, stored_vote,
};
use crate::error::with_sources;
use crate::format::codec;
use crate::format::entry::{Entry, EntryId, WIRE_SALT};
use crate::format::superblock::Newest;
use crate::log::Vote;
use crate::member::ReplicaId;
use crate::mutant::Mutant;
use crate::record::LogId;
use crate::wire::{Frame, OutFrame};

pub(crate) const APPEND: u8 = 1;
pub(crate) const VOTE: u8 = 2;
pub(crate) const PRE_VOTE: u8 = 3;
pub(crate) const TRANSFER_LEADER: u8 = 4;
pub(crate) const SNAPSHOT: u8 = 5;
pub(crate) const READ_INDEX: u8 = 6;
pub(crate) const ADMIN: u8 = 7;
/// As `APPEND`, from a leader whose majority has no space but its reserve: the follower is to use its own, too.
pub(crate) const APPEND_TO_RESERVE: u8 = 8;
/// Asks where a leader's log ends: answered by [`Position`](super::recovery::Position).
pub(crate) const POSITION: u8 = 20;
/// Tells the generation of this node's data, and asks where the other end reaches this node, and others: answered by
/// [`Reached`].
pub(crate) const REACHED: u8 = 16;
/// Set in the kind of a response.
pub(crate) const RESPONSE: u8 = 0x80;
/// Response to a request that was not served; the head is a text.
pub(crate) const REFUSED: u8 = 0xef;

/// Entries smaller than this are joined with their headers when sent; larger ones are sent as they lie.
const JOIN_BYTES: usize = 512;

/// `(term, index)`.
type WireId = (u64, u64);
/// `(term, who is voted for, committed)`.
type WireVote = (u64, ReplicaId, bool);

fn wire_id(id: &RaftLogId) -> WireId {
    let id = entry_id(id);
    (id.term, id.index)
}

fn from_wire_id((term, index): WireId) -> RaftLogId {
    raft_log_id(EntryId { term, index })
}

fn wire_vote(vote: &RaftVote) -> WireVote {
    let vote = stored_vote(vote);
    (vote.term, vote.voted_for, vote.committed)
}

fn from_wire_vote((term, voted_for, committed): WireVote) -> RaftVote {
    raft_vote(Vote { term, voted_for, committed })
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: WireVote,
    prev: Option<WireId>,
    commit: Option<WireId>,
    entries: u32,
    /// One past what a majority has flushed; none if that is all that is committed.
    stable: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct VoteHead {
    vote: WireVote,
    last: Option<WireId>,
    leadership_transfer: bool,
}

#[derive(Serialize, Deserialize)]
struct VoteReply {
    vote: WireVote,
    last: Option<WireId>,
    granted: bool,
}

#[derive(Serialize, Deserialize)]
enum AppendReply {
    /// The follower holds what the request vouches for, and has flushed all of it.
    Success,
    Partial(Option<WireId>),
    Conflict,
    HigherVote(WireVote),
    /// As `Success`, but it has flushed only what lies below.
    Written(u64),
}

/// What a member says of its ways to others.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reached {
    /// Where it has reached the node that asks.
    pub(crate) at: Option<String>,
    /// Why it does not reach that node, if it does not.
    pub(crate) failing: Option<String>,
    /// Where other members have told it that they are.
    pub(crate) others: Vec<(ReplicaId, String)>,
    /// The newest data that it has heard of each member, the one that asks included.
    pub(crate) newest: Vec<(ReplicaId, Newest)>,
}

/// A leader hands over.
#[derive(Serialize, Deserialize)]
pub(crate) struct TransferHead {
    from: WireVote,
    to: ReplicaId,
    last: Option<WireId>,
}

/// One piece of a boundary snapshot; the body is the piece of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    vote: WireVote,
    pub(crate) last: WireId,
    pub(crate) membership: Option<(WireId, Vec<u8>)>,
    /// False if the log has no state machine: then there is no checkpoint, not an empty one.
    pub(crate) has_state: bool,
    pub(crate) state_len: u64,
    pub(crate) state_crc: u32,
    pub(crate) offset: u64,
}

impl SnapshotHead {
    /// True if `other` is of a piece of the same checkpoint.
    pub(crate) fn is_of_same_checkpoint(&self, other: &Self) -> bool {
        let of = |head: &Self| (head.last, head.has_state, head.state_len, head.state_crc);
        of(self) == of(other)
    }

    /// True if it comes from a later leader than `other`, or is as of a later entry.
    pub(crate) fn is_later_than(&self, other: &Self) -> bool {
        match self.vote().partial_cmp(&other.vote()) {
            Some(Ordering::Greater) => true,
            Some(Ordering::Equal) => self.last > other.last,
            Some(Ordering::Less) | None => false,
        }
    }

    pub(crate) fn vote(&self) -> RaftVote {
        from_wire_vote(self.vote)
    }

    pub(crate) fn set_vote(&mut self, vote: &RaftVote) {
        self.vote = wire_vote(vote);
    }
    pub(crate) fn new(last: EntryId, membership: Option<(EntryId, Bytes)>) -> Self {
        Self {
            vote: (0, ReplicaId::default(), false),
            last: (last.term, last.index),
            membership: membership.map(|(id, bytes)| ((id.term, id.index), bytes.to_vec())),
            has_state: false,
            state_len: 0,
            state_crc: 0,
            offset: 0,
        }
    }
}

/// A frame's head or body that does not make sense. The connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadMessage(String);

impl BadMessage {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadMessage> {
    codec::decode(bytes).map_err(|error| BadMessage(error.to_string()))
}

/// The head of a request.
pub(super) fn asked<T: DeserializeOwned>(frame: &Frame) -> Result<T, BadMessage> {
    decode(&frame.head)
}

pub(crate) fn frame(kind: u8, log: LogId, head: &impl Serialize) -> OutFrame {
    OutFrame { kind, log, correlation: 0, head: codec::encode(head).into(), body: Vec::new() }
}

pub(crate) fn response(to: &Frame, head: &impl Serialize) -> OutFrame {
    OutFrame { correlation: to.correlation, ..frame(to.kind | RESPONSE, to.log, head) }
}

pub(crate) fn refused(to: &Frame, reason: impl Into<String>) -> OutFrame {
    OutFrame { correlation: to.correlation, ..frame(REFUSED, to.log, &reason.into()) }
}

/// Takes a response apart: the head if it is one, the reason if the request was refused.
pub(crate) fn accepted<T: DeserializeOwned>(frame: &Frame) -> Result<T, BadMessage> {
    if frame.kind == REFUSED {
        return Err(BadMessage(decode::<String>(&frame.head)?));
    }
    decode(&frame.head)
}

/// An append request. Payloads are handles; headers are written into one buffer. `stable`: one past what a majority
/// has flushed, none if that is all that is committed.
pub(crate) fn encode_append(
    log: LogId,
    request: AppendEntriesRequest<Types>,
    stable: Option<u64>,
    to_reserve: bool,
) -> OutFrame {
    let head = AppendHead {
        vote: wire_vote(&request.vote),
        prev: request.prev_log_id.as_ref().map(wire_id),
        commit: request.leader_commit.as_ref().map(wire_id),
        entries: u32::try_from(request.entries.len()).unwrap_or(u32::MAX),
        stable,
    };
    let kind = if to_reserve && head.entries > 0 { APPEND_TO_RESERVE } else { APPEND };
    let mut out = frame(kind, log, &head);
    let mut joined = BytesMut::with_capacity(request.entries.len() * 64);
    for entry in request.entries {
        let entry = entry_from_raft(entry);
        joined.extend_from_slice(&entry.encode_header(WIRE_SALT));
        if entry.payload.len() < JOIN_BYTES {
            joined.extend_from_slice(&entry.payload);
        } else {
            out.body.push(joined.split().freeze());
            out.body.push(entry.payload);
        }
    }
    if !joined.is_empty() {
        out.body.push(joined.freeze());
    }
    out
}

/// Decodes an append request, verifying every entry, and gives one past what a majority has flushed: none if that is all
/// that is committed. Payloads are slices of the frame's body.
pub(crate) fn decode_append(
    frame: Frame,
) -> Result<(AppendEntriesRequest<Types>, Option<u64>), BadMessage> {
    let head: AppendHead = decode(&frame.head)?;
    let mut body = frame.body;
    let mut entries: Vec<LogEntry> = Vec::with_capacity(head.entries.min(4096) as usize);
    for _ in 0..head.entries {
        let entry = Entry::decode(&mut body).map_err(|error| BadMessage(error.to_string()))?;
        entries.push(entry_to_raft(entry).map_err(|error| BadMessage(with_sources(&error)))?);
    }
    if !body.is_empty() {
        return Err(BadMessage(format!("{} bytes behind the last entry", body.len())));
    }
    let mut expected = head.prev.map(|(_, index)| index + 1);
    for entry in &entries {
        if expected.is_some_and(|index| index != entry.log_id.index) {
            return Err(BadMessage(format!("entry {} is out of order", entry.log_id.index)));
        }
        expected = Some(entry.log_id.index + 1);
    }
    let committed = head.commit.map_or(0, |(_, index)| index.saturating_add(1));
    let stable = head.stable.map(|stable| stable.min(committed));
    let request = AppendEntriesRequest {
        vote: from_wire_vote(head.vote),
        prev_log_id: head.prev.map(from_wire_id),
        entries,
        leader_commit: head.commit.map(from_wire_id),
    };
    Ok((request, stable))
}

/// What an append request vouches for: the follower that takes it holds what the leader has below `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vouched {
    /// The leader's term.
    pub(crate) term: u64,
    pub(crate) end: u64,
}

impl Vouched {
    pub(crate) const NOTHING: Self = Self { term: 0, end: 0 };

    pub(crate) fn by(request: &AppendEntriesRequest<Types>) -> Self {
        let last = request.entries.last().map(|entry| &entry.log_id);
        let last = last.or(request.prev_log_id.as_ref()).map(entry_id);
        let end = last.map_or(0, |last| last.index.saturating_add(1));
        Self { term: stored_vote(&request.vote).term, end }
    }
}

/// Bit of the byte that says what a disk has: the answering node must not lead the log. Older builds set it for a damaged
/// copy alone.
const UNFIT: u8 = 0x80;
/// The same if that copy may lack what it had acknowledged.
const SUSPECT: u8 = 0x40;

/// What a node says of itself in an answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    /// What its disk has.
    pub(crate) space: Space,
    /// It must not lead the log (`unfit`).
    pub(crate) unfit: bool,
    /// Its copy of the log may lack what it had acknowledged.
    pub(crate) suspect: bool,
}

impl Condition {
    const SOUND: Self = Self { space: Space::Ample, unfit: false, suspect: false };

    /// Adds it to an answer. Ample space and a sound copy are told by saying nothing, as older builds do.
    pub(crate) fn tell(self, mut answer: OutFrame) -> OutFrame {
        if self != Self::SOUND {
            let unfit = if self.unfit { UNFIT } else { 0 };
            let suspect = if self.suspect { SUSPECT } else { 0 };
            answer.body.push(Bytes::copy_from_slice(&[self.space as u8 | unfit | suspect]));
        }
        answer
    }

    /// What an answer says.
    pub(crate) fn told(answer: &Frame) -> Self {
        answer.body.first().map_or(Self::SOUND, |told| Self {
            space: Space::from_number(*told & !(UNFIT | SUSPECT)),
            unfit: *told & UNFIT != 0,
            suspect: *told & SUSPECT != 0,
        })
    }
}

/// An answer to an append. `flushed`: how far the log is of what was vouched for; none if it is all.
pub(crate) fn append_reply(
    to: &Frame,
    reply: AppendEntriesResponse<Types>,
    flushed: Option<u64>,
) -> OutFrame {
    let reply = match reply {
        AppendEntriesResponse::Success => {
            flushed.map_or(AppendReply::Success, AppendReply::Written)
        }
        AppendEntriesResponse::PartialSuccess(id) => AppendReply::Partial(id.as_ref().map(wire_id)),
        AppendEntriesResponse::Conflict => AppendReply::Conflict,
        AppendEntriesResponse::HigherVote(vote) => AppendReply::HigherVote(wire_vote(&vote)),
    };
    response(to, &reply)
}

/// An answer to an append, and how far the follower has flushed of what was vouched for: none if it is all.
pub(crate) fn decode_append_reply(
    frame: &Frame,
) -> Result<(AppendEntriesResponse<Types>, Option<u64>), BadMessage> {
    let reply = accepted::<AppendReply>(frame)?;
    let flushed = match reply {
        AppendReply::Success => None,
        AppendReply::Written(end) => Some(end),
        // Of these nothing is said.
        AppendReply::Partial(_) | AppendReply::Conflict | AppendReply::HigherVote(_) => Some(0),
    };
    let reply = match reply {
        AppendReply::Success | AppendReply::Written(_) => AppendEntriesResponse::Success,
        AppendReply::Partial(id) => AppendEntriesResponse::PartialSuccess(id.map(from_wire_id)),
        AppendReply::Conflict => AppendEntriesResponse::Conflict,
        AppendReply::HigherVote(vote) => AppendEntriesResponse::HigherVote(from_wire_vote(vote)),
    };
    Ok((reply, flushed))
}

pub(crate) fn encode_vote(kind: u8, log: LogId, request: &VoteRequest<Types>) -> OutFrame {
    let head = VoteHead {
        vote: wire_vote(&request.vote),
        last: request.last_log_id.as_ref().map(wire_id),
        leadership_transfer: request.leadership_transfer,
    };
    frame(kind, log, &head)
}

pub(crate) fn decode_vote(frame: &Frame) -> Result<VoteRequest<Types>, BadMessage> {
    let head: VoteHead = decode(&frame.head)?;
    let mut request = VoteRequest::new(from_wire_vote(head.vote), head.last.map(from_wire_id));
    request.leadership_transfer = head.leadership_transfer;
    Ok(request)
}

/// An answer to a vote or a pre-vote. A node whose log may lack what it had acknowledged says so in the body, which older
/// builds do not read.
pub(crate) fn vote_reply(to: &Frame, reply: &VoteResponse<Types>, suspect: bool) -> OutFrame {
    let reply = VoteReply {
        vote: wire_vote(&reply.vote),
        last: reply.last_log_id.as_ref().map(wire_id),
        granted: reply.vote_granted,
    };
    let mut out = response(to, &reply);
    if suspect && !Mutant::SuspectGrantUnmarked.is_active() {
        out.body.push(Bytes::from_static(&[SUSPECT]));
    }
    out
}

/// True if an answer to a vote says that the voter's log may lack what it had acknowledged.
pub(crate) fn suspect_voted(answer: &Frame) -> bool {
    answer.body.first().is_some_and(|told| told & SUSPECT != 0)
}

pub(crate) fn decode_vote_reply(frame: &Frame) -> Result<VoteResponse<Types>, BadMessage> {
    let reply: VoteReply = accepted(frame)?;
    Ok(VoteResponse::new(from_wire_vote(reply.vote), reply.last.map(from_wire_id), reply.granted))
}

/// The answer to a piece of a checkpoint: the vote, and in the body how many bytes of the state are there.
pub(crate) fn piece_reply(to: &Frame, vote: &RaftVote, so_far: u64) -> OutFrame {
    let mut out = response(to, &wire_vote(vote));
    out.body.push(Bytes::copy_from_slice(&so_far.to_le_bytes()));
    out
}

/// Older builds do not say how many bytes are there.
pub(crate) fn decode_piece_reply(frame: &Frame) -> Result<(RaftVote, Option<u64>), BadMessage> {
    let vote = accepted::<WireVote>(frame).map(from_wire_vote)?;
    let so_far = frame.body.as_ref().try_into().ok().map(u64::from_le_bytes);
    Ok((vote, so_far))
}

pub(crate) fn encode_transfer(
    log: LogId,
    request: &openraft::raft::TransferLeaderRequest<Types>,
) -> OutFrame {
    let head = TransferHead {
        from: wire_vote(request.from_leader()),
        to: *request.to_node_id(),
        last: request.last_log_id().map(wire_id),
    };
    frame(TRANSFER_LEADER, log, &head)
}

pub(crate) fn decode_transfer(
    frame: &Frame,
) -> Result<openraft::raft::TransferLeaderRequest<Types>, BadMessage> {
    let head: TransferHead = decode(&frame.head)?;
    Ok(openraft::raft::TransferLeaderRequest::new(
        from_wire_vote(head.from),
        head.to,
        head.last.map(from_wire_id),
    ))
}
