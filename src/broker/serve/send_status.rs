//! What a producer is told of a message that is not acknowledged in time. RocketMQ's words for it all mean that the message
//! is stored, so they are used only where the leader has put it into its log:
//!
//! ```text
//! FLUSH_DISK_TIMEOUT   the leader's own disk does not hold it yet, as its flush setting asks
//! SLAVE_NOT_AVAILABLE  its disk does, and no majority has answered lately: there is nobody to replicate it to
//! FLUSH_SLAVE_TIMEOUT  its disk does, and the others have not said in time that theirs do
//! ```
//!
//! It may be committed later, and then lies where the answer says. If it is not even known that it is in the log, the
//! connection ends instead, which tells stock clients the same as a broker that dies: nobody knows.

use super::failure::Failure;
use super::log_broker::LogBroker;
use crate::broker::record::put_offset_id;
use crate::broker::remoting::Reply;
use crate::broker::remoting::codes::response;
use crate::broker::state::physical;
use crate::progress::Progress;

/// What an answer needs to know about messages that are on their way into the log.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) progress: Progress,
    /// That of the first.
    pub(super) queue: i32,
    pub(super) count: usize,
}

/// Not known. Queue offsets are given when a message is applied, and clients insist on a number.
const NO_QUEUE_OFFSET: i64 = -1;

/// What the fields of an answer take beside its ids.
const SEND_REPLY_BYTES: usize = 128;

/// What the leader knows about a message that is in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    flushed: bool,
    majority: bool,
}

impl Known {
    fn code(self) -> i32 {
        match self {
            Self { flushed: false, .. } => response::FLUSH_DISK_TIMEOUT,
            Self { majority: false, .. } => response::SLAVE_NOT_AVAILABLE,
            Self { .. } => response::FLUSH_SLAVE_TIMEOUT,
        }
    }

    fn remark(self) -> &'static str {
        match self.code() {
            response::FLUSH_DISK_TIMEOUT => "appended, and not flushed in time",
            response::SLAVE_NOT_AVAILABLE => "appended, and no majority of nodes answers",
            _ => "appended and flushed, and not known to be replicated in time",
        }
    }
}

/// The fields that clients want in each answer that says that a message is stored.
pub(super) fn send_reply(reply: Reply, ids: &str, queue: i64, offset: i64) -> Reply {
    reply
        .with_room(SEND_REPLY_BYTES + ids.len())
        .with("msgId", ids)
        .with("queueId", queue)
        .with("queueOffset", offset)
        .with("MSG_REGION", "DefaultRegion")
        .with("TRACE_ON", "true")
}

impl LogBroker {
    /// The ids of messages at these places.
    pub(super) fn ids(&self, physical: impl Iterator<Item = u64>) -> String {
        let mut ids = String::new();
        for physical in physical {
            if !ids.is_empty() {
                ids.push(',');
            }
            put_offset_id(&mut ids, self.addr, physical);
        }
        ids
    }

    /// What is known of messages that were not acknowledged. They have an id, which holds if they are ever committed, and
    /// no queue offset.
    ///
    /// # Errors
    /// It is not known that they are in the log.
    pub(super) fn unacknowledged(&self, status: &Status, detail: &str) -> Result<Reply, Failure> {
        let Status { progress, queue, count } = status;
        let Some((index, _)) = progress.appended() else {
            return Err(Failure::Unknown(detail.to_owned()));
        };
        let log = &self.opened()?.log;
        let known = Known { flushed: progress.is_flushed(), majority: log.hears_majority() };
        let reply = Reply::refused(known.code(), format!("{}: {detail}", known.remark()));
        let ids = self.ids((0..*count).map(|part| physical(index, part)));
        Ok(send_reply(reply, &ids, (*queue).into(), NO_QUEUE_OFFSET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_of_what_is_known_is_told() {
        for (flushed, majority, code) in
            [(false, false, 10), (false, true, 10), (true, false, 11), (true, true, 12)]
        {
            assert_eq!(Known { flushed, majority }.code(), code, "{flushed} {majority}");
        }
    }
}
