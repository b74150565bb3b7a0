//! What clients and nodes say to each other: requests, responses, and their kinds.
//!
//! The log is in the frame's header. Heads are fixed-width control data; payloads are in the body,
//! each under its CRC, and are never copied on their way out.

use std::time::Duration;

use bytes::{Buf, Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Frame, OutFrame};
use crate::error::{AdminError, AppendError, ReadError};
use crate::format::codec::{self, CodecError};
use crate::format::entry::EntryId;
use crate::member::{Member, MemberForm, MemberStatus, NodeId, Status};
use crate::problem::NodeStatus;
use crate::record::{AppendOptions, Appended, Flush, LogId, LogName, Record, Start};
use status::{MemberStatusForm, NodeStatusForm, StatusForm};

mod errors;
mod records;
mod status;
#[cfg(test)]
mod tests;

/// Bytes that a record takes in a body beside its payload, at most.
pub(crate) const RECORD_OVERHEAD: usize = records::RECORD_HEADER_BYTES;
/// What a frame of records takes beside them, at most.
#[cfg(feature = "server")]
pub(crate) const RECORDS_FRAME_OVERHEAD: usize = 128;

mod request {
    pub(super) const APPEND: u8 = 1;
    pub(super) const APPEND_BATCH: u8 = 2;
    pub(super) const READ: u8 = 3;
    pub(super) const READ_BARRIER: u8 = 4;
    pub(super) const SUBSCRIBE: u8 = 5;
    pub(super) const STATUSES: u8 = 6;
    pub(super) const LOGS: u8 = 7;
    pub(super) const CREATE_LOG: u8 = 8;
    pub(super) const DELETE_LOG: u8 = 9;
    pub(super) const MEMBERS: u8 = 10;
    pub(super) const ADD_LEARNER: u8 = 11;
    pub(super) const PROMOTE: u8 = 12;
    pub(super) const REMOVE: u8 = 13;
    pub(super) const TRANSFER_LOG: u8 = 14;
    pub(super) const TRANSFER_ALL: u8 = 15;
    pub(super) const NODE_STATUS: u8 = 16;
}

mod response {
    pub(super) const APPENDED: u8 = 64;
    pub(super) const RECORDS: u8 = 65;
    pub(super) const BARRIER: u8 = 66;
    pub(super) const STATUSES: u8 = 67;
    pub(super) const LOGS: u8 = 68;
    pub(super) const MEMBERS: u8 = 69;
    pub(super) const DONE: u8 = 70;
    pub(super) const NODE_STATUS: u8 = 71;
    pub(super) const APPEND_FAILED: u8 = 96;
    pub(super) const READ_FAILED: u8 = 97;
    pub(super) const ADMIN_FAILED: u8 = 98;
}

/// A frame that is not part of this protocol. Its connection is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("frames of kind {0} are not known here")]
    Kind(u8),
    #[error("frames of kind {kind}: {source}")]
    Head { kind: u8, source: CodecError },
    #[error("the body is not as long as its lengths say")]
    Length,
    #[error("a payload was damaged on its way: its CRC does not match")]
    Payload,
}

/// True if this is how a node's build refuses a request that is newer than it.
#[cfg_attr(not(feature = "client"), allow(dead_code, reason = "for clients"))]
pub(crate) fn is_unknown(request: &Request, refusal: &str) -> bool {
    let kind = request.clone().into_frame(LogId::SYSTEM).kind;
    refusal.contains(&ProtocolError::Kind(kind).to_string())
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// `crc` is of the payload, and is verified on receipt.
    Append {
        options: AppendOptions,
        crc: u32,
        payload: Bytes,
    },
    AppendBatch {
        options: AppendOptions,
        payloads: Vec<Bytes>,
    },
    Read {
        from: u64,
        max_bytes: u64,
    },
    ReadBarrier,
    /// Answered by a stream of `Response::Records`, within the credit.
    Subscribe {
        start: Start,
        /// The last record that the subscriber got, maybe from another node.
        last: Option<EntryId>,
    },
    /// Of every log on that node, the system log first.
    Statuses,
    Logs,
    CreateLog {
        name: String,
    },
    DeleteLog {
        name: String,
    },
    Members,
    AddLearner {
        member: Member,
    },
    Promote {
        node: NodeId,
    },
    Remove {
        node: NodeId,
    },
    /// Of the log in the frame's header.
    TransferLog {
        to: NodeId,
    },
    TransferAll {
        to: NodeId,
    },
    /// Of that node: its logs, and what is wrong.
    NodeStatus,
}

/// What a node answers.
#[derive(Debug, Clone)]
pub(crate) enum Response {
    Appended(Appended),
    /// Reading goes on at `next`.
    Records {
        next: u64,
        records: Vec<Record>,
    },
    Barrier(u64),
    Statuses(Vec<Status>),
    NodeStatus(Box<NodeStatus>),
    Logs(Vec<(LogName, LogId)>),
    Members(Vec<MemberStatus>),
    Done,
    AppendFailed(AppendError),
    ReadFailed(ReadError),
    AdminFailed(AdminError),
}

impl Request {
    /// An append, with the CRC taken of its payload.
    pub(crate) fn append(payload: Bytes, options: AppendOptions) -> Self {
        Self::Append { options, crc: crc32fast::hash(&payload), payload }
    }

    /// Asking twice does no harm.
    pub(crate) fn changes_nothing(&self) -> bool {
        matches!(
            self,
            Self::Read { .. }
                | Self::ReadBarrier
                | Self::Subscribe { .. }
                | Self::Statuses
                | Self::Logs
                | Self::Members
                | Self::NodeStatus
        )
    }

    /// Whoever takes it leads the log.
    pub(crate) fn is_append(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::AppendBatch { .. })
    }

    pub(crate) fn into_frame(self, log: LogId) -> OutFrame {
        let mut body = Vec::new();
        let (kind, head) = match self {
            Self::Append { options, crc, payload } => {
                body.push(payload);
                (request::APPEND, head(&(Options::from(options), crc)))
            }
            Self::AppendBatch { options, payloads } => {
                let count = payloads.len() as u64;
                body = records::batch_body(payloads);
                (request::APPEND_BATCH, head(&(Options::from(options), count)))
            }
            Self::Read { from, max_bytes } => (request::READ, head(&(from, max_bytes))),
            Self::ReadBarrier => (request::READ_BARRIER, Bytes::new()),
            Self::Subscribe { start, last } => {
                (request::SUBSCRIBE, head(&(start_to_wire(start), last)))
            }
            Self::Statuses => (request::STATUSES, Bytes::new()),
            Self::Logs => (request::LOGS, Bytes::new()),
            Self::CreateLog { name } => (request::CREATE_LOG, head(&name)),
            Self::DeleteLog { name } => (request::DELETE_LOG, head(&name)),
            Self::Members => (request::MEMBERS, Bytes::new()),
            Self::AddLearner { member } => (request::ADD_LEARNER, head(&MemberForm::from(member))),
            Self::Promote { node } => (request::PROMOTE, head(&node)),
            Self::Remove { node } => (request::REMOVE, head(&node)),
            Self::TransferLog { to } => (request::TRANSFER_LOG, head(&to)),
            Self::TransferAll { to } => (request::TRANSFER_ALL, head(&to)),
            Self::NodeStatus => (request::NODE_STATUS, Bytes::new()),
        };
        OutFrame { kind, log, correlation: 0, head, body }
    }

    /// Records of the batch that a frame brings, and bytes of their payloads, before anything is decoded that takes time or
    /// memory. None if it brings none.
    #[cfg(feature = "server")]
    pub(crate) fn batch_of(frame: &Frame) -> Result<Option<(u64, u64)>, ProtocolError> {
        if frame.kind != request::APPEND_BATCH {
            return Ok(None);
        }
        let (_, count): (Options, u64) = read(frame)?;
        let payloads = records::batch_payload_bytes(&frame.body, count)?;
        Ok(Some((count, payloads)))
    }

    /// Payloads are slices of the frame's body, and verified.
    pub(crate) fn from_frame(frame: &Frame) -> Result<Self, ProtocolError> {
        Ok(match frame.kind {
            request::APPEND => {
                let (options, crc): (Options, u32) = read(frame)?;
                let payload = frame.body.clone();
                if crc32fast::hash(&payload) != crc {
                    return Err(ProtocolError::Payload);
                }
                Self::Append { options: options.into(), crc, payload }
            }
            request::APPEND_BATCH => {
                let (options, count): (Options, u64) = read(frame)?;
                let payloads = records::read_batch(frame.body.clone(), count)?;
                Self::AppendBatch { options: options.into(), payloads }
            }
            request::READ => {
                let (from, max_bytes) = read(frame)?;
                Self::Read { from, max_bytes }
            }
            request::READ_BARRIER => Self::ReadBarrier,
            request::SUBSCRIBE => {
                let (start, last) = read(frame)?;
                Self::Subscribe { start: start_from_wire(start), last }
            }
            request::STATUSES => Self::Statuses,
            request::LOGS => Self::Logs,
            request::CREATE_LOG => Self::CreateLog { name: read(frame)? },
            request::DELETE_LOG => Self::DeleteLog { name: read(frame)? },
            request::MEMBERS => Self::Members,
            request::ADD_LEARNER => Self::AddLearner { member: read::<MemberForm>(frame)?.into() },
            request::PROMOTE => Self::Promote { node: read(frame)? },
            request::REMOVE => Self::Remove { node: read(frame)? },
            request::TRANSFER_LOG => Self::TransferLog { to: read(frame)? },
            request::TRANSFER_ALL => Self::TransferAll { to: read(frame)? },
            request::NODE_STATUS => Self::NodeStatus,
            kind => return Err(ProtocolError::Kind(kind)),
        })
    }
}

impl Response {
    pub(crate) fn into_frame(self, log: LogId, correlation: u64) -> OutFrame {
        let mut body = Vec::new();
        let (kind, head) = match self {
            Self::Appended(appended) => {
                let (kind, head) = acknowledgement(&appended);
                (kind, Bytes::copy_from_slice(&head))
            }
            Self::Records { next, records } => {
                let count = records.len() as u64;
                body = records::records_body(records);
                (response::RECORDS, head(&(next, count)))
            }
            Self::Barrier(index) => (response::BARRIER, head(&index)),
            Self::Statuses(statuses) => {
                (response::STATUSES, head(&status::all::<_, StatusForm>(statuses)))
            }
            Self::NodeStatus(status) => {
                (response::NODE_STATUS, head(&NodeStatusForm::from(*status)))
            }
            Self::Logs(logs) => (response::LOGS, head(&logs)),
            Self::Members(members) => {
                (response::MEMBERS, head(&status::all::<_, MemberStatusForm>(members)))
            }
            Self::Done => (response::DONE, Bytes::new()),
            Self::AppendFailed(error) => {
                (response::APPEND_FAILED, head(&errors::AppendFailure::from(&error)))
            }
            Self::ReadFailed(error) => {
                (response::READ_FAILED, head(&errors::ReadFailure::from(&error)))
            }
            Self::AdminFailed(error) => {
                (response::ADMIN_FAILED, head(&errors::AdminFailure::from(&error)))
            }
        };
        OutFrame { kind, log, correlation, head, body }
    }

    /// Payloads are slices of the frame's body, and verified.
    pub(crate) fn from_frame(frame: &Frame) -> Result<Self, ProtocolError> {
        Ok(match frame.kind {
            response::APPENDED => {
                let (index, term, count) = read(frame)?;
                Self::Appended(Appended::new(index, term, count))
            }
            response::RECORDS => {
                let (next, count) = read(frame)?;
                Self::Records { next, records: records::read_records(frame.body.clone(), count)? }
            }
            response::BARRIER => Self::Barrier(read(frame)?),
            response::STATUSES => Self::Statuses(status::all(read::<Vec<StatusForm>>(frame)?)),
            response::NODE_STATUS => {
                Self::NodeStatus(Box::new(read::<NodeStatusForm>(frame)?.into()))
            }
            response::LOGS => Self::Logs(read(frame)?),
            response::MEMBERS => Self::Members(status::all(read::<Vec<MemberStatusForm>>(frame)?)),
            response::DONE => Self::Done,
            response::APPEND_FAILED => {
                Self::AppendFailed(read::<errors::AppendFailure>(frame)?.into())
            }
            response::READ_FAILED => Self::ReadFailed(read::<errors::ReadFailure>(frame)?.into()),
            response::ADMIN_FAILED => {
                Self::AdminFailed(read::<errors::AdminFailure>(frame)?.into())
            }
            kind => return Err(ProtocolError::Kind(kind)),
        })
    }
}

/// Kind and head of the response to an append. There is one per append, so it allocates nothing.
pub(crate) fn acknowledgement(appended: &Appended) -> (u8, [u8; 20]) {
    let mut head = [0; 20];
    head[..8].copy_from_slice(&appended.index.to_le_bytes());
    head[8..16].copy_from_slice(&appended.term.to_le_bytes());
    head[16..].copy_from_slice(&appended.count.to_le_bytes());
    (response::APPENDED, head)
}

/// Append options: sync, and a timeout in milliseconds, 0 for none.
type WireOptions = (bool, u32);

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct Options(WireOptions);

impl From<AppendOptions> for Options {
    fn from(options: AppendOptions) -> Self {
        let millis = |timeout: Duration| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let timeout = options.timeout.map_or(0, |timeout| millis(timeout).max(1));
        Self((options.flush == Some(Flush::Sync), timeout))
    }
}

impl From<Options> for AppendOptions {
    fn from(Options((sync, timeout)): Options) -> Self {
        Self {
            flush: sync.then_some(Flush::Sync),
            timeout: (timeout > 0).then(|| Duration::from_millis(u64::from(timeout))),
            ..Self::default()
        }
    }
}

fn start_to_wire(start: Start) -> (u8, u64) {
    match start {
        Start::Begin => (0, 0),
        Start::At(index) => (1, index),
        Start::Committed => (2, 0),
    }
}

fn start_from_wire((tag, index): (u8, u64)) -> Start {
    match tag {
        0 => Start::Begin,
        1 => Start::At(index),
        _ => Start::Committed,
    }
}

fn head<T: Serialize>(value: &T) -> Bytes {
    codec::encode(value).into()
}

fn read<T: DeserializeOwned>(frame: &Frame) -> Result<T, ProtocolError> {
    codec::decode(frame.head.chunk())
        .map_err(|source| ProtocolError::Head { kind: frame.kind, source })
}
