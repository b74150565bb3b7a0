//! What the broker appends to its log. The first byte of a record says what it is:
//!
//! ```text
//! 1  messages:  u8 1 | u8 flags | u16 count, big-endian | records, one after another
//!               flag 1: not if a message of this topic and unique key was stored lately
//! 2  a change:  u8 2 | `Change` by `format::codec`
//! 3  delivery:  u8 3 | u8 level | u64 offset in the level's queue, big-endian | record
//!               Older builds wrote these. A message whose topic or queue is gone is dropped.
//! 4  deliveries: u8 4 | u8 level | u64 offset of the first, big-endian | u16 count, big-endian | records
//!               Messages of a level's queue that follow one another: all of them or none.
//! ```
//!
//! A record is a message in RocketMQ's stored layout (`record/layout.rs`) with both offsets zero.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use quorumlog::codec;
use serde::{Deserialize, Serialize};

use super::queue::PARTS_MAX;
use super::topics::TopicConfig;
use super::topics::follow::Follow;
use super::topics::registry::Decision;
use crate::record::{Message, RecordError};

const MESSAGES: u8 = 1;
/// Flag of messages: not if a message of this topic and unique key was stored lately.
const ONCE: u8 = 1;
/// Memory that records share: to allocate each by itself takes longer than to fill it. It is held while one of them
/// is, and a log holds its newest records anyway.
const ROOM_BYTES: usize = 64 << 10;
/// Larger ones get memory of their own.
const ROOM_RECORD_BYTES: usize = ROOM_BYTES / 4;
const CHANGE: u8 = 2;
const DELIVERY: u8 = 3;
const DELIVERIES: u8 = 4;
/// Bytes of deliveries before the first record.
const DELIVERIES_HEAD: usize = 12;

/// A consumer group has consumed a queue up to here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OffsetChange {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) queue: u32,
    pub(crate) offset: u64,
}

/// A consumer group has consumed a queue up to here, as of one life of the topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReportedOffset {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) queue: u32,
    pub(crate) offset: u64,
    /// What made the topic in this log ([`State::topic_since`](super::topics::State::topic_since)) when the group reported
    /// this; 0 if there was none. Of a topic that was deleted and made again since, it says nothing.
    pub(crate) since: u64,
}

/// A consumer asks for queues, or gives them back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LockRequest {
    pub(crate) group: String,
    pub(crate) client: String,
    pub(crate) queues: Vec<(String, u32)>,
}

/// A change of the state that is no message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A node leads now, and serves clients at this address. Everything before it is applied once it is.
    Lead { node: u64, addr: String },
    /// Makes a topic in this log alone, or changes its settings.
    PutTopic { name: String, config: TopicConfig },
    /// Makes a topic in this log alone if there is none.
    EnsureTopic { name: String, config: TopicConfig },
    /// Deletes a topic of this log alone, and all that belongs to it.
    DeleteTopic { name: String },
    /// Notes consumed offsets. Older builds wrote these.
    Offsets(Vec<OffsetChange>),
    /// Takes or renews locks of queues, as of the leaders' lease clock; in records of older builds, of a wall clock.
    Lock { request: LockRequest, now_ms: i64 },
    /// Gives locks back.
    Unlock(LockRequest),
    /// Decides on a topic of all logs. Only in the home log.
    Decide(Decision),
    /// Does what the home log decided.
    Follow(Follow),
    /// From here on, records mean what they mean by these rules or by newer ones that hold already (`rules`).
    Rules { version: u32 },
    /// Notes consumed offsets, each as of one life of its topic.
    ReportedOffsets(Vec<ReportedOffset>),
}

/// Where a message was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placed {
    pub(crate) queue: u32,
    pub(crate) offset: u64,
    pub(crate) physical: u64,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// The topic was deleted meanwhile.
    NoTopic(String),
    /// The topic has fewer queues.
    NoQueue(String, i32),
    /// It was delivered before.
    Delivered,
    /// The record is none of ours.
    NotUnderstood(String),
    /// There is no room for more.
    Full(String),
    /// A name or a number in it is over a limit.
    TooLarge(String),
}

/// What applying a record came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Stored(Vec<Placed>),
    Locked(Vec<(String, u32)>),
    Refused(Refusal),
    /// Offsets were noted, but for those at these places of the record.
    OffsetsRefused(Vec<(u32, Refusal)>),
    /// Logs that have followed this version of the registry have done what was decided.
    Decided {
        version: u64,
    },
}

impl Answer {
    /// As bytes for whoever proposed the record.
    pub(crate) fn encode(&self) -> Bytes {
        Bytes::from(codec::encode(self))
    }

    /// What `encode` made the bytes from.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let unknown = |error: codec::CodecError| Refusal::NotUnderstood(error.to_string());
        codec::decode(bytes).unwrap_or_else(|error| Self::Refused(unknown(error)))
    }
}

/// A record of messages, all of them or none; with `once` not if the first one's key was stored lately. It is made in
/// `room`, which is empty and gets more memory as it needs it.
///
/// # Panics
/// More than 4096 messages: batches are checked where they come in.
pub(crate) fn messages(room: &mut BytesMut, messages: &[Message], once: bool) -> Bytes {
    assert!(messages.len() <= PARTS_MAX, "a batch was let through that has too many messages");
    let bytes = 4 + messages.iter().map(Message::stored_bytes).sum::<usize>();
    let mut own = BytesMut::new();
    let out = match bytes {
        _ if bytes <= room.capacity() => room,
        ..=ROOM_RECORD_BYTES => {
            *room = BytesMut::with_capacity(ROOM_BYTES);
            room
        }
        // By itself, or a few large ones would waste most of the room.
        _ => {
            own.reserve(bytes);
            &mut own
        }
    };
    out.put_u8(MESSAGES);
    out.put_u8(if once { ONCE } else { 0 });
    out.put_u16(messages.len() as u16);
    messages.iter().for_each(|message| message.encode(out));
    out.split().freeze()
}

/// True for a record of a change, if it is one of ours.
pub(super) fn is_change(record: &[u8]) -> bool {
    record.first() == Some(&CHANGE)
}

/// A record of a change.
pub(crate) fn change(change: &Change) -> Bytes {
    let mut out = vec![CHANGE];
    out.extend(codec::encode(change));
    Bytes::from(out)
}

/// Delayed messages that are due: those of a level's queue from `offset` on.
///
/// # Panics
/// More than 4096 messages: the caller limits its batches.
pub(crate) fn deliveries(level: u8, offset: u64, messages: &[Message]) -> Bytes {
    assert!(messages.len() <= PARTS_MAX, "more deliveries than a record can have parts");
    let bytes = messages.iter().map(Message::stored_bytes).sum::<usize>();
    let mut out = BytesMut::with_capacity(DELIVERIES_HEAD + bytes);
    out.put_u8(DELIVERIES);
    out.put_u8(level);
    out.put_u64(offset);
    out.put_u16(messages.len() as u16);
    messages.iter().for_each(|message| message.encode(&mut out));
    out.freeze()
}

/// A delivery as older builds wrote it.
#[cfg(test)]
pub(crate) fn delivery(level: u8, offset: u64, message: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(10 + message.stored_bytes());
    out.put_u8(DELIVERY);
    out.put_u8(level);
    out.put_u64(offset);
    message.encode(&mut out);
    out.freeze()
}

/// A delivery as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deliver {
    pub(crate) level: u8,
    pub(crate) offset: u64,
    pub(crate) record: Bytes,
}

/// Deliveries as they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeliverAll {
    pub(crate) level: u8,
    /// Of the first in the level's queue.
    pub(crate) offset: u64,
    pub(crate) records: Vec<Bytes>,
}

/// A record of the log, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    Messages { once: bool, records: Vec<Bytes> },
    Change(Change),
    Delivery(Deliver),
    Deliveries(DeliverAll),
}

impl Payload {
    /// Its messages as they are stored.
    pub(crate) fn messages(&self) -> &[Bytes] {
        match self {
            Self::Messages { records, .. } => records,
            Self::Delivery(delivery) => std::slice::from_ref(&delivery.record),
            Self::Deliveries(all) => &all.records,
            Self::Change(_) => &[],
        }
    }

    /// Reads a record of the log. Nothing in it is passed over: what is not understood has a meaning for the build that
    /// wrote it.
    ///
    /// # Errors
    /// It is none of ours, or of a later version.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, RecordError> {
        let kind = bytes.try_get_u8().map_err(|_| RecordError::cut("kind"))?;
        match kind {
            MESSAGES => {
                let flags = bytes.try_get_u8().map_err(|_| RecordError::cut("head"))?;
                let count = bytes.try_get_u16().map_err(|_| RecordError::cut("head"))?;
                if flags & !ONCE != 0 {
                    return Err(RecordError(format!("messages with the flags {flags:#x}")));
                }
                let records = take_records(&mut bytes, count.into())?;
                Ok(Self::Messages { once: flags & ONCE != 0, records })
            }
            CHANGE => codec::decode(&bytes)
                .map(Self::Change)
                .map_err(|error| RecordError(error.to_string())),
            DELIVERY if bytes.len() > 9 => {
                let (level, offset) = (bytes.get_u8(), bytes.get_u64());
                Ok(Self::Delivery(Deliver { level, offset, record: bytes }))
            }
            DELIVERIES if bytes.len() >= DELIVERIES_HEAD - 1 => {
                let (level, offset) = (bytes.get_u8(), bytes.get_u64());
                let count = usize::from(bytes.get_u16());
                let records = take_records(&mut bytes, count)?;
                Ok(Self::Deliveries(DeliverAll { level, offset, records }))
            }
            _ => Err(RecordError(format!("a record of kind {kind}"))),
        }
    }
}

/// So many messages, and nothing behind them.
fn take_records(bytes: &mut Bytes, count: usize) -> Result<Vec<Bytes>, RecordError> {
    if count > PARTS_MAX {
        return Err(RecordError(format!("a record of {count} messages")));
    }
    let records = (0..count).map(|_| Message::take_bytes(bytes));
    let records = records.collect::<Result<_, _>>()?;
    match bytes.len() {
        0 => Ok(records),
        more => Err(RecordError(format!("{more} bytes behind its messages"))),
    }
}

/// The messages of a record of the log, one behind the other.
///
/// # Errors
/// There are none in it.
pub(crate) fn messages_of(payload: &Bytes) -> Result<Bytes, RecordError> {
    let mut bytes = payload.clone();
    let kind = bytes.try_get_u8().map_err(|_| RecordError::cut("kind"))?;
    let head = match kind {
        MESSAGES => 3,
        DELIVERY => 9,
        DELIVERIES => DELIVERIES_HEAD - 1,
        _ => return Err(RecordError("no message at this offset".to_owned())),
    };
    if bytes.len() < head {
        return Err(RecordError::cut("head"));
    }
    bytes.advance(head);
    Ok(bytes)
}

/// The bytes of one message of a record of the log.
///
/// # Errors
/// There is no such message in it.
pub(crate) fn message_at(payload: &Bytes, part: usize) -> Result<Bytes, RecordError> {
    let mut bytes = messages_of(payload)?;
    for _ in 0..part {
        Message::take_bytes(&mut bytes)?;
    }
    Message::take_bytes(&mut bytes)
}
